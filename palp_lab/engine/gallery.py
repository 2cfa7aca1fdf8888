"""Sample pictures during training, at fixed prompts and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from palp_lab.engine.callbacks import stepped, write_whole
from palp_lab.engine.pictures import draw
from palp_lab.engine.settings import GallerySettings
from palp_lab.losses.base import personal_text


class Gallery(Callback):
    """A sheet of pictures every so many steps: a row per sentence, a column per seed; gallery/step_000100.png. Final.

    Draws from its own generators only and changes nothing that trains. Shows the weights themselves, not their average.
    """

    def __init__(self, folder: Path, every: int, how: GallerySettings) -> None:
        self.folder = folder
        self.every = every
        self.how = how

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not stepped(trainer, batch_idx) or step % self.every or not trainer.is_global_zero:
            return
        how, rows = self.how, []
        for sentence in how.sentences:
            with torch.no_grad():
                cond = personal_text(module.adapter, [sentence] * len(how.seeds))
            pictures = draw(module.adapter.model, cond, how.seeds, how.scheduler, how.steps, how.guidance)
            rows.append(torch.cat(list(pictures), dim=-1))
        sheet = Image.fromarray(torch.cat(rows, dim=-2).permute(1, 2, 0).numpy())
        path = self.folder / f"step_{step:06d}.png"
        write_whole(path, lambda part: sheet.save(part, "PNG"))
        for logger in trainer.loggers:
            show = getattr(logger, "log_image", None)
            if show is not None:
                show(key="gallery", images=[sheet], step=step, caption=[" | ".join(how.sentences)])

"""Sample pictures during training, at fixed prompts and seeds."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from palp_lab.adapter import Adapter
from palp_lab.engine.callbacks import MovingAverage, stepped, write_whole
from palp_lab.engine.pictures import draw, is_out_of_memory
from palp_lab.engine.settings import GallerySettings
from palp_lab.losses.base import personal_text
from palp_lab.model import synchronize

logger = logging.getLogger(__name__)


@contextmanager
def _wearing(adapter: Adapter, average: MovingAverage | None) -> Iterator[None]:
    """The adapter with its average for weights, and afterwards with its own again, bit for bit, whatever happens."""
    if average is None:
        yield
        return
    own = {name: parameter.detach().to("cpu", copy=True) for name, parameter in adapter.parts()}
    try:
        adapter.load_tensors(average.tensors)
        yield
    finally:
        adapter.load_tensors(own)


class Gallery(Callback):
    """A sheet of pictures every so many steps, and after the last one: a row per sentence, a column per seed;
    gallery/step_000100.png. Final.

    Draws from its own generators only, one picture at a time, and changes nothing that trains. Shows what is saved:
    the `average` where there is one. Where memory runs out it says so and draws no more. `leave_out` is told the
    seconds it took.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        how: GallerySettings,
        leave_out: Callable[[float], None],
        average: MovingAverage | None = None,
    ) -> None:
        self.folder = folder
        self.every = every
        self.how = how
        self.leave_out = leave_out
        self.average = average

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        due = step % self.every == 0 or (step == trainer.max_steps and self.every < sys.maxsize)
        if not stepped(trainer, batch_idx) or not due or not trainer.is_global_zero:
            return
        synchronize(module.adapter.model.device)  # what is left of the step belongs to the training
        began = time.perf_counter()
        try:
            with _wearing(module.adapter, self.average):
                sheet = self._sheet(module)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("gallery: no memory for a picture beside the training; none are drawn (trainer.gallery=0)")
            self.every = sys.maxsize
            return
        self._keep(trainer, sheet, step)
        self.leave_out(time.perf_counter() - began)

    def _sheet(self, module: Any) -> Image.Image:
        how, model, rows = self.how, module.adapter.model, []
        for sentence in how.sentences:
            with torch.no_grad():
                cond = personal_text(module.adapter, [sentence])
            row = [draw(model, cond, [seed], how.scheduler, how.steps, how.guidance)[0] for seed in how.seeds]
            rows.append(torch.cat(row, dim=-1))
        return Image.fromarray(torch.cat(rows, dim=-2).permute(1, 2, 0).numpy())

    def _keep(self, trainer: lightning.Trainer, sheet: Image.Image, step: int) -> None:
        path = self.folder / f"step_{step:06d}.png"
        write_whole(path, lambda part: sheet.save(part, "PNG"))
        for logger in trainer.loggers:
            show = getattr(logger, "log_image", None)
            if show is not None:
                show(key="gallery", images=[sheet], step=step, caption=[" | ".join(self.how.sentences)])

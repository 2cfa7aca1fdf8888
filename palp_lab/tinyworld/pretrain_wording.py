"""Gives the generator's text encoder a start: it learns to say what a caption asks for before it sees a picture.

A random text encoder hardly moves a young UNet: most of its 40 vectors are the padding after the end, and all
of those are alike. Here these vectors learn to hold the caption's elements, so that even an even attention is informed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTextModel

from palp_lab.tinyworld.oracle import LABELS
from palp_lab.tinyworld.pretrain_loop import AbstractTask, Batch
from palp_lab.tinyworld.pretrain_reader import factor_loss, label_table
from palp_lab.tinyworld.pretrain_text import ids_of


class Wording(AbstractTask):
    """Linear heads read every factor off the vectors from the end of the text on; trained on captions and labels alone.

    ``captions`` int16 [n variants length] and ``labels`` belong to the generator's set; the scorers see neither.
    """

    def __init__(
        self, text: CLIPTextModel, captions: np.ndarray, labels: dict[str, np.ndarray], end: int, batch: int = 64
    ) -> None:
        super().__init__()
        self.text, self.captions, self.table, self.end, self.batch = text, captions, label_table(labels), end, batch
        width = text.config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(words)) for name, words in LABELS.items()})

    def draw(self, rng: torch.Generator) -> Batch:
        """Captions and the labels of their pictures; a factor that a caption drops can only be guessed."""
        rows = torch.randint(0, len(self.captions), (self.batch,), generator=rng)
        variant = torch.randint(0, self.captions.shape[1], (self.batch,), generator=rng)
        ids = ids_of(self.captions[rows.numpy(), variant.numpy()], torch.arange(self.batch))
        return {"ids": ids, "y": torch.from_numpy(self.table[rows.numpy()].astype(np.int64))}

    def forward(self, batch: Batch) -> Tensor:
        """Weighted cross-entropies, from the mean of the trailing vectors and from the last one alone."""
        hidden = self.text(batch["ids"]).last_hidden_state
        trailing = (batch["ids"] == self.end).unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * trailing).sum(1) / trailing.sum(1)
        single = hidden[:, -1]
        losses = [factor_loss({name: head(x) for name, head in self.heads.items()}, batch["y"]) for x in (mean, single)]
        return torch.stack(losses).mean()

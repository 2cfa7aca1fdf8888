"""What one step draws and predicts: random streams, a process's share of the batch, the pass with a graph."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from palp_lab.diffusion.prediction import Prediction
from palp_lab.model.base import TextCond

if TYPE_CHECKING:
    from palp_lab.types import Latents, Timesteps


def stream(seed: int, step: int, name: str) -> torch.Generator:
    """The named random stream of one step: a pure function of (seed, step, name), so that resuming needs no state and
    adding a loss leaves every other draw as it was."""
    digest = hashlib.sha256(f"{seed}/{step}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") & (2**63 - 1))


@dataclass(frozen=True)
class Share:
    """The rows of a step's batch that one micro-batch of one process holds: `count` of `total`, from `first` on.

    Draws are made for the whole batch and cut, so that accumulation and the number of processes leave them alone.
    """

    first: int
    count: int
    total: int

    def of(self, rows: Tensor) -> Tensor:
        """This share of rows that were drawn for the whole batch."""
        return rows[self.first : self.first + self.count]


@dataclass(frozen=True)
class Pass:
    """The one forward pass with a graph of a data stream: clean latents, noise, t, and what was predicted.
    `sentences` are the captions with a slot; `mask` [b 1 h w] is 1 where the loss counts (None: everywhere)."""

    x0: Latents
    noise: Latents
    t: Timesteps
    x_t: Latents
    sentences: tuple[str, ...]
    cond: TextCond
    pred: Prediction
    mask: Tensor | None = None
    share: Share | None = None

    @property
    def rows(self) -> Share:
        """The share this pass is of its step's batch; all of it where none is named."""
        return self.share or Share(0, len(self.x0), len(self.x0))

    def draw_noise(self, generator: torch.Generator) -> Latents:
        """Fresh standard normal noise for these rows, on their device."""
        whole = torch.randn((self.rows.total, *self.x0.shape[1:]), generator=generator, dtype=self.noise.dtype)
        return self.rows.of(whole).to(self.x0.device)

    def draw_t(self, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Fresh timesteps for these rows, uniform on the part [low, high) of the clock."""
        return self.rows.of(self.pred.path.draw_t(self.rows.total, generator, low, high)).to(self.t.device)

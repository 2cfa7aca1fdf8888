"""The context of one training step, and what every loss shares."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from palp_lab.adapter import Adapter
from palp_lab.dataset.concept import Concept
from palp_lab.diffusion.guidance import guide
from palp_lab.diffusion.prediction import Prediction
from palp_lab.model.base import AbstractModel, TextCond
from palp_lab.types import Capability, Role

if TYPE_CHECKING:
    from palp_lab.types import Latents, Timesteps


def stream(seed: int, step: int, name: str) -> torch.Generator:
    """The named random stream of one step: a pure function of (seed, step, name), so that resuming needs no state and
    adding a loss leaves every other draw as it was."""
    digest = hashlib.sha256(f"{seed}/{step}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") & (2**63 - 1))


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


@dataclass(frozen=True)
class StepContext:
    """All a loss may read. Frozen; the judging passes are made without a graph and remembered (with their inputs, so
    that an identity stays one tensor's), so that several losses share one pass."""

    adapter: Adapter
    passes: Mapping[Role, Pass]
    seed: int
    step: int
    target: str | None = None
    _memo: dict[tuple[object, ...], tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def model(self) -> AbstractModel:
        return self.adapter.model

    @property
    def concept(self) -> Concept:
        return self.adapter.concept

    def rng(self, name: str) -> torch.Generator:
        """A loss's own random stream of this step."""
        return stream(self.seed, self.step, name)

    def base(self, x_t: Latents, t: Timesteps, prompts: Sequence[str], guidance: float) -> Latents:
        """Native output of the frozen base model under full prompts, guided; no graph, edits and concept off.

        Guidance other than 1 adds the empty prompt as further rows of the same pass; 0 is the empty prompt alone.
        """
        key = ("base", id(x_t), id(t), tuple(prompts), guidance)
        if key not in self._memo:
            with torch.no_grad(), self.adapter.off():
                self._memo[key] = (self._guided(x_t, t, self.model.base_text(prompts), guidance), x_t, t)
        return self._memo[key][0]

    def personal(self, x_t: Latents, t: Timesteps, sentences: Sequence[str], guidance: float) -> Latents:
        """Native output of the personalized model under sentences with a slot, guided; no graph."""
        key = ("personal", id(x_t), id(t), tuple(sentences), guidance)
        if key not in self._memo:
            with torch.no_grad():
                self._memo[key] = (self._guided(x_t, t, self.adapter.encode(sentences), guidance), x_t, t)
        return self._memo[key][0]

    def _guided(self, x_t: Latents, t: Timesteps, cond: TextCond, guidance: float) -> Tensor:
        if guidance == 1:
            return self.model.predict(x_t, t, cond).raw
        empty = self.model.base_text([""] * len(cond))
        if guidance == 0:
            return self.model.predict(x_t, t, empty).raw
        rows = self.model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), TextCond.cat([empty, cond])).raw
        return guide(*rows.chunk(2), guidance)


class AbstractLoss(ABC):
    """A scalar of one step. `reads` names the streams it needs; `requires` what the model must offer; `needs_target`
    whether it means nothing without a target prompt. Reductions are means over all elements, so that batch size,
    accumulation and world size leave the scale alone."""

    weight: float
    source: str
    reads: frozenset[Role] = frozenset({Role.SUBJECT})
    requires: frozenset[Capability] = frozenset()
    needs_target: bool = False

    @abstractmethod
    def __call__(self, ctx: StepContext) -> Tensor:
        """The unweighted value. Its gradient reaches nothing outside the adapter."""

    def logged(self, ctx: StepContext) -> Mapping[str, float]:
        """Further numbers worth a curve (e.g. the norm of a residual), by name."""
        return {}

"""The context of one training step, and what every loss shares."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

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


Made = TypeVar("Made")


def stream(seed: int, step: int, name: str) -> torch.Generator:
    """The named random stream of one step: a pure function of (seed, step, name), so that resuming needs no state and
    adding a loss leaves every other draw as it was."""
    digest = hashlib.sha256(f"{seed}/{step}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") & (2**63 - 1))


def base_text(model: AbstractModel, prompts: Sequence[str]) -> TextCond:
    """Conditioning of full prompts by the frozen text encoder, in its own precision (the model remembers them)."""
    with torch.autocast(model.device.type, enabled=False):
        return model.base_text(prompts)


def personal_text(adapter: Adapter, sentences: Sequence[str]) -> TextCond:
    """Conditioning of sentences with a slot by the adapter, each distinct one encoded once; with a graph."""
    distinct = list(dict.fromkeys(sentences))
    with torch.autocast(adapter.model.device.type, enabled=False):
        cond = adapter.encode(distinct)
    return cond[torch.tensor([distinct.index(s) for s in sentences], device=cond.tokens.device)]


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


@dataclass(frozen=True)
class StepContext:
    """All a loss may read. Frozen; the judging passes are made without a graph and remembered (with their inputs, so
    that an identity stays one tensor's), so that several losses share one pass."""

    adapter: Adapter
    passes: Mapping[Role, Pass]
    seed: int
    step: int
    target: str | None = None
    _memo: dict[tuple[object, ...], Any] = field(default_factory=dict, repr=False, compare=False)

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

        def judge() -> tuple[Tensor, Tensor, Tensor]:
            with torch.no_grad(), self.adapter.off():
                return self._guided(x_t, t, base_text(self.model, prompts), guidance), x_t, t

        return self.remember(("base", id(x_t), id(t), tuple(prompts), guidance), judge)[0]

    def personal(self, x_t: Latents, t: Timesteps, sentences: Sequence[str], guidance: float) -> Latents:
        """Native output of the personalized model under sentences with a slot, guided; no graph."""

        def judge() -> tuple[Tensor, Tensor, Tensor]:
            with torch.no_grad():
                return self._guided(x_t, t, self._judging_text(sentences), guidance), x_t, t

        return self.remember(("personal", id(x_t), id(t), tuple(sentences), guidance), judge)[0]

    def remember(self, key: tuple[object, ...], make: Callable[[], Made]) -> Made:
        """What `make` makes, made once in this step."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    def _judging_text(self, sentences: Sequence[str]) -> TextCond:
        subject = self.passes.get(Role.SUBJECT)
        if subject is not None and tuple(sentences) == subject.sentences:
            return subject.cond.detach()
        return personal_text(self.adapter, sentences)

    def _guided(self, x_t: Latents, t: Timesteps, cond: TextCond, guidance: float) -> Tensor:
        if guidance == 1:
            return self.model.predict(x_t, t, cond).raw
        empty = self.model.unconditional(len(cond))
        if guidance == 0:
            return self.model.predict(x_t, t, empty).raw
        rows = self.model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), TextCond.cat([empty, cond])).raw
        unconditional, conditional = rows.chunk(2)
        return guide(unconditional, conditional, guidance)


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

"""The context of one training step, and what every loss shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from palp_lab.adapter import Adapter
from palp_lab.dataset.concept import Concept
from palp_lab.diffusion.guidance import guide
from palp_lab.losses.passes import Pass, stream
from palp_lab.model.base import AbstractModel, TextCond
from palp_lab.types import Capability, Role

if TYPE_CHECKING:
    from palp_lab.types import Latents, Timesteps


Made = TypeVar("Made")


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

    def base_each(self, x_t: Latents, t: Timesteps, texts: Sequence[Sequence[str] | None]) -> tuple[Latents, ...]:
        """Native outputs of the frozen base model under several full prompts per row (None: the empty one), unguided,
        in one pass; no graph."""

        def judge() -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
            with torch.no_grad(), self.adapter.off():
                conds = [self.model.unconditional(len(x_t)) if p is None else base_text(self.model, p) for p in texts]
                return self._rows(x_t, t, conds), x_t, t

        key = ("base_each", id(x_t), id(t), *(None if prompts is None else tuple(prompts) for prompts in texts))
        return self.remember(key, judge)[0]

    def personal(self, x_t: Latents, t: Timesteps, sentences: Sequence[str], guidance: float) -> Latents:
        """Native output of the personalized model under sentences with a slot, guided; no graph."""

        def judge() -> tuple[Tensor, Tensor, Tensor]:
            with torch.no_grad():
                return self._guided(x_t, t, self._judging_text(sentences), guidance), x_t, t

        return self.remember(("personal", id(x_t), id(t), tuple(sentences), guidance), judge)[0]

    def both(
        self, x_t: Latents, t: Timesteps, prompts: Sequence[str], alpha: float, sentences: Sequence[str], beta: float
    ) -> tuple[Latents, Latents]:
        """`base` under full prompts with guidance alpha and `personal` under sentences with guidance beta.

        One pass makes both where the edit leaves the denoiser's weights as they are (`shares_base_pass`); the rows of
        the empty prompt are then the same and made once.
        """
        if not self.adapter.edits.shares_base_pass:
            return self.base(x_t, t, prompts, alpha), self.personal(x_t, t, sentences, beta)

        def judge() -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
            with torch.no_grad():
                empty = self.model.unconditional(len(x_t))
                theirs = _guiding(empty, base_text(self.model, prompts), alpha)
                own = _guiding(empty, self._judging_text(sentences), beta)
                conds = [*theirs, *(cond for cond in own if all(cond is not other for other in theirs))]
                rows = dict(zip(map(id, conds), self._rows(x_t, t, conds), strict=True))
                base, personal = (
                    _mix([rows[id(cond)] for cond in some], scale) for some, scale in ((theirs, alpha), (own, beta))
                )
                return (base, personal), x_t, t

        return self.remember(("both", id(x_t), id(t), tuple(prompts), alpha, tuple(sentences), beta), judge)[0]

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
        empty = cond if guidance == 1 else self.model.unconditional(len(cond))
        return _mix(self._rows(x_t, t, _guiding(empty, cond, guidance)), guidance)

    def _rows(self, x_t: Latents, t: Timesteps, conds: Sequence[TextCond]) -> tuple[Tensor, ...]:
        """Native outputs under each of several conditionings of the same rows, in one pass."""
        if len(conds) == 1:
            return (self.model.predict(x_t, t, conds[0]).raw,)
        times = len(conds)
        return self.model.predict(torch.cat([x_t] * times), torch.cat([t] * times), TextCond.cat(conds)).raw.chunk(
            times
        )


def _guiding(empty: TextCond, cond: TextCond, guidance: float) -> list[TextCond]:
    """The conditionings a guided prediction is made of: both, unless the scale leaves one of them out."""
    return [cond] if guidance == 1 else [empty] if guidance == 0 else [empty, cond]


def _mix(rows: Sequence[Tensor], guidance: float) -> Tensor:
    return rows[0] if len(rows) == 1 else guide(rows[0], rows[1], guidance)


class AbstractLoss(ABC):
    """A scalar of one step. `reads` names the streams it needs; `requires` what the model must offer; `needs_target`
    whether it means nothing without a target prompt; `judged` whether it asks the frozen base model too, which a plan
    counts. Reductions are means over all elements, so that batch size, accumulation and world size leave the scale
    alone."""

    weight: float
    source: str
    reads: frozenset[Role] = frozenset({Role.SUBJECT})
    requires: frozenset[Capability] = frozenset()
    needs_target: bool = False
    judged: bool = False

    @abstractmethod
    def __call__(self, ctx: StepContext) -> Tensor:
        """The unweighted value. Its gradient reaches nothing outside the adapter."""

    def outputs(self, ctx: StepContext) -> Sequence[Tensor]:
        """The network's outputs that the value is a function of: those of the streams it reads."""
        return [ctx.passes[role].pred.raw for role in sorted(self.reads)]

    def logged(self, ctx: StepContext) -> Mapping[str, float]:
        """Further numbers worth a curve (e.g. the norm of a residual), by name."""
        return {}

"""What the frozen base's judgement is compared with: the three references of score distillation.

Each maps a judged sample to the residual in native units at the judge's t, so that  r_eps = q r_native  with q = 1
(eps), alpha (v), 1 - sigma (flow). All passes are without a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from palp_lab.diffusion.prediction import Prediction
from palp_lab.losses.base import StepContext
from palp_lab.losses.passes import Pass
from palp_lab.types import Kind

if TYPE_CHECKING:
    from palp_lab.types import Latents, Timesteps

NEGATIVE_PROMPT = (
    "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
)
"""NFSD's p_neg. Source: arXiv 2310.17590, section 4."""

DOMAIN_ALONE_BELOW = 0.2
"""NFSD: below t = 200 of 1000 the unconditional prediction itself is the domain direction.

Source: arXiv 2310.17590, section 4."""


@dataclass(frozen=True)
class Judged:
    """x0hat noised again: `x_t` at `t`, the native `target` of what it was made from, and the judge's full prompts
    (`negative` is NFSD's alone)."""

    x_t: Latents
    t: Timesteps
    target: Latents
    prompts: Sequence[str]
    negative: str = NEGATIVE_PROMPT


def personal(ctx: StepContext, data: Pass, judged: Judged, alpha: float, beta: float) -> Latents:
    """Base under the clean prompt minus the personalized model under the photo's caption, on the same sample.

    Source: arXiv 2401.06105, Eq. 6.
    """
    base, own = ctx.both(judged.x_t, judged.t, judged.prompts, alpha, data.sentences, beta)
    return base.to(judged.target.dtype) - own.to(judged.target.dtype)


def noise(ctx: StepContext, data: Pass, judged: Judged, alpha: float, beta: float) -> Latents:
    """Base under the clean prompt minus the noise that was added (`beta` has no meaning here).

    Source: arXiv 2209.14988, Eq. 3; arXiv 2401.06105, Eq. 4.
    """
    return ctx.base(judged.x_t, judged.t, judged.prompts, alpha).to(judged.target.dtype) - judged.target


def nfsd(ctx: StepContext, data: Pass, judged: Judged, alpha: float, beta: float) -> Latents:
    """Domain direction plus `alpha` times the class direction (`beta` has no meaning here).

    Source: arXiv 2310.17590, Eq. 10; the paper takes 7.5 as the scale.
    """
    texts = [None, judged.prompts, [judged.negative] * len(judged.x_t)]
    empty, given, negative = (out.to(judged.target.dtype) for out in ctx.base_each(judged.x_t, judged.t, texts))
    path, kind = data.pred.path, data.pred.kind
    early = (judged.t < DOMAIN_ALONE_BELOW * path.steps).view(-1, *(1,) * (empty.ndim - 1))
    predicted = Prediction(empty, judged.x_t, judged.t, kind, path).eps
    if kind is not Kind.EPS:  # noise units to native ones; alpha is near 1 wherever this branch is taken
        predicted = predicted / torch.where(early, path.coefficients(judged.t, empty)[0], 1.0)
    return torch.where(early, predicted, empty - negative) + alpha * (given - empty)


REFERENCES: Mapping[str, Callable[[StepContext, Pass, Judged, float, float], Latents]] = {
    "personal": personal,
    "noise": noise,
    "nfsd": nfsd,
}

"""PALP's prompt alignment: the frozen base judges the one-step clean estimate under the clean target prompt.

In noise units the parameter gradient of score distillation through x0hat is  - w k J^T r  (J the Jacobian of the
native output y at x_t, k = sigma/alpha for eps, sigma for v and flow), and r is a constant. So the term is a shift of
the target of the one pass that has a graph: no other pass is differentiated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from palp_lab.dataset.concept import check_sentence
from palp_lab.diffusion.distillation import clean_estimate_factor, half_square_to_shifted, noise_units
from palp_lab.diffusion.prediction import native_target
from palp_lab.losses.base import AbstractLoss, StepContext
from palp_lab.losses.judges import NEGATIVE_PROMPT, REFERENCES, Judged
from palp_lab.losses.passes import Pass
from palp_lab.types import Role, UserError

if TYPE_CHECKING:
    from palp_lab.types import Latents, Timesteps


class PromptAlignment(AbstractLoss):
    """0.5 mean((y - sg(y + d))^2): descent moves the native output y along d, toward the clean prompt. Final.

    With reconstruction of weight 1 and this term of weight lambda the gradient is that of one mean square to the
    target y* + (lambda / 2) d. The value, 0.5 mean(d^2), is no progress curve; `residual` in the log is.

    Source: arXiv 2401.06105, Eq. 6 (`personal`, the paper's method, alias dds) and Eq. 4 (`noise`, alias sds); `nfsd`
    arXiv 2310.17590, Eq. 10.
    Differs from the paper: the weight of this term and w(t) are not given there; both are ours.

    Args:
        weight: lambda. The pull relative to reconstruction is about lambda * beta / 2.
        reference: what is subtracted from the base's guided prediction: the personalized model's own (personal), the
            noise that was added (noise), or NFSD's parts (nfsd).
        alpha: guidance of the base under the clean prompt; for nfsd the scale of its class direction.
        beta: guidance of the personalized model under the photo's own caption (1: no guidance, one pass less).
        noise: x0hat is noised again with the noise of the reconstruction (same) or fresh noise.
        align_t: with the same t, or an independent one from `align_t_range` (shares of the clock).
        rescale: d is the difference of the native outputs itself, which keeps the balance to reconstruction the same at
            every t. For eps this is the paper's re-scale by alpha/sigma; for v and flow it is the same objective seen
            in native units. False: d = k r exactly, the gradient of the definition.
        clamp: bound on |x0hat| before it is noised again; acts on the value only, not on the derivative. None: none.
        align_updates_embedding: whether word vectors take this gradient too; False costs one more pass.
        clean: a sentence with a slot for the class word in place of the target's clean twin (for controls).
        negative: what nfsd's domain direction leads away from; arXiv 2310.17590, section 4.
    """

    version = 1
    source = "arXiv 2401.06105, Eq. 6"
    judged = True

    def __init__(
        self,
        weight: float = 1.0,
        reference: str = "personal",
        alpha: float = 15.0,
        beta: float = 7.5,
        noise: str = "same",
        align_t: str = "same",
        align_t_range: tuple[float, float] = (0.0, 1.0),
        rescale: bool = True,
        clamp: float | None = None,
        align_updates_embedding: bool = True,
        clean: str | None = None,
        negative: str = NEGATIVE_PROMPT,
    ) -> None:
        key = "losses.prompt_alignment"
        for name, value, choices in (
            ("reference", reference, tuple(REFERENCES)),
            ("noise", noise, ("same", "fresh")),
            ("align_t", align_t, ("same", "independent")),
        ):
            if value not in choices:
                raise UserError(f"{key}.{name}={value}: must be {' or '.join(choices)}")
        low, high = _share_of_clock(align_t_range, f"{key}.align_t_range")
        self.weight = weight
        self.reference = reference
        self.alpha = alpha
        self.beta = beta
        self.noise = noise
        self.align_t = align_t
        self.align_t_range = (low, high)
        self.rescale = rescale
        self.clamp = clamp
        self.align_updates_embedding = align_updates_embedding
        self.clean = None if clean is None else check_sentence(clean, f"{key}.clean")
        self.negative = negative
        self.needs_target = clean is None

    def __call__(self, ctx: StepContext) -> Tensor:
        data = ctx.passes[Role.SUBJECT]
        [raw] = self.outputs(ctx)
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        return half_square_to_shifted(raw, self.direction(ctx, data).to(raw.dtype))

    @torch.no_grad()
    def direction(self, ctx: StepContext, data: Pass) -> Latents:
        """d, a constant: where descent moves the native output."""
        judged = self._judged(ctx, data)
        residual = REFERENCES[self.reference](ctx, data, judged, self.alpha, self.beta)
        if self.rescale:
            return residual
        k = clean_estimate_factor(data.pred.kind, data.pred.path, data.t, residual)
        return k * noise_units(data.pred.kind, data.pred.path, judged.t, residual)

    def logged(self, ctx: StepContext) -> Mapping[str, float]:
        """`residual`: root mean square of d."""
        return {"residual": float(self.direction(ctx, ctx.passes[Role.SUBJECT]).float().square().mean().sqrt())}

    def clean_prompt(self, ctx: StepContext) -> str:
        """The judge's prompt: the target with the class word in its slot, and no learned word."""
        sentence = self.clean or ctx.target
        if sentence is None:
            raise UserError(
                "target: prompt_alignment needs a target prompt; add 'target=\"a sketch of {} in the snow\"'"
            )
        return ctx.concept.clean(sentence)

    def _judged(self, ctx: StepContext, data: Pass) -> Judged:
        """x0hat noised again; remembered in the context, so that logging repeats no pass."""
        key = (
            "judged",
            self.clean_prompt(ctx),
            self.noise,
            self.align_t,
            self.align_t_range,
            self.clamp,
            self.negative,
        )
        return ctx.remember(key, lambda: self._noised_again(ctx, data))

    def _noised_again(self, ctx: StepContext, data: Pass) -> Judged:
        pred = data.pred.with_raw(data.pred.raw.detach())
        x0 = pred.x0 if self.clamp is None else pred.x0.clamp(-self.clamp, self.clamp)
        noise = data.noise if self.noise == "same" else data.draw_noise(ctx.rng("prompt_alignment/noise"))
        t: Timesteps = data.t
        if self.align_t == "independent":
            t = data.draw_t(ctx.rng("prompt_alignment/t"), *self.align_t_range)
        x_t = pred.path.add_noise(x0, noise, t)
        target = native_target(pred.kind, pred.path, x0, noise, t)
        return Judged(x_t.to(data.x_t.dtype), t, target, [self.clean_prompt(ctx)] * len(x_t), self.negative)

    def outputs(self, ctx: StepContext) -> Sequence[Tensor]:
        """The prediction for the photos' own captions; a further one that no word vector has a part in, where they are
        not to take this gradient. Raises UserError where that would cut off a trained text encoder too."""
        data = ctx.passes[Role.SUBJECT]
        if self.align_updates_embedding or not data.cond.tokens.requires_grad:
            return [data.pred.raw]
        if any(name.startswith("edits.text_") for name, _ in ctx.adapter.parts()):
            raise UserError(
                "losses.prompt_alignment.align_updates_embedding=false keeps this loss from all of the text, from the "
                "text encoder that is trained too; leave it true, or edits.text_encoder=false"
            )
        return [ctx.remember(("apart",), lambda: ctx.model.predict(data.x_t, data.t, data.cond.detach()).raw)]


def _share_of_clock(given: Sequence[float], key: str) -> tuple[float, float]:
    """Two shares of the clock. Raises UserError for anything else."""
    if isinstance(given, Sequence) and len(given) == 2 and 0 <= given[0] < given[1] <= 1:
        return given[0], given[1]
    raise UserError(f"{key}={given}: must be two shares of the clock, 0 <= low < high <= 1, e.g. [0.1, 0.9]")

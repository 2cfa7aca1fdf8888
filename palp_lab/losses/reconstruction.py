"""The denoising loss on the subject's photos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from palp_lab.diffusion.distillation import clean_estimate_factor
from palp_lab.losses.base import AbstractLoss, StepContext
from palp_lab.losses.passes import Pass
from palp_lab.types import Role, UserError

if TYPE_CHECKING:
    from palp_lab.types import Latents


def denoising_error(data: Pass, min_snr: float | None = None, masked: bool = False) -> Tensor:
    """Mean over rows and elements of (native output - native target)^2.

    Args:
        data: the stream's pass with a graph.
        min_snr: gamma of min-SNR weighting, or None for the plain mean. Source: arXiv 2303.09556, Eq. 6, which weights
            the error of x0hat by min(SNR, gamma); in native units that is min(SNR, gamma) k^2 with
            k = sigma/alpha (eps), sigma (v, flow), so one formula serves all kinds.
        masked: average each row over its mask only.
    """
    raw = data.pred.raw.to(torch.promote_types(data.pred.raw.dtype, torch.float32))
    error = (raw - data.pred.target(data.x0, data.noise)).square()
    if masked and data.mask is not None:
        share = data.mask.to(error.dtype).expand_as(error)
        rows = (error * share).flatten(1).sum(1) / share.flatten(1).sum(1).clamp_min(1.0)
    else:
        rows = error.flatten(1).mean(1)
    if min_snr is not None:
        rows = rows * min_snr_weight(data, min_snr, raw).flatten()
    return rows.mean()


def min_snr_weight(data: Pass, gamma: float, like: Latents) -> Tensor:
    """min(SNR, gamma) k^2, shaped to multiply `like`; 1 for eps where SNR <= gamma."""
    alpha, sigma = data.pred.path.coefficients(data.t, like)
    k = clean_estimate_factor(data.pred.kind, data.pred.path, data.t, like)
    return ((alpha / sigma.clamp_min(1e-6)) ** 2).clamp_max(gamma) * k**2


class Reconstruction(AbstractLoss):
    """How well the photos are denoised under their captions. Final.

    Source: arXiv 2401.06105 (PALP), Eq. 1; arXiv 2208.01618 (textual inversion), Eq. 2.

    `min_snr` is gamma of min-SNR weighting (arXiv 2303.09556 takes 5) or None; `masked` averages over the subject's
    mask only (where the dataset has none: an error).
    """

    version = 1
    source = "arXiv 2401.06105, Eq. 1"

    def __init__(self, weight: float = 1.0, min_snr: float | None = None, masked: bool = False) -> None:
        if min_snr is not None and min_snr <= 0:
            raise UserError(f"losses.reconstruction.min_snr={min_snr}: must be above 0, or null for none")
        self.weight = weight
        self.min_snr = min_snr
        self.masked = masked

    def __call__(self, ctx: StepContext) -> Tensor:
        data = ctx.passes[Role.SUBJECT]
        if self.masked and data.mask is None:
            raise UserError("losses.reconstruction.masked: this dataset has no masks; set it to false")
        return denoising_error(data, self.min_snr, self.masked)

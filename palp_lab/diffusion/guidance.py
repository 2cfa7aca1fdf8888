"""Classifier-free guidance, written once for the whole package."""

from __future__ import annotations

from torch import Tensor


def guide(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """(1 - scale) unconditional + scale conditional: scale 1 means no guidance, as in diffusers' `guidance_scale`.

    Not to be confused with the form conditional + w (conditional - unconditional), where w = scale - 1.
    Source: arXiv 2207.12598, Eq. 6; PALP arXiv 2401.06105, Eq. 5.
    """
    return unconditional + scale * (conditional - unconditional)

"""What a denoiser said, in every form it can be read.

Formulas per kind (methods of the field write them for eps; the others follow from x_t = a x0 + s eps):

| kind | native target | x0 | eps |
|---|---|---|---|
| eps  | eps          | (x_t - s y) / a | y               |
| v    | a eps - s x0 | a x_t - s y     | s x_t + a y     |
| flow | eps - x0     | x_t - s y       | x_t + (1 - s) y |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from palp_lab.diffusion.path import AbstractPath
from palp_lab.types import Kind

if TYPE_CHECKING:
    from palp_lab.types import Latents, Timesteps


@dataclass(frozen=True)
class Prediction:
    """One native output `raw` of a denoiser at (x_t, t) on a path. Derived forms are float32 or wider.

    Source: eps arXiv 2006.11239, v arXiv 2202.00512 (Appendix D), flow arXiv 2209.03003.
    """

    raw: Latents
    x_t: Latents
    t: Timesteps
    kind: Kind
    path: AbstractPath

    @property
    def x0(self) -> Latents:
        """The one-step estimate of the clean latent (PALP, arXiv 2401.06105, Eq. 2)."""
        alpha, sigma = self.path.coefficients(self.t, self.raw)
        if self.kind is Kind.EPS:
            return (self.x_t - sigma * self.raw) / alpha
        if self.kind is Kind.V:
            return alpha * self.x_t - sigma * self.raw
        return self.x_t - sigma * self.raw

    @property
    def eps(self) -> Latents:
        """The noise the denoiser believes is in x_t."""
        alpha, sigma = self.path.coefficients(self.t, self.raw)
        if self.kind is Kind.EPS:
            return self.raw
        if self.kind is Kind.V:
            return sigma * self.x_t + alpha * self.raw
        return self.x_t + (1 - sigma) * self.raw

    def target(self, x0: Latents, noise: Latents) -> Latents:
        """What `raw` should have been for the given clean latent and noise."""
        return native_target(self.kind, self.path, x0, noise, self.t)

    def with_raw(self, raw: Tensor) -> Prediction:
        """The same place on the path with another output."""
        return replace(self, raw=raw)


def native_target(kind: Kind, path: AbstractPath, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
    """The training target in the denoiser's own units."""
    if kind is Kind.EPS:
        return noise
    if kind is Kind.FLOW:
        return noise - x0
    alpha, sigma = path.coefficients(t, x0)
    return alpha * noise - sigma * x0

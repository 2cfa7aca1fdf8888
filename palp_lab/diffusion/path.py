"""Noise paths: how a clean latent becomes noise as the model's clock runs from 0 to T - 1.

Both families are x_t = alpha(t) x0 + sigma(t) noise; they differ in the two functions and in the clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from palp_lab.types import Latents, Timesteps


class AbstractPath(ABC):
    """x_t = alpha(t) x0 + sigma(t) noise. `steps` is T, the length of the training clock."""

    steps: int

    @abstractmethod
    def alpha(self, t: Timesteps) -> Tensor:
        """Share of the clean latent, [b]."""

    @abstractmethod
    def sigma(self, t: Timesteps) -> Tensor:
        """Share of the noise, [b]."""

    @abstractmethod
    def draw_t(self, count: int, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
        """`count` timesteps on the part [low, high) of the clock, from the named generator (on the CPU): uniform,
        unless the path has a density of its own."""

    def coefficients(self, t: Timesteps, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma shaped to multiply `like` ([b, ...]), in float32 or wider: at t = 999 of Stable Diffusion
        alpha is 0.068, which half precision divides by badly."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        shape = (-1,) + (1,) * (like.ndim - 1)
        return (
            self.alpha(t).to(like.device, dtype).view(shape),
            self.sigma(t).to(like.device, dtype).view(shape),
        )

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """x_t = alpha x0 + sigma noise, in the dtype of x0."""
        alpha, sigma = self.coefficients(t, x0)
        return (alpha * x0 + sigma * noise).to(x0.dtype)


class VariancePreserving(AbstractPath):
    """alpha^2 + sigma^2 = 1 on an integer clock, given by the cumulative products of a DDPM schedule.

    Source: arXiv 2006.11239, Eq. 4.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        self.alphas_cumprod = alphas_cumprod.detach().double().cpu()
        self.steps = len(alphas_cumprod)
        self._tables: dict[torch.device, Tensor] = {}

    def _cumprod(self, t: Timesteps) -> Tensor:
        """Cumulative products at t, on its device; the table is copied there once."""
        if t.device not in self._tables:
            self._tables[t.device] = self.alphas_cumprod.to(t.device, widest(t.device))
        return self._tables[t.device][t.long()]

    def alpha(self, t: Timesteps) -> Tensor:
        return self._cumprod(t).sqrt()

    def sigma(self, t: Timesteps) -> Tensor:
        return (1 - self._cumprod(t)).sqrt()

    def draw_t(self, count: int, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
        first, last = int(low * self.steps), max(int(low * self.steps) + 1, int(high * self.steps))
        return torch.randint(first, last, (count,), generator=generator)


class RectifiedFlow(AbstractPath):
    """x_t = (1 - sigma) x0 + sigma noise with sigma = t / T, on a real-valued clock.

    `draw_t` draws a share of noise u and shifts it: sigma = shift u / (1 + (shift - 1) u), which makes up for the
    resolution of large pictures. u is uniform, or sigmoid(mean + deviation z) with a standard normal z where
    `logit_normal` (mean, deviation) is given: the middle of the path, where most is to be learned, is met more often.

    Source: arXiv 2209.03003, Eq. 1; the direction (1 is noise), the logit-normal density (section 3.1) and the shift
    (Eq. 23) are those of arXiv 2403.03206.
    """

    def __init__(self, steps: int = 1000, shift: float = 1.0, logit_normal: tuple[float, float] | None = None) -> None:
        self.steps = steps
        self.shift = shift
        self.logit_normal = logit_normal

    def alpha(self, t: Timesteps) -> Tensor:
        return 1 - self.sigma(t)

    def sigma(self, t: Timesteps) -> Tensor:
        return t.to(widest(t.device)) / self.steps

    def draw_t(self, count: int, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
        drawn = torch.rand(count, generator=generator)
        if self.logit_normal is None and self.shift == 1:
            return (low + (high - low) * drawn) * self.steps
        ends = torch.tensor([low, high], dtype=torch.float64)
        first, last = self._rank(ends / (self.shift - (self.shift - 1) * ends)).tolist()
        u = self._at_rank(first + (last - first) * drawn.double().clamp(1e-9, 1 - 1e-9))
        return (self.shift * u / (1 + (self.shift - 1) * u) * self.steps).float()

    def _rank(self, u: Tensor) -> Tensor:
        """The share of draws below u, before the shift."""
        if self.logit_normal is None:
            return u
        mean, deviation = self.logit_normal
        return torch.special.ndtr((u.logit() - mean) / deviation)

    def _at_rank(self, rank: Tensor) -> Tensor:
        if self.logit_normal is None:
            return rank
        mean, deviation = self.logit_normal
        return (mean + deviation * torch.special.ndtri(rank)).sigmoid()


def widest(device: torch.device) -> torch.dtype:
    """The widest float a device computes in: float64, but float32 on Apple's."""
    return torch.float32 if device.type == "mps" else torch.float64

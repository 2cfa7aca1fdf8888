"""Scalars whose gradient is a given vector: how a residual computed without a graph trains the network.

For all kinds the parameter gradient of score distillation through x0hat is  -weight * k * J^T r_eps  with
k = sigma/alpha (eps), sigma (v), sigma (flow); J is the Jacobian of the native output, r_eps the residual in units of
noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from palp_lab.diffusion.path import AbstractPath
from palp_lab.types import Kind

if TYPE_CHECKING:
    from palp_lab.types import Latents, Timesteps


def half_square_to_shifted(prediction: Tensor, direction: Tensor) -> Tensor:
    """0.5 * mean((prediction - sg(prediction + direction))^2): descent moves `prediction` along `direction`.

    The gradient at the prediction is -direction / numel, as the mean of the reconstruction loss would have it. The
    value, 0.5 * mean(direction^2), is no progress curve.

    Source: the reparametrisation of SDS, arXiv 2209.14988, section 3.
    """
    return 0.5 * (prediction - (prediction + direction).detach()).square().mean()


def clean_estimate_factor(kind: Kind, path: AbstractPath, t: Timesteps, like: Latents) -> Tensor:
    """k with d x0hat / d phi = -k J: sigma/alpha for eps, sigma for v and flow.

    Source: PALP, arXiv 2401.06105, Eq. 7 for eps.
    """
    alpha, sigma = path.coefficients(t, like)
    return sigma / alpha if kind is Kind.EPS else sigma


def rescale_factor(path: AbstractPath, t: Timesteps, like: Latents) -> Tensor:
    """alpha/sigma, PALP's re-scale (arXiv 2401.06105, section 4.4); sigma is floored where a flow path starts at 0."""
    alpha, sigma = path.coefficients(t, like)
    return alpha / sigma.clamp_min(torch.finfo(sigma.dtype).tiny ** 0.25)


def noise_units(kind: Kind, path: AbstractPath, t: Timesteps, native_residual: Latents) -> Latents:
    """A difference of two native outputs at the same x_t, in units of noise: r (eps), alpha r (v and flow)."""
    alpha, _ = path.coefficients(t, native_residual)
    return native_residual if kind is Kind.EPS else alpha * native_residual

"""The autoencoder of a latent model: pictures to scaled latents and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from palp_lab.model.base import LatentDistribution

if TYPE_CHECKING:
    from palp_lab.types import Latents, Pixels

ALONE = 256
"""Pixels a side from which on each picture is decoded by itself: a batch at once would take several times the memory of
the denoiser's pass. Smaller ones are faster in a batch."""


@torch.no_grad()
def encode_pixels(autoencoder: Any, pixels: Pixels) -> LatentDistribution:
    """Posterior of the scaled latents of pictures in [-1, 1], in float32 outside. In the autoencoder's own precision
    within a training's autocast too: photos that are encoded in every step are those that were encoded before it."""
    config = autoencoder.config
    with torch.autocast(autoencoder.device.type, enabled=False):
        encoded = autoencoder.encode(pixels.to(autoencoder.device, autoencoder.dtype))
    shift = shift_of(autoencoder)
    if "latents" in encoded:  # AutoencoderTiny has no posterior
        mean = (encoded.latents.float() - shift) * config.scaling_factor
        return LatentDistribution(mean, torch.zeros_like(mean))
    posterior = encoded.latent_dist
    return LatentDistribution(
        (posterior.mean.float() - shift) * config.scaling_factor, posterior.std.float() * config.scaling_factor
    )


@torch.no_grad()
def decode_latents(autoencoder: Any, latents: Latents) -> Pixels:
    """Pictures in [-1, 1] of scaled latents; large ones one at a time."""
    latents = latents / autoencoder.config.scaling_factor + shift_of(autoencoder)
    latents = latents.to(autoencoder.device, autoencoder.dtype)
    alone = max(latents.shape[-2:]) * downscale(autoencoder) >= ALONE
    parts = latents.split(1) if alone else [latents]
    return torch.cat([autoencoder.decode(part).sample.float().clamp(-1, 1) for part in parts])


def shift_of(autoencoder: Any) -> float:
    """What is taken from raw latents before they are scaled (Stable Diffusion 3; 0 before)."""
    return getattr(autoencoder.config, "shift_factor", None) or 0.0


def downscale(autoencoder: Any) -> int:
    """Pixels per latent cell and side."""
    blocks = autoencoder.config.get("block_out_channels") or autoencoder.config["encoder_block_out_channels"]
    return 2 ** (len(blocks) - 1)

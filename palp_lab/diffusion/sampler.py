"""The sampling loop over any diffusers scheduler: from noise, from a picture, and into the hole of a picture."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from palp_lab.diffusion.guidance import guide

if TYPE_CHECKING:
    from palp_lab.types import Latents

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(x_t, t [b]) -> (conditional native output, unconditional native output or None where guidance is 1)."""


@dataclass(frozen=True)
class Source:
    """The picture that sampling starts from: clean `latents` [b c h w] and the share of the steps that are run on them
    (`noise_strength`, above 0, 1 for all). `mask` [b 1 h w] is 1 where the picture is drawn anew and 0 where it stays.

    Source: arXiv 2108.01073 (SDEdit, Algorithm 1), with a mask arXiv 2206.02779 (Blended Latent Diffusion,
    Algorithm 1).
    """

    latents: Latents
    noise_strength: float
    mask: Tensor | None = None

    def skipped(self, steps: int) -> int:
        """How many of `steps` are left out at the noisy end, counted as diffusers counts its `strength`."""
        return max(steps - int(steps * self.noise_strength), 0)


@torch.no_grad()
def sample(
    predict: Predict,
    scheduler: Any,
    noise: Latents,
    steps: int,
    guidance: float,
    generator: torch.Generator | list[torch.Generator] | None = None,
    source: Source | None = None,
) -> Latents:
    """Clean latents from pure noise [b c h w] (unit variance), or from a `source` under that noise.

    `scheduler` is a diffusers scheduler of the model's own prediction type (`set_timesteps`, `step`); ancestral ones
    draw from `generator` (one for all rows, or a list with one each). Equals the loop of the stock Stable Diffusion
    pipelines (text to image, image to image, inpainting with a UNet that has no channels for the mask) on the same
    noise and latents.
    """
    scheduler.set_timesteps(steps, device=noise.device)
    skipped = source.skipped(steps) * getattr(scheduler, "order", 1) if source else 0
    timesteps = scheduler.timesteps[skipped:]
    if source and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    if source is None or (source.mask is not None and source.noise_strength == 1):
        x_t = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    else:
        x_t = _add_noise(scheduler, source.latents, noise, timesteps[:1])
    extra: dict[str, Any] = {}
    if generator is not None and "generator" in inspect.signature(scheduler.step).parameters:
        extra["generator"] = generator
    for i, t in enumerate(timesteps):
        model_input = scheduler.scale_model_input(x_t, t) if hasattr(scheduler, "scale_model_input") else x_t
        conditional, unconditional = predict(model_input, t.expand(len(x_t)))
        native = conditional if unconditional is None else guide(unconditional, conditional, guidance)
        x_t = scheduler.step(native, t, x_t, return_dict=False, **extra)[0]
        if source and source.mask is not None:
            later = timesteps[i + 1 : i + 2]
            kept = _add_noise(scheduler, source.latents, noise, later) if len(later) else source.latents
            x_t = (1 - source.mask) * kept + source.mask * x_t
    return x_t


def _add_noise(scheduler: Any, latents: Latents, noise: Latents, t: Tensor) -> Latents:
    """Latents at the noise of one timestep t [1]; schedulers of flow models call it by another name."""
    t = t.expand(len(latents))
    if hasattr(scheduler, "scale_noise"):
        return scheduler.scale_noise(latents, t, noise)
    return scheduler.add_noise(latents, noise, t)

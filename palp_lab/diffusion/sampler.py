"""The sampling loop over any diffusers scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from palp_lab.diffusion.guidance import guide

if TYPE_CHECKING:
    from palp_lab.types import Latents

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(x_t, t [b]) -> (conditional native output, unconditional native output or None where guidance is 1)."""


@torch.no_grad()
def sample(
    predict: Predict,
    scheduler: Any,
    noise: Latents,
    steps: int,
    guidance: float,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> Latents:
    """Clean latents from pure noise [b c h w] (unit variance).

    `scheduler` is a diffusers scheduler of the model's own prediction type (`set_timesteps`, `step`); ancestral ones
    draw from `generator` (one for all rows, or a list with one each). Equals the loop of the stock Stable Diffusion
    pipeline on the same noise.
    """
    scheduler.set_timesteps(steps, device=noise.device)
    x_t = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    extra: dict[str, Any] = {}
    if generator is not None and "generator" in inspect.signature(scheduler.step).parameters:
        extra["generator"] = generator
    for t in scheduler.timesteps:
        model_input = scheduler.scale_model_input(x_t, t) if hasattr(scheduler, "scale_model_input") else x_t
        conditional, unconditional = predict(model_input, t.expand(len(x_t)))
        native = conditional if unconditional is None else guide(unconditional, conditional, guidance)
        x_t = scheduler.step(native, t, x_t, return_dict=False, **extra)[0]
    return x_t

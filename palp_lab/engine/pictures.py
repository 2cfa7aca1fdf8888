"""Pictures from a model, whatever its words and edits: for galleries and class pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from palp_lab.diffusion.sampler import sample
from palp_lab.model.base import AbstractModel, TextCond

if TYPE_CHECKING:
    from palp_lab.types import Images


@torch.no_grad()
def draw(
    model: AbstractModel, cond: TextCond, seeds: Sequence[int], scheduler: str, steps: int, guidance: float
) -> Images:
    """One 8 bit picture per row of `cond`, each from its own seed, with whatever edits are attached and enabled."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]  # ancestral schedulers go on drawing from them
    noise = torch.stack([torch.randn(model.latent_shape, generator=own) for own in generators]).to(model.device)
    empty = model.unconditional(len(cond))
    both = TextCond.cat([empty, cond])

    def predict(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        if guidance == 1:
            return model.predict(x_t, t, cond).raw, None
        unconditional, conditional = model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), both).raw.chunk(2)
        return conditional, unconditional

    pixels = model.decode_image(sample(predict, model.scheduler(scheduler), noise, steps, guidance, generators))
    return ((pixels.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).contiguous()

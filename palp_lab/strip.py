"""The one-step-estimate strip: what a model sees in pure noise under the test prompt, over the training.

An overfitted model sees the training photo's background and colours there before the first sampling step is over.
Source: PALP, arXiv 2401.06105, Fig. 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from palp_lab.diffusion.guidance import guide
from palp_lab.generate import Prompting, start, to_uint8
from palp_lab.model.base import AbstractModel

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.types import Images

SCHEMA = "palp_lab.strip/1"
CLAMP = 4.0
"""Bound of the estimate in latent units: at the end of the clock an error of the denoiser is divided by alpha, 0.07 in
Stable Diffusion. Latents have unit variance, so 4 cuts next to nothing of a real one (ours)."""


@torch.no_grad()
def strip_images(
    model: AbstractModel,
    prompting: Prompting,
    sentence: str,
    seeds: Sequence[int] = (0,),
    guidance: float = 1.0,
    clamp: float | None = CLAMP,
) -> Images:
    """One-step estimates x0hat [n 3 h w] from each seed's pure noise at the last timestep, under one sentence.

    The noise depends on the seed alone, so pictures of different models and steps can be laid side by side. Without
    guidance (1), as the paper's Eq. 2 has it.
    """
    noise = torch.stack([start(seed, model.latent_shape)[0] for seed in seeds]).to(model.device)
    t = torch.full((len(seeds),), model.path.steps - 1, device=model.device)
    with prompting.block():
        prediction = model.predict(noise, t, prompting.encode([sentence]).repeat(len(seeds)))
        if guidance != 1:
            empty = model.predict(noise, t, model.unconditional(len(seeds)))
            prediction = prediction.with_raw(guide(empty.raw, prediction.raw, guidance))
    x0: Tensor = prediction.x0
    return to_uint8(model.decode_image(x0 if clamp is None else x0.clamp(-clamp, clamp)))

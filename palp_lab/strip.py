"""The one-step-estimate strip: what a model sees in noise under the test prompt, over the training.

An overfitted model sees the training photo's background and colours there before the sampling is half over.
Source: PALP, arXiv 2401.06105, Fig. 5.
Differs from the paper: the figure reads the estimate at the end of the clock, without guidance. There an error of the
denoiser is divided by alpha (0.068 in Stable Diffusion: made 14.6 times as large), and a small model's estimate looks
like noise. So by default the same pure noise is first sampled down to seven tenths of the clock, with guidance, and the
estimate is read there (ours, chosen by looking); `strip.t=1 strip.guidance=1` gives the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from palp_lab.diffusion.guidance import guide
from palp_lab.generate import Prompting, start, to_uint8
from palp_lab.model.base import AbstractModel
from palp_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.diffusion.prediction import Prediction
    from palp_lab.types import Images

SCHEMA = "palp_lab.strip/1"
CLAMP = 4.0
"""Bound of the estimate in latent units: at the end of the clock an error of the denoiser is divided by alpha, 0.07 in
Stable Diffusion. Latents have unit variance, so 4 cuts next to nothing of a real one (ours)."""


STRIDE = 0.04
"""Share of the clock one deterministic (DDIM, arXiv 2010.02502) step on the way down covers: 25 steps in all (ours)."""


@torch.no_grad()
def strip_images(
    model: AbstractModel,
    prompting: Prompting,
    sentence: str,
    seeds: Sequence[int] = (0,),
    guidance: float = 1.0,
    clamp: float | None = CLAMP,
    t: float = 1.0,
) -> Images:
    """One-step estimates x0hat [n 3 h w] of each seed's pure noise, under one sentence.

    `t` is where on the clock the estimate is read, as a share of it: 1 is the end, the noise itself, as the paper's
    Eq. 2 has it (with `guidance` 1); below it the noise is sampled down to there first. The noise depends on the seed
    alone, so pictures of different models and steps can be laid side by side. Raises UserError for t outside (0, 1].
    """
    if not 0 < t <= 1:
        raise UserError(f"strip.t={t}: must be above 0 and at most 1, a share of the clock")
    x_t = torch.stack([start(seed, model.latent_shape)[0] for seed in seeds]).to(model.device)
    last = model.path.steps - 1
    with prompting.block():
        cond, empty = prompting.encode([sentence]).repeat(len(seeds)), model.unconditional(len(seeds))

        def predict(step: int) -> Prediction:
            clock = torch.full((len(seeds),), step, device=model.device)
            told = model.predict(x_t, clock, cond)
            if guidance == 1:
                return told
            return told.with_raw(guide(model.predict(x_t, clock, empty).raw, told.raw, guidance))

        prediction = predict(last)
        for step in _below(last, round(last * t)):
            x_t = model.path.add_noise(prediction.x0, prediction.eps, torch.full((len(seeds),), step).to(x_t.device))
            prediction = predict(step)
    x0: Tensor = prediction.x0
    return to_uint8(model.decode_image(x0 if clamp is None else x0.clamp(-clamp, clamp)))


def _below(last: int, lowest: int) -> list[int]:
    """Timesteps below the end of the clock, down to `lowest`."""
    stride = max(1, round(STRIDE * (last + 1)))
    return [*range(last - stride, lowest, -stride), *([lowest] if lowest < last else [])]

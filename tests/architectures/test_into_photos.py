"""Narrow copies of the published architectures: image to image and inpainting are the stock pipelines' pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from palp_lab.context import Context
from palp_lab.generate import Sampling, base, generate_pictures
from palp_lab.model.unet import UNetModel
from tests.test_context import assert_same, hole, photo

pytestmark = pytest.mark.slow

PROMPT = "a sketch of a cat in Paris, by the river"


@pytest.mark.parametrize("pipeline", ["StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"])
def test_pictures_are_the_stock_pipelines(narrow: Path, pipeline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    model = UNetModel.open(narrow)
    pixels, mask = photo(128, 128), hole(128, 128, (24, 40, 90, 120))
    more: dict[str, Any] = {"mask_image": mask, "height": 128, "width": 128} if "Inpaint" in pipeline else {}
    pipe = getattr(diffusers, pipeline).from_pretrained(narrow, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    theirs = pipe(
        PROMPT, image=pixels, strength=0.75, num_inference_steps=8, guidance_scale=7.5, output_type="latent",
        generator=torch.Generator().manual_seed(11), **more,
    ).images  # fmt: skip
    image, where = (torch.frombuffer(bytearray(one.tobytes()), dtype=torch.uint8) for one in (pixels, mask))
    context = Context(
        image.view(128, 128, 3).permute(2, 0, 1).contiguous(), where.view(128, 128) > 127 if more else None, 0.75
    )
    seen: list[torch.Tensor] = []
    decode = model.decode_image
    monkeypatch.setattr(model, "decode_image", lambda latents: seen.append(latents) or decode(latents))
    how = Sampling("dpm++", 8, 7.5)
    list(generate_pictures(model, base(model, str), [PROMPT], [11], how, context=context))
    assert_same(seen[0], theirs)

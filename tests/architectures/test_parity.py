"""Narrow copies of the published architectures: our loop and our pictures are those of the stock pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palp_lab.diffusion.sampler import sample
from palp_lab.edits.key_value import KeyValueEdits
from palp_lab.edits.lora import LoraEdits
from palp_lab.generate import Sampling, base, generate_pictures
from palp_lab.model.base import TextCond
from palp_lab.model.unet import UNetModel

pytestmark = pytest.mark.slow

PROMPTS = ["a sketch of a cat in Paris, by the river", "an oil painting of a dog's hat"]
STOCK = {"ddim": "DDIMScheduler", "dpm++": "DPMSolverMultistepScheduler"}
STEPS, GUIDANCE = 6, 7.5


@pytest.fixture(scope="module")
def model(narrow: Path) -> UNetModel:
    return UNetModel.open(narrow)


def stock(path: Path, name: str) -> Any:
    """The stock pipeline on the same folder, with a scheduler that none of our code has made."""
    import diffusers

    pipe = diffusers.StableDiffusionPipeline.from_pretrained(path, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = getattr(diffusers, STOCK[name]).from_config(pipe.scheduler.config)
    return pipe


def latents_of(model: UNetModel, noise: torch.Tensor, name: str) -> torch.Tensor:
    both = TextCond.cat([model.base_text([""] * len(noise)), model.base_text(PROMPTS)])

    def predict(x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        empty, given = model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), both).raw.chunk(2)
        return given, empty

    return sample(predict, model.scheduler(name), noise, STEPS, GUIDANCE)


def noise_for(model: UNetModel) -> torch.Tensor:
    return torch.randn(len(PROMPTS), *model.latent_shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", list(STOCK))
def test_loop_equals_the_stock_pipeline(narrow: Path, model: UNetModel, name: str) -> None:
    noise = noise_for(model)
    theirs = stock(narrow, name)(
        PROMPTS, latents=noise, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="latent"
    ).images
    torch.testing.assert_close(latents_of(model, noise, name), theirs, rtol=1e-5, atol=1e-5)


def test_a_seed_is_the_stock_pipelines_picture(narrow: Path, model: UNetModel) -> None:
    ours = generate_pictures(model, base(model, str), [PROMPTS[0]], [11], Sampling("ddim", STEPS, GUIDANCE))
    image = next(iter(ours)).image.permute(1, 2, 0).numpy()
    theirs = stock(narrow, "ddim")(
        PROMPTS[0], num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=torch.Generator().manual_seed(11)
    ).images[0]
    assert image.shape == (128, 128, 3) and len(np.unique(image)) > 8
    assert np.abs(image.astype(int) - np.asarray(theirs).astype(int)).max() <= 1


@pytest.mark.parametrize("edits", [LoraEdits, KeyValueEdits], ids=["lora", "key_value"])
def test_untrained_and_switched_off_edits_change_nothing(model: UNetModel, edits: Any) -> None:
    x_t, t, cond = noise_for(model), torch.tensor([20, 700]), model.base_text(PROMPTS)
    own, generator = edits(), torch.Generator().manual_seed(5)
    with torch.no_grad():
        before = model.predict(x_t, t, cond).raw
        own.attach(model)
        try:
            torch.testing.assert_close(model.predict(x_t, t, cond).raw, before, rtol=1e-5, atol=1e-5)
            for _, parameter in own.parts():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            assert (model.predict(x_t, t, cond).raw - before).abs().max() > 1e-3
            with own.disabled():
                assert torch.equal(model.predict(x_t, t, cond).raw, before)
        finally:
            own.detach()
        assert torch.equal(model.predict(x_t, t, cond).raw, before)


def test_checkpointing_gives_the_same_gradients(narrow: Path) -> None:
    found = []
    for checkpointing in (False, True):
        model = UNetModel.open(narrow, gradient_checkpointing=checkpointing)
        model.base.train(checkpointing)  # diffusers recomputes in training mode only
        own = KeyValueEdits()
        own.attach(model)
        pred = model.predict(noise_for(model), torch.tensor([20, 700]), model.base_text(PROMPTS))
        pred.raw.square().mean().backward()
        found.append({name: parameter.grad for name, parameter in own.parts()})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-7)

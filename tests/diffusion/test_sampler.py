from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from palp_lab.diffusion.sampler import sample
from palp_lab.model.base import TextCond
from palp_lab.model.schedulers import SCHEDULERS, make_scheduler
from palp_lab.model.unet import UNetModel, _told

PROMPT = "a sketch of a cat in paris"


def ours(model: UNetModel, noise: torch.Tensor, name: str, guidance: float, seed: int | None = None) -> torch.Tensor:
    cond, empty = model.base_text([PROMPT] * len(noise)), model.base_text([""] * len(noise))

    def predict(x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if guidance == 1:
            return model.predict(x_t, t, cond).raw, None
        both = model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), TextCond.cat([empty, cond])).raw.chunk(2)
        return both[1], both[0]

    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return sample(predict, model.scheduler(name), noise, 6, guidance, generator)


def stock(path: Path, model: UNetModel, noise: torch.Tensor, name: str, guidance: float, seed: int = 0) -> torch.Tensor:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(path, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = model.scheduler(name)
    return pipe(
        [PROMPT] * len(noise),
        latents=noise,
        num_inference_steps=6,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    ).images


@pytest.mark.parametrize("name", ["ddim", "dpm++", "euler", "unipc", "PNDMScheduler", "HeunDiscreteScheduler"])
@pytest.mark.parametrize("which", ["micro_path", "micro_v_path"])
def test_loop_equals_the_stock_pipeline(name: str, which: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(which)
    model = UNetModel.open(path)
    noise = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(3))
    for guidance in (1.0, 7.5):
        torch.testing.assert_close(
            ours(model, noise, name, guidance), stock(path, model, noise, name, guidance), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("name", ["dpm++", "unipc"])
def test_on_a_straight_path_it_equals_the_stock_pipeline(name: str, micro_flow_path: Path) -> None:
    """The samplers that the stock pipeline of UNets can hold; Euler's is compared below with what it stands for."""
    model = UNetModel.open(micro_flow_path)
    noise = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(3))
    for guidance in (1.0, 7.5):
        theirs = stock(micro_flow_path, model, noise, name, guidance)
        torch.testing.assert_close(ours(model, noise, name, guidance), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_eulers_steps_on_a_straight_path(name: str, micro_flow_path: Path) -> None:
    """x + (s' - s) v from s = 1 to 0, shifted by the model's 2, at t = 1000 s. (diffusers shifts the last s twice.)"""
    model = UNetModel.open(micro_flow_path)
    noise = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(3))
    cond, shares = model.base_text([PROMPT] * 2), torch.linspace(1, 2 / 1001, 6)
    shares = torch.cat([2 * shares / (1 + shares), torch.zeros(1)])
    x_t = noise
    with torch.no_grad():
        for now, then in pairwise(shares):
            x_t = x_t + (then - now) * model.predict(x_t, (1000 * now).expand(2), cond).raw
    torch.testing.assert_close(ours(model, noise, name, 1.0), x_t, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ddpm", "euler_a"])
def test_ancestral_samplers_draw_from_the_given_generator(name: str, micro_path: Path) -> None:
    model = UNetModel.open(micro_path)
    noise = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(3))
    found = ours(model, noise, name, 5.0, seed=9)
    torch.testing.assert_close(found, stock(micro_path, model, noise, name, 5.0, seed=9), rtol=1e-5, atol=1e-5)
    assert not torch.equal(found, ours(model, noise, name, 5.0, seed=10))


def test_every_scheduler_ends_at_a_finite_latent(micro: UNetModel) -> None:
    noise = torch.randn(1, *micro.latent_shape, generator=torch.Generator().manual_seed(3))
    for name in SCHEDULERS:
        assert ours(micro, noise, name, 5.0, seed=0).isfinite().all(), name


STABLE_DIFFUSION_1 = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip
"""What its scheduler_config.json says; everything else is left to the sampler."""


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@pytest.mark.parametrize("told", [{}, {"prediction_type": "v_prediction"}], ids=["epsilon", "v"])
def test_what_the_files_leave_open_is_the_samplers_own_default(name: str, told: dict[str, str]) -> None:
    """As people draw with it elsewhere: `Sampler.from_config(pipe.scheduler.config)`."""
    import diffusers

    of_files = diffusers.PNDMScheduler.from_config({**STABLE_DIFFUSION_1, **told}).config
    mine, theirs = make_scheduler(name, of_files), getattr(diffusers, SCHEDULERS[name]).from_config(of_files)
    for scheduler in (mine, theirs):
        scheduler.set_timesteps(25)
    assert torch.equal(mine.timesteps, theirs.timesteps) and torch.equal(mine.alphas_cumprod, theirs.alphas_cumprod)
    assert mine.config["prediction_type"] == told.get("prediction_type", "epsilon")
    assert not mine.config.get("clip_sample"), "latents are not pictures"


def test_a_prediction_that_was_told_by_hand_outlives_the_default() -> None:
    import diffusers

    told = _told(diffusers.PNDMScheduler.from_config(STABLE_DIFFUSION_1).config, "v_prediction")
    assert make_scheduler("dpm++", told).config["prediction_type"] == "v_prediction"
    assert diffusers.PNDMScheduler.from_config(told).config["prediction_type"] == "v_prediction", "as exports make it"

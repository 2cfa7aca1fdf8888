"""Samplers and joint attention of flow models, against diffusers' own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from palp_lab.model import open_model
from palp_lab.model.flow import FLOW_SCHEDULERS, JointAttention, flow_path, make_flow_scheduler
from palp_lab.types import UserError

CONFIG = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


def block(last: bool = False) -> torch.nn.Module:
    """A joint attention with normalised queries and keys, as in Stable Diffusion 3.5."""
    from diffusers.models.attention import JointTransformerBlock

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return JointTransformerBlock(16, 2, 8, context_pre_only=last, qk_norm="rms_norm", use_dual_attention=True)


def streams() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(2, 9, 16, generator=rng), torch.randn(2, 5, 16, generator=rng)


@pytest.mark.parametrize("last", [False, True])
def test_it_is_bitwise_the_stock_joint_attention(last: bool) -> None:
    from diffusers.models.attention_processor import JointAttnProcessor2_0

    seen, told = streams()
    whole = block(last)
    for attention, given in ((whole.attn, (seen, told)), (whole.attn2, (seen, None))):
        theirs = JointAttnProcessor2_0()(attention, *given)
        ours = JointAttention()(attention, *given)
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)


def test_one_token_counted_often_is_as_good_as_many_alike() -> None:
    seen, told = streams()
    attention = block().attn
    many = torch.cat([told, told[:, -1:].expand(-1, 6, -1)], 1)
    picture, text = JointAttention()(attention, seen, many)
    ours, short = JointAttention()(attention, seen, told, repeats=7)
    torch.testing.assert_close(ours, picture, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(short, text[:, :5], rtol=1e-5, atol=1e-6)
    assert (JointAttention()(attention, seen, told)[0] - picture).abs().max() > 1e-2, "the count matters"


@pytest.mark.parametrize("name", list(FLOW_SCHEDULERS))
def test_every_sampler_follows_a_straight_path_to_its_end(name: str) -> None:
    """A model that says noise - x0 exactly is solved exactly by every solver."""
    x0, noise = torch.randn(2, 1, 4, 3, 3, generator=torch.Generator().manual_seed(0)).unbind(0)
    scheduler = make_flow_scheduler(name, CONFIG)
    scheduler.set_timesteps(5)
    assert scheduler.timesteps[0] == pytest.approx(1000, abs=1.5) and (scheduler.timesteps.diff() < 0).all()
    x_t = noise
    for t in scheduler.timesteps:
        x_t = scheduler.step(noise - x0, t, x_t, return_dict=False)[0]
    torch.testing.assert_close(x_t, x0, rtol=0, atol=2e-3 if name in ("dpm++", "unipc") else 1e-5)


def test_the_shift_of_the_model_is_the_samplers_and_the_trainings() -> None:
    assert flow_path(CONFIG, "here").shift == 3
    assert flow_path({"num_train_timesteps": 1000, "shift": 3.0}, "published sizes").shift == 3
    for name in FLOW_SCHEDULERS:
        plain, shifted = (make_flow_scheduler(name, {**CONFIG, "shift": shift}) for shift in (1.0, 3.0))
        for one in (plain, shifted):
            one.set_timesteps(4)
        assert (shifted.timesteps[1:3] > plain.timesteps[1:3] + 20).all()


@pytest.mark.parametrize("name", ["euler_a", "ddpm", "plms"])
def test_a_sampler_that_a_straight_path_has_not_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"generate.scheduler='{name}' does not sample a flow model.*unipc"):
        make_flow_scheduler(name, CONFIG)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**CONFIG, "use_dynamic_shifting": True}, "use_dynamic_shifting is not built"),
        ({**CONFIG, "_class_name": "DDIMScheduler"}, "is a DDIMScheduler, not FlowMatch"),
    ],
)
def test_a_clock_that_is_not_ours_is_refused(config: dict, said: str) -> None:
    with pytest.raises(UserError, match=f"model.path=here: .*{said}"):
        flow_path(config, "here")


def test_a_preset_of_another_family_names_the_key_it_does_not_take() -> None:
    """`model.path=tiny_flow` without `model=tiny_flow`."""
    with pytest.raises(UserError, match=r"is a StableDiffusion3Pipeline, which takes no model.windows; choose"):
        open_model("tiny_flow", windows=1)

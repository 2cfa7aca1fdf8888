from __future__ import annotations

import copy

import pytest
import torch

from palp_lab.build import build
from palp_lab.composition import compose
from palp_lab.edits.lora import LoraEdits
from palp_lab.model.unet import UNetModel
from palp_lab.types import UserError
from tests.contracts.parts import make, scene


def attached(model: UNetModel, **options: object) -> LoraEdits:
    edits = LoraEdits(**options)  # type: ignore[arg-type]
    edits.attach(model)
    return edits


def test_default_targets_are_the_projections_of_self_and_cross_attention(micro: UNetModel) -> None:
    names = {name.rpartition(".lora_")[0] for name, _ in attached(micro, rank=2).parts()}
    assert len(names) == len(micro.sites) * 2 * 4
    for site in micro.sites:
        for attention in (site.path, site.path.replace("attn2", "attn1")):
            assert {f"{attention}.{p}" for p in ("to_q", "to_k", "to_v", "to_out.0")} <= names


def test_every_training_seed_has_a_start_of_its_own(micro: UNetModel) -> None:
    """By the configuration: seeds that shared one would be counted as independent."""
    starts = []
    for seed in (0, 1, 0):
        config = compose("run", "method=palp", "model=tiny", f"seed={seed}", "edits.rank=2")
        edits = build(config.edits, "edits")
        edits.attach(micro)
        starts.append({name: p.detach().clone() for name, p in edits.parts() if "lora_A" in name})
        edits.detach()
    assert all(torch.equal(tensor, starts[2][name]) for name, tensor in starts[0].items())
    assert not any(torch.equal(tensor, starts[1][name]) for name, tensor in starts[0].items())


def test_the_recipes_rank_and_scale_are_palps(micro: UNetModel) -> None:
    edits = make("edits", "lora")
    edits.attach(micro)
    layer = next(iter(edits._networks[""].layers.values()))
    assert edits.rank == 32 and layer.scaling[edits.adapter_name] == 1.0
    assert all(32 in parameter.shape for _, parameter in edits.parts())


def test_the_update_is_scale_times_b_a(micro: UNetModel) -> None:
    site = micro.sites[0]
    before = micro.base.get_submodule(site.path).to_k.weight.clone()
    edits = attached(micro, rank=2, alpha=3.0)
    parts = dict(edits.parts())
    with torch.no_grad():
        parts[f"{site.path}.to_k.lora_B.weight"].normal_()
    x = torch.randn(5, site.context_width)
    down, up = (parts[f"{site.path}.to_k.lora_{letter}.weight"] for letter in "AB")
    with torch.no_grad():
        for strength in (1.0, 0.4):
            edits.set_strength(strength)
            wanted = x @ (before + strength * 1.5 * up @ down).T
            found = micro.base.get_submodule(site.path).to_k(x)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_rank_of_nothing_is_refused_by_its_own_key() -> None:
    for rank in (0, -4):
        with pytest.raises(UserError, match=f"^edits.rank={rank}: must be at least 1$"):
            LoraEdits(rank=rank)


@pytest.mark.parametrize("targets", [["to_q", "to_foo"], ["to_foo"], ["attn1", "to_foo"]])
def test_a_target_that_is_no_end_of_a_layer_is_named(micro: UNetModel, targets: list[str]) -> None:
    before = [name for name, _ in micro.denoiser.named_modules()]
    with pytest.raises(UserError) as caught:
        attached(micro, targets=targets)
    said, _, ends = str(caught.value).partition("; targets are ends of layer names, such as ")
    wrong = ", ".join(repr(target) for target in targets if target != "to_q")
    assert said == f"edits.targets: no layer of the denoiser ends in {wrong}"
    assert {"to_q", "to_k", "to_v", "to_out.0"} <= set(ends.split(", ")) and len(ends.split(", ")) <= 12
    assert [name for name, _ in micro.denoiser.named_modules()] == before


def test_wider_targets_reach_feed_forward_and_convolutions(micro: UNetModel) -> None:
    before = copy.deepcopy(micro.base)
    edits = attached(micro, rank=2, targets=["to_k", "ff.net.2", "conv1"])
    kinds = {name.rpartition(".lora_")[0].rpartition(".")[2] for name, _ in edits.parts()}
    assert kinds == {"to_k", "2", "conv1"}
    x_t, t = scene(micro)
    cond = micro.base_text(["a", "b"])
    with torch.no_grad():
        assert torch.equal(micro.predict(x_t, t, cond).raw, before(x_t, t, cond.tokens).sample)


@pytest.mark.parametrize("targets", [["to_kk"], ["to_k", "to_kk"]])
def test_a_target_that_matches_nothing_is_named_and_nothing_stays_attached(micro: UNetModel, targets: list) -> None:
    keys = set(micro.base.state_dict())
    with pytest.raises(UserError, match="to_kk"):
        attached(micro, targets=targets)
    assert set(micro.base.state_dict()) == keys


def test_seeds_make_different_starts_and_a_layers_start_does_not_depend_on_the_others(micro_path) -> None:
    def start(**options: object) -> dict[str, torch.Tensor]:
        edits = attached(UNetModel.open(micro_path), rank=2, **options)
        return {name: p.detach().clone() for name, p in edits.parts() if "lora_A" in name}

    few, more, other = start(targets=["to_k"]), start(targets=["to_k", "to_v"]), start(targets=["to_k"], seed=1)
    assert all(torch.equal(few[name], more[name]) for name in few)
    assert not any(torch.equal(few[name], other[name]) for name in few)


def test_a_gaussian_start_has_the_spread_of_peft(micro: UNetModel) -> None:
    """peft's init_lora_weights="gaussian": standard deviation 1 / rank."""
    edits = attached(micro, rank=8, init="gaussian")
    drawn = torch.cat([p.detach().flatten() for name, p in edits.parts() if "lora_A" in name])
    assert drawn.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert drawn.abs().max() > 3 / 8, "not uniform"
    assert not any(p.any() for name, p in edits.parts() if "lora_B" in name)
    with pytest.raises(UserError, match=r"edits\.init=normal: must be uniform or gaussian"):
        LoraEdits(init="normal")


def test_a_second_lora_on_the_same_model_is_refused(micro: UNetModel) -> None:
    attached(micro, rank=2)
    with pytest.raises(ValueError, match="detach"):
        attached(micro, rank=2)


def test_a_model_in_half_precision_trains_in_float32(micro_path) -> None:
    model = UNetModel.open(micro_path, dtype="bfloat16")
    edits = attached(model, rank=2)
    assert all(parameter.dtype == torch.float32 for _, parameter in edits.parts())
    x_t, t = torch.randn(1, *model.latent_shape), torch.tensor([3])
    model.predict(x_t, t, model.base_text(["a cat"])).raw.square().mean().backward()
    ups = [p for name, p in edits.parts() if "lora_B" in name]
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in ups)

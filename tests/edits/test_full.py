from __future__ import annotations

import pytest
import torch

from palp_lab.edits.full import FullEdits
from palp_lab.model.unet import UNetModel
from palp_lab.types import UserError
from tests.contracts.parts import scene


def test_the_base_stays_while_the_copy_is_trained(micro: UNetModel) -> None:
    state = {key: value.clone() for key, value in micro.base.state_dict().items()}
    edits = FullEdits()
    edits.attach(micro)
    assert micro.denoiser is not micro.base
    names = [name for name, _ in edits.parts()]
    assert names == [name for name, _ in micro.base.named_parameters()]
    optimizer = torch.optim.SGD([p for _, p in edits.parts()], lr=0.1)
    x_t, t = scene(micro)
    micro.predict(x_t, t, micro.base_text(["a", "b"])).raw.square().mean().backward()
    optimizer.step()
    assert all(torch.equal(micro.base.state_dict()[key], value) for key, value in state.items())
    assert not any(p.requires_grad for p in micro.base.parameters())


def test_targets_choose_by_path(micro: UNetModel) -> None:
    edits = FullEdits(targets=["attn2"])
    edits.attach(micro)
    names = [name for name, _ in edits.parts()]
    assert names and all("attn2" in name for name in names)


def test_targets_that_match_nothing_are_named_and_undone(micro: UNetModel) -> None:
    with pytest.raises(UserError, match="atn2"):
        FullEdits(targets=["atn2"]).attach(micro)
    assert micro.denoiser is micro.base


def test_a_half_precision_base_gets_a_float32_copy(micro_path) -> None:
    model = UNetModel.open(micro_path, dtype="bfloat16")
    edits = FullEdits()
    edits.attach(model)
    assert all(p.dtype == torch.float32 for _, p in edits.parts())
    x_t, t = torch.randn(1, *model.latent_shape), torch.tensor([3])
    model.predict(x_t, t, model.base_text(["a"])).raw.square().mean().backward()
    assert all(p.grad is not None for _, p in edits.parts())

from __future__ import annotations

import pytest
import torch

from palp_lab.edits.key_value import KeyValueEdits
from palp_lab.model.base import TextCond
from palp_lab.model.unet import UNetModel
from tests.contracts.parts import scene


def attached(model: UNetModel, crossattn: bool = False) -> KeyValueEdits:
    edits = KeyValueEdits(crossattn)
    edits.attach(model)
    return edits


def test_keys_and_values_of_every_site_are_trained(micro: UNetModel) -> None:
    names = [name for name, _ in attached(micro).parts()]
    assert sorted(names) == sorted(f"{s.path}.{p}.weight" for s in micro.sites for p in ("to_k", "to_v"))


def test_crossattn_adds_queries_and_outputs_with_their_bias(micro: UNetModel) -> None:
    names = {name for name, _ in attached(micro, crossattn=True).parts()}
    path = micro.sites[0].path
    assert {f"{path}.to_q.weight", f"{path}.to_out.0.weight", f"{path}.to_out.0.bias"} <= names
    assert len(names) == 5 * len(micro.sites)


def test_all_trained_weights_get_gradients_with_crossattn(micro: UNetModel) -> None:
    edits = attached(micro, crossattn=True)
    x_t, t = scene(micro)
    micro.predict(x_t, t, micro.base_text(["a cat", "a dog"])).raw.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for _, p in edits.parts())


@pytest.mark.parametrize("per_site", [False, True])
def test_the_sos_position_gives_no_gradient_and_the_others_do(micro: UNetModel, per_site: bool) -> None:
    edits = attached(micro)
    x_t, t = scene(micro)
    cond = micro.base_text(["a cat", "a dog in paris"])
    cond = cond.per_site(len(micro.sites)) if per_site else cond
    only_sos = torch.zeros_like(cond.tokens)
    only_sos[..., 0, :] = cond.tokens[..., 0, :]
    micro.predict(x_t, t, TextCond(only_sos, cond.concept_at)).raw.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() == 0 for _, p in edits.parts())
    micro.predict(x_t, t, cond).raw.square().mean().backward()
    assert all(p.grad.abs().max() > 0 for _, p in edits.parts())


def test_two_edits_of_the_same_attentions_are_refused(micro: UNetModel) -> None:
    attached(micro)
    with pytest.raises(ValueError, match="detach"):
        attached(micro)


def test_keys_of_the_model_are_the_edits_own(micro: UNetModel) -> None:
    cond = micro.base_text(["a cat"])
    before = micro.keys(cond)
    edits = attached(micro)
    with torch.no_grad():
        dict(edits.parts())[f"{micro.sites[2].path}.to_k.weight"].mul_(2)
    after = micro.keys(cond)
    torch.testing.assert_close(after[2], 2 * before[2])
    assert torch.equal(after[1], before[1])
    with edits.disabled():
        assert torch.equal(micro.keys(cond)[2], before[2])

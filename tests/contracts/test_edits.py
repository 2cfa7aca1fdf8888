"""What every edit promises."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch

from palp_lab.adapter import Adapter, read_adapter
from palp_lab.model.unet import UNetModel
from palp_lab.types import UserError
from tests.contracts.parts import adapter, make, names, scene, train_a_little

EDITS = [*names("edits"), "full+text_encoder", "lora+text_encoder"]
TRAINED = [name for name in EDITS if name != "none"]
PROMPTS = ["a photo of a cat", "a sketch of a dog in paris"]


def base_output(model: UNetModel) -> torch.Tensor:
    with torch.no_grad():
        return model.predict(*scene(model), model.encode_prompts(PROMPTS)).raw


def gradients(adapter: Adapter) -> dict[str, torch.Tensor]:
    model = adapter.model
    parts = dict(adapter.edits.parts())
    x_t, t = scene(model)
    loss = model.predict(x_t, t, model.encode_prompts(PROMPTS)).raw.square().mean()
    return dict(zip(parts, torch.autograd.grad(loss, list(parts.values()), allow_unused=True), strict=True))


@pytest.fixture(params=EDITS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=TRAINED)
def trained(request: pytest.FixtureRequest) -> str:
    return request.param


def test_an_untrained_edit_changes_nothing_or_says_so(micro: UNetModel, name: str) -> None:
    before = base_output(micro)
    edits = make("edits", name)
    edits.attach(micro)
    if edits.starts_at_base:
        assert torch.equal(base_output(micro), before)


def test_training_it_changes_the_output(micro: UNetModel, trained: str) -> None:
    before = base_output(micro)
    train_a_little(adapter(micro, edits=trained))
    assert not torch.allclose(base_output(micro), before, atol=1e-3)


def test_disabled_is_bitwise_the_base_also_when_the_block_fails(micro: UNetModel, name: str) -> None:
    before = base_output(micro)
    one = adapter(micro, edits=name)
    train_a_little(one)
    personal = base_output(micro)
    with one.off():
        assert torch.equal(base_output(micro), before)
        with one.off():
            assert torch.equal(base_output(micro), before)
        assert torch.equal(base_output(micro), before)
    assert torch.equal(base_output(micro), personal)
    with pytest.raises(RuntimeError, match="inside"), one.off():
        raise RuntimeError("inside")
    assert torch.equal(base_output(micro), personal)


def test_disabled_leaves_requires_grad_and_the_graph_alone(micro: UNetModel, trained: str) -> None:
    one = adapter(micro, edits=trained)
    train_a_little(one)
    expected = gradients(one)
    parts = dict(one.edits.parts())
    x_t, t = scene(micro)
    loss = micro.predict(x_t, t, micro.encode_prompts(PROMPTS)).raw.square().mean()
    with one.off():
        assert all(parameter.requires_grad for parameter in parts.values())
        base_output(micro)
    loss.backward()
    for key, parameter in parts.items():
        if expected[key] is not None:
            assert parameter.grad is not None, key
            torch.testing.assert_close(parameter.grad, expected[key], rtol=0, atol=0)


def test_gradients_are_the_same_with_checkpointing(micro: UNetModel, trained: str) -> None:
    one = adapter(micro, edits=trained)
    train_a_little(one)
    plain = gradients(one)
    assert any(g is not None and g.abs().max() > 0 for g in plain.values())
    micro.denoiser.enable_gradient_checkpointing()
    for key, found in gradients(one).items():
        if plain[key] is not None:
            torch.testing.assert_close(found, plain[key], rtol=1e-5, atol=1e-9, msg=key)


def test_every_part_gets_a_gradient(micro: UNetModel, trained: str) -> None:
    one = adapter(micro, edits=trained)
    train_a_little(one)
    lost = [key for key, g in gradients(one).items() if g is None or not g.abs().max() > 0]
    assert not lost


def test_nothing_of_the_base_is_trained_or_shared(micro: UNetModel, name: str) -> None:
    frozen = {id(p) for part in (micro.base, micro.autoencoder, micro.text.encoder) for p in part.parameters()}
    storages = {
        p.untyped_storage().data_ptr() for part in (micro.autoencoder, micro.text.encoder) for p in part.parameters()
    }
    one = adapter(micro, edits=name)
    own = dict(one.parts())
    assert not frozen & {id(p) for p in own.values()}
    assert not storages & {p.untyped_storage().data_ptr() for p in own.values()}
    assert all(p.requires_grad and p.dtype == torch.float32 and p.is_leaf for p in own.values())
    assert one.tensors().keys() == own.keys() and len(own) == len(list(one.parts()))


def test_detach_gives_back_the_base_and_leaves_nothing_behind(micro: UNetModel, name: str) -> None:
    before, encoder = base_output(micro), micro.text.encoder
    state, words = ({k: v.clone() for k, v in part.state_dict().items()} for part in (micro.base, encoder))
    modules = [type(m).__name__ for part in (micro.base, encoder) for m in part.modules()]
    fields = set(vars(micro.base)), set(vars(encoder)), set(vars(micro))
    for _ in range(3):
        one = adapter(micro, edits=name)
        train_a_little(one)
        one.detach()
        one.detach()
        assert torch.equal(base_output(micro), before)
    after = micro.base.state_dict()
    assert micro.denoiser is micro.base and after.keys() == state.keys()
    assert all(torch.equal(after[key], value) for key, value in state.items())
    assert micro.text.encoder is encoder and micro.edited_text is None
    assert all(torch.equal(encoder.state_dict()[key], value) for key, value in words.items())
    assert [type(m).__name__ for part in (micro.base, encoder) for m in part.modules()] == modules
    assert (set(vars(micro.base)), set(vars(encoder)), set(vars(micro)) - {"edited_text"}) == fields
    assert not any(p.requires_grad for part in (micro.base, encoder) for p in part.parameters())


def test_nothing_holds_a_detached_adapter(micro: UNetModel, trained: str) -> None:
    one = adapter(micro, edits=trained)
    left = [weakref.ref(parameter) for _, parameter in one.parts()]
    one.detach()
    del one
    gc.collect()
    assert left and all(ref() is None for ref in left)


def test_saved_tensors_come_back_into_a_fresh_model(micro_path: Path, tmp_path: Path, trained: str) -> None:
    first, second = UNetModel.open(micro_path), UNetModel.open(micro_path)
    one = adapter(first, edits=trained)
    train_a_little(one)
    file = one.save(tmp_path, {"step": 3})
    tensors, about = read_adapter(file)
    other = adapter(second, edits=trained)
    other.load_tensors(tensors)
    assert about == {"step": 3}
    assert torch.equal(base_output(first), base_output(second))


def test_a_start_does_not_depend_on_or_touch_the_global_generator(micro_path: Path, trained: str) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = adapter(UNetModel.open(micro_path), edits=trained).tensors()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    other = adapter(UNetModel.open(micro_path), edits=trained).tensors()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_merged_weights_in_the_stock_pipeline_give_the_same_prediction(micro: UNetModel, name: str) -> None:
    from palp_lab.model.pipeline import stock_pipeline

    one = adapter(micro, edits=name)
    train_a_little(one)
    wanted = base_output(micro)
    merged = {key: weight.clone() for key, weight in one.edits.merged().items()}
    text = {part: {key: w.clone() for key, w in weights.items()} for part, weights in one.edits.merged_text().items()}
    assert set(text) == ({"text_encoder"} if "text" in name else set())
    one.detach()
    x_t, t = scene(micro)
    pipeline = stock_pipeline(micro, merged, text_weights=text)
    ids = micro.tokenize(PROMPTS).ids[0]
    with torch.no_grad():
        found = pipeline.unet(x_t, t, pipeline.text_encoder(ids).last_hidden_state).sample
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_strength_zero_is_the_base_and_one_the_edit_where_there_is_a_strength(micro: UNetModel, name: str) -> None:
    before = base_output(micro)
    one = adapter(micro, edits=name)
    train_a_little(one)
    whole = base_output(micro)
    try:
        one.edits.set_strength(0.0)
    except UserError as error:
        assert "generate.strength" in str(error)
        return
    torch.testing.assert_close(base_output(micro), before, rtol=1e-5, atol=1e-6)
    one.edits.set_strength(0.5)
    half = base_output(micro)
    assert not torch.allclose(half, before, atol=1e-4) and not torch.allclose(half, whole, atol=1e-4)
    one.edits.set_strength(1.0)
    assert torch.equal(base_output(micro), whole)


def test_other_recipes_tensors_are_refused(micro: UNetModel, trained: str) -> None:
    one = adapter(micro, edits=trained)
    tensors = one.tensors()
    key = next(iter(tensors))
    with pytest.raises(UserError, match="does not fit this recipe"):
        one.load_tensors({k: v for k, v in tensors.items() if k != key})
    with pytest.raises(UserError, match="does not fit this model"):
        one.load_tensors({**tensors, key: torch.zeros(3, 3, 3)})

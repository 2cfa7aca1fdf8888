"""What every way of naming the concept promises."""

from __future__ import annotations

import pytest
import torch

from palp_lab.model.unet import UNetModel
from palp_lab.types import UserError
from tests.contracts.parts import concept, make, names, scene

TOKENS = names("tokens")
PLAIN = ["", "a photo of a dog", "a sketch of a hat in the snow"]


@pytest.fixture(params=TOKENS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def bound(model: UNetModel, name: str, **changes: object):
    tokens = make("tokens", name, **changes)
    tokens.bind(model, concept())
    return tokens


def train(tokens) -> None:
    with torch.no_grad():
        for _, parameter in tokens.parts():
            parameter += torch.randn_like(parameter)


def test_prompts_without_the_concept_encode_exactly_as_the_base_does(micro: UNetModel, name: str) -> None:
    tokens = bound(micro, name)
    train(tokens)
    base = micro.base_text(PLAIN)
    assert torch.equal(tokens.encode(PLAIN).tokens, base.tokens)
    mixed = tokens.encode([PLAIN[1], f"a photo of {tokens.call(concept())}", PLAIN[2]])
    spread = base.per_site(len(micro.sites)).tokens if mixed.tokens.ndim == 5 else base.tokens
    assert torch.equal(mixed.tokens[[0, 2]], spread[[1, 2]])


def test_the_concept_is_located_and_others_are_not(micro: UNetModel, name: str) -> None:
    tokens = bound(micro, name)
    call = tokens.call(concept())
    found = tokens.encode([f"a photo of {call}", PLAIN[1]]).concept_at.tolist()
    assert found[0] >= 4 and found[1] == -1


def test_rows_do_not_depend_on_their_order(micro: UNetModel, name: str) -> None:
    tokens = bound(micro, name)
    train(tokens)
    call = tokens.call(concept())
    prompts = ["a dog", f"a photo of {call}", "a cat", f"a sketch of {call} in paris"]
    there, back = tokens.encode(prompts), tokens.encode(prompts[::-1])
    torch.testing.assert_close(back.tokens, there.tokens.flip(0), rtol=1e-5, atol=1e-6)
    assert torch.equal(back.concept_at, there.concept_at.flip(0))


def test_gradients_reach_every_own_parameter_and_nothing_else(micro: UNetModel, name: str) -> None:
    tokens = bound(micro, name)
    own = dict(tokens.parts())
    call = tokens.call(concept())
    x_t, t = scene(micro)
    out = micro.predict(x_t, t, tokens.encode([f"a photo of {call}", "a dog"])).raw
    if not own:
        assert not out.requires_grad
        return
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in own.values())
    everything = (micro.base, micro.autoencoder, micro.text.encoder)
    assert all(p.grad is None for part in everything for p in part.parameters())


def test_the_vocabulary_is_not_touched(micro: UNetModel, name: str) -> None:
    table, size = micro.text.table.clone(), len(micro.text.tokenizer)
    tokens = bound(micro, name)
    train(tokens)
    tokens.encode([f"a photo of {tokens.call(concept())}"])
    assert torch.equal(table, micro.text.table) and len(micro.text.tokenizer) == size
    assert not micro.text.encoder.get_input_embeddings()._forward_hooks


def test_placeholders_that_are_words_or_several_are_refused(micro: UNetModel, name: str) -> None:
    for placeholder in ("cat", "a b", "", " <v>"):
        tokens = make("tokens", name)
        if not tokens.requires:
            continue
        with pytest.raises(UserError, match=r"dataset\.placeholder"):
            tokens.bind(micro, concept(placeholder))


def test_a_placeholder_that_is_a_word_of_the_class_is_refused(micro: UNetModel, name: str) -> None:
    tokens = make("tokens", name)
    if tokens.requires:
        with pytest.raises(UserError, match="collides with the class 'red Qwxz'"):
            tokens.bind(micro, concept("qwxz", superclass="red Qwxz"))
        tokens.bind(micro, concept("qwxz"))


def test_a_phrase_with_the_class_word_needs_one(micro: UNetModel, name: str) -> None:
    tokens = make("tokens", name)
    tokens.phrase = tokens.phrase.split(" ")[0] + " {superclass}"
    with pytest.raises(UserError, match=r"set dataset\.superclass"):
        tokens.bind(micro, concept(superclass=""))
    tokens.bind(micro, concept())
    assert tokens.call(concept()).endswith(" cat")


def test_unknown_braces_in_a_phrase_are_named(micro: UNetModel, name: str) -> None:
    tokens = make("tokens", name)
    tokens.phrase = "{word} of {style}"
    with pytest.raises(UserError, match=r"tokens\.phrase"):
        tokens.bind(micro, concept())

from __future__ import annotations

import pytest
import torch

from palp_lab.model.unet import UNetModel
from palp_lab.tokens.base import say_pieces
from palp_lab.tokens.learned import LearnedTokens
from palp_lab.types import UserError
from tests.contracts.parts import concept

PROMPT = "a photo of <v> in paris"


def bound(model: UNetModel, **options: object) -> LearnedTokens:
    tokens = LearnedTokens(**options)  # type: ignore[arg-type]
    tokens.bind(model, concept())
    return tokens


def test_untrained_it_is_the_class_word(micro: UNetModel) -> None:
    tokens = bound(micro)
    torch.testing.assert_close(
        tokens.encode([PROMPT]).tokens, micro.base_text(["a photo of cat in paris"]).tokens, rtol=0, atol=0
    )


def test_another_start_word(micro: UNetModel) -> None:
    tokens = bound(micro, init_token="dog")
    torch.testing.assert_close(
        tokens.encode([PROMPT]).tokens, micro.base_text(["a photo of dog in paris"]).tokens, rtol=0, atol=0
    )


def test_several_vectors_are_copies_on_neighbouring_positions(micro: UNetModel) -> None:
    tokens = bound(micro, num_vectors=3)
    assert tokens.vectors[0].shape == (3, 16) and tokens.encode([PROMPT]).concept_at.tolist() == [6]
    expected = micro.base_text(["a photo of cat cat cat in paris"]).tokens
    torch.testing.assert_close(tokens.encode([PROMPT]).tokens, expected, rtol=0, atol=0)


def test_a_start_word_of_several_pieces_gives_its_last(micro: UNetModel) -> None:
    tokens = bound(micro, init_token="qwxz")
    assert torch.equal(tokens.vectors[0].detach(), micro.word_vectors("qwxz")[0][-1:])


def test_a_start_word_of_several_pieces_is_said(micro: UNetModel, caplog: pytest.LogCaptureFixture) -> None:
    say_pieces(micro, "qwxz")
    assert caplog.text.count("tokens.init_token=qwxz: 4 pieces") == 1
    caplog.clear()
    say_pieces(micro, "dog"), say_pieces(micro, None)
    assert not caplog.text


def test_no_word_to_start_from_is_an_error(micro: UNetModel) -> None:
    try:
        LearnedTokens().bind(micro, concept(superclass=" "))
    except UserError as error:
        assert "tokens.init_token" in str(error)
    else:
        raise AssertionError("accepted")


def test_a_fixed_norm_keeps_the_length_and_trains_the_direction(micro: UNetModel) -> None:
    tokens = bound(micro, fixed_norm=True)
    start = tokens.vectors[0].norm().item()
    torch.testing.assert_close(tokens.laid()[0], tokens.vectors[0], rtol=1e-6, atol=1e-7)
    with torch.no_grad():
        tokens.vectors[0] += 3 * torch.randn(1, 16)
    assert (
        tokens.laid()[0].norm().item() == torch.tensor(start).item()
        or abs(tokens.laid()[0].norm().item() - start) < 1e-5
    )
    tokens.encode([PROMPT]).tokens.square().sum().backward()
    assert abs((tokens.vectors[0].grad * tokens.vectors[0]).sum().item()) < 1e-3 * tokens.vectors[0].grad.norm().item()


def test_the_phrase_may_keep_the_class_word(micro: UNetModel) -> None:
    tokens = bound(micro, phrase="{placeholder} {superclass}")
    assert tokens.call(concept()) == "<v> cat"
    assert list(tokens.words()) == ["<v>"] and tokens.words()["<v>"].shape == (1, 16)

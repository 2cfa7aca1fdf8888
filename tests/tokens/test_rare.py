from __future__ import annotations

import pytest
import torch

from palp_lab.model.unet import UNetModel
from palp_lab.tokens.rare import RareTokens
from palp_lab.types import UserError
from tests.contracts.parts import concept


def test_it_is_the_base_models_own_reading_of_the_word(micro: UNetModel) -> None:
    tokens = RareTokens(word="sks")
    tokens.bind(micro, concept())
    prompt = f"a photo of {tokens.call(concept())}"
    assert prompt == "a photo of sks cat" and not list(tokens.parts()) and not tokens.words()
    cond = tokens.encode([prompt])
    assert torch.equal(cond.tokens, micro.base_text([prompt]).tokens)
    assert cond.concept_at.tolist() == [3 + len(micro.text.pieces("sks"))]


@pytest.mark.parametrize("word", ["", "two words"])
def test_one_word_only(micro: UNetModel, word: str) -> None:
    with pytest.raises(UserError, match=r"tokens\.word"):
        RareTokens(word=word).bind(micro, concept())


@pytest.mark.parametrize("phrase", ["{placeholder} {superclass}", "{superclass}", "my {word}s"])
def test_a_phrase_without_the_word_is_named(micro: UNetModel, phrase: str) -> None:
    with pytest.raises(UserError, match=r"tokens\.phrase=.*tokens=rare calls the subject by sks"):
        RareTokens(phrase=phrase).bind(micro, concept())
    RareTokens(phrase="my sks {superclass}").bind(micro, concept())

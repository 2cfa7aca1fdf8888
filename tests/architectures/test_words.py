"""The true tokenizer around placeholders: what is split, what stands next to punctuation, what must not change."""

from __future__ import annotations

import pytest
import torch

from palp_lab.model.unet import UNetModel
from palp_lab.tokens.learned import LearnedTokens
from palp_lab.types import UserError
from tests.architectures.skeletons import Skeleton, concept

pytestmark = pytest.mark.slow

PLAIN = [
    "",
    "a photo of a cat",
    "A Sketch of a CAT, in Paris!",
    "the cat's hat - 3 of them; 50% off (really)",
    "naïve café scene by Šuma, 猫 🐱",
    "  two   spaces and\ta tab ",
    "extraordinarily incomprehensible antidisestablishmentarianism",
]
AROUND = [
    "a photo of {}",
    "{}",
    "{}, in paris",
    "a photo of {}.",
    "({}) on the moon",
    "the {}'s hat",
    "a {}-shaped cake!",
    '"{}" and a dog',
    "a sketch of {} wearing sunglasses; at night",
]


@pytest.mark.parametrize("prompt", PLAIN)
def test_prompts_without_a_concept_have_the_stock_ids(published: UNetModel, skeleton: Skeleton, prompt: str) -> None:
    expected = skeleton.tokenizer()(
        prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    for placeholders in ({}, {"<v>": [0]}):
        ids, slots = published.text.tokenize([prompt], placeholders)
        assert torch.equal(ids, expected) and (slots == -1).all()


@pytest.mark.parametrize("placeholder", ["<v>", "<my-toy>", "zwxq", "S*", "<mia_2>"])
@pytest.mark.parametrize("sentence", AROUND)
def test_a_placeholder_is_one_position_and_its_neighbours_are_untouched(
    published: UNetModel, skeleton: Skeleton, sentence: str, placeholder: str
) -> None:
    words = skeleton.tokenizer()
    assert len(words(placeholder, add_special_tokens=False).input_ids) > 1, "the tokenizer alone would split it"
    [cat] = words("cat", add_special_tokens=False).input_ids
    expected = words(sentence.format("cat"), padding="max_length", max_length=77).input_ids
    ids, slots = published.text.tokenize([sentence.format(placeholder)], {placeholder: [0]})
    at = (slots[0] == 0).nonzero().flatten().tolist()
    assert at == [expected.index(cat)]
    found = ids[0].tolist()
    found[at[0]] = cat
    assert found == expected


def test_several_vectors_take_several_positions(published: UNetModel) -> None:
    ids, slots = published.text.tokenize(["a <v>, seen from <v>"], {"<v>": [0, 1, 2]})
    assert [s for s in slots[0].tolist() if s >= 0] == [0, 1, 2, 0, 1, 2]
    assert ids.shape == (1, 77)


def test_a_word_of_the_vocabulary_is_no_placeholder(published: UNetModel) -> None:
    with pytest.raises(UserError, match="dog"):
        LearnedTokens().bind(published, concept("dog"))


def test_what_would_be_cut_is_named(published: UNetModel) -> None:
    with pytest.raises(UserError, match=r"has 76 tokens and the text encoder reads 75: 'cat' would be cut"):
        published.text.tokenize(["red " * 75 + "cat"], {})

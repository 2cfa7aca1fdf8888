"""Captions: sentences, sets, and what is refused."""

from __future__ import annotations

import pytest

from palp_lab.dataset.captions import TEXTUAL_INVERSION, read_captions, slotted
from palp_lab.types import UserError


def test_the_27_sentences_are_neutral_and_distinct() -> None:
    assert len(set(TEXTUAL_INVERSION)) == 27
    assert all(sentence.count("{}") == 1 for sentence in TEXTUAL_INVERSION)


def test_sets_and_sentences_mix() -> None:
    assert read_captions("textual_inversion") == TEXTUAL_INVERSION
    assert read_captions(["a photo of {}", "textual_inversion"]) == ("a photo of {}", *TEXTUAL_INVERSION)
    assert read_captions(["{}"]) == ("{}",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["textual_inversoin"], "is no set of captions"),
        (["a photo of a cat"], "exactly one"),
        (["a {} next to {}"], "exactly one"),
        ([None], "trains on the target"),
        ([], "there are none"),
    ],
)
def test_what_is_refused(given: list[str | None], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_captions(given)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a photo of sks cat on a sofa", "a photo of {} on a sofa"),
        ("SKS sleeping, best quality", "{} sleeping, best quality"),
        ("a photo of <v> in the snow", "a photo of {} in the snow"),
        ("A  Stuffed animal\nin the snow", "A {} in the snow"),
        ("a sks stuffed animal next to a stuffed animal", "a {} next to a stuffed animal"),
        ("two {} already", "two {} already"),
    ],
)
def test_what_other_tools_write_gets_its_slot(text: str, sentence: str) -> None:
    noun = "cat" if "cat" in text else "stuffed animal"
    assert slotted(text, ["sks", "<v>"], noun, "here") == sentence


@pytest.mark.parametrize("text", ["a cathedral", "asks for more", "a photo"])
def test_only_whole_words_are_the_subject(text: str) -> None:
    with pytest.raises(UserError, match=r"^here: .* names neither the class word 'cat' nor 'sks'; write \{\} where"):
        slotted(text, ["sks"], "cat", "here")
    with pytest.raises(UserError, match=r"^here: .* has 2 slots"):
        slotted("a {} by a {}", ["sks"], "cat", "here")

"""Captions: sentences, sets, and what is refused."""

from __future__ import annotations

import pytest

from palp_lab.dataset.captions import TEXTUAL_INVERSION, read_captions
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

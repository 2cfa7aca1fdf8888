"""From a prompt to the words of its elements."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palp_lab.metrics.phrases import Phrases, fragments, open_phrases, split
from palp_lab.types import UserError


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        (
            "a sketch of a {} in Paris at night",
            {"style": "a sketch", "class": "a cat", "ambiance_1": "in Paris", "ambiance_2": "at night"},
        ),
        (
            "a watercolor of a {} wearing a blue scarf in the city",
            {
                "style": "a watercolor",
                "class": "a cat",
                "ambiance_1": "wearing a blue scarf",
                "ambiance_2": "in the city",
            },
        ),
        ("A 19th century portrait of a {}", {"style": "A 19th century portrait", "class": "a cat"}),
        (
            "A digital art of {} on a field with lightning",
            {"style": "A digital art", "class": "a cat", "ambiance_1": "on a field", "ambiance_2": "with lightning"},
        ),
        ("a {} in the style of Vermeer", {"style": "in the style of Vermeer", "class": "a cat"}),
        ("a photo of a dirty {}", {"style": "a photo", "class": "a cat", "ambiance_1": "dirty"}),
        ("a red {}", {"class": "a cat", "ambiance_1": "red"}),
        (
            "an oil painting of the {} sitting on a rock, warm colours, at dusk",
            {
                "style": "an oil painting",
                "class": "the cat",
                "ambiance_1": "sitting on a rock",
                "ambiance_2": "warm colours",
            },
        ),
        ("{}", {"class": "a cat"}),
    ],
)
def test_prompts_are_cut_into_elements(sentence: str, expected: dict[str, str]) -> None:
    assert Phrases()(sentence, "cat") == expected


def test_two_words_that_begin_something_stay_together() -> None:
    assert fragments(" next to a robot in a kitchen") == ["next to a robot", "in a kitchen"]
    assert fragments(" in front of a house. running in the rain") == ["in front of a house", "running in the rain"]
    assert fragments(" far away at night") == ["far away", "at night"]


def test_a_file_says_it_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "phrases.json"
    path.write_text(json.dumps({"Paris, {} by night": {"style": "a photo", "class": "one {}"}}))
    phrases = open_phrases(str(path))
    assert phrases("Paris, {} by night", "cat") == {"style": "a photo", "class": "one cat"}
    assert phrases("a sketch of a {}", "cat") == {"style": "a sketch", "class": "a cat"}
    assert open_phrases() == Phrases()


@pytest.mark.parametrize(
    ("text", "word"),
    [("{", "not valid JSON"), ("[]", "must be"), ('{"a {}": "x"}', "must say"), ('{"a {}": {"mood": "x"}}', "mood")],
)
def test_a_file_that_says_something_else_is_one_line(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "phrases.json"
    path.write_text(text)
    with pytest.raises(UserError, match=word):
        open_phrases(str(path))
    with pytest.raises(UserError, match="cannot be read"):
        open_phrases(str(tmp_path / "none.json"))


def test_where_in_the_picture_something_is_is_no_element() -> None:
    found = split("A digital art of {} on a field with lightning in the background")
    assert (found["ambiance_1"], found["ambiance_2"]) == ("on a field", "with lightning in the background")
    assert "ambiance_2" not in split("a {} with a city in the background")

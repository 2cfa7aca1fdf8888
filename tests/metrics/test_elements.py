"""From a prompt to what is looked for, and from a reading to what was found."""

from __future__ import annotations

import torch

from palp_lab.metrics.base import Evidence
from palp_lab.metrics.elements import SUBJECTS, Element, ElementsFound, PromptReader, elements_of, found
from palp_lab.tinyworld.parse import parse
from tests.metrics.conftest import BrightnessReader


def test_a_prompt_asks_for_its_style_place_class_and_accessory_with_its_colour() -> None:
    reader = PromptReader(BrightnessReader(), parse)
    wanted = reader.wanted("a sketch of a cat wearing a red hat in the snow")
    assert wanted == (
        Element("style", ("style",), frozenset({"sketch"})),
        Element("place", ("place",), frozenset({"snow"})),
        Element("class", SUBJECTS, frozenset({"cat"})),
        Element("accessories", ("hat",), frozenset({"red"})),
    )


def test_an_accessory_without_a_colour_may_have_any() -> None:
    (hat,) = [e for e in PromptReader(BrightnessReader(), parse).wanted("a cat wearing a hat") if e.factors == ("hat",)]
    assert hat.labels == {"red", "blue"}


def test_a_second_subject_is_a_relation_and_its_class() -> None:
    wanted = elements_of(parse("a photo of a cat next to a dog"), BrightnessReader.labels)
    assert [(e.factors, *e.labels) for e in wanted if e.kind == "relation"] == [
        (SUBJECTS, "dog"), (("relation",), "next to"),
    ]  # fmt: skip


def test_side_by_side_nobody_is_first() -> None:
    wanted = elements_of(parse("a photo of a cat next to a dog"), BrightnessReader.labels)
    subjects = [e for e in wanted if e.factors == SUBJECTS]
    readings = {"class_": ["dog", "cat", "cat", "dog"], "second_class": ["cat", "dog", "cat", "none"]}
    assert found(readings, subjects, 4).tolist() == [[True, True], [True, True], [True, False], [False, True]]


def test_what_the_reader_does_not_know_is_not_asked_of_it() -> None:
    wanted = elements_of(parse("a watercolor of a robot wearing a crown in the desert"), BrightnessReader.labels)
    assert wanted == ()


def test_only_the_chosen_kinds_count() -> None:
    reader = PromptReader(BrightnessReader(), parse, kinds=("place",))
    assert [e.kind for e in reader.wanted("a sketch of a cat in the snow")] == ["place"]


def test_a_share_of_what_can_be_read_is_no_share_of_the_prompt() -> None:
    """Two of two, where a bicycle was asked for too, would look perfect; its parts are measured all the same."""
    reader, images = PromptReader(BrightnessReader(), parse), torch.full((2, 3, 8, 8), 250, dtype=torch.uint8)
    for text, whole in (
        ("a sketch of a cat in the snow", True),
        ("a sketch of a cat on its bicycle in the snow", False),
    ):
        wanted = reader.wanted(text)
        features = lambda *asked: torch.ones(1, 1)  # noqa: E731
        given = Evidence(images, text, features, features, wanted=wanted, found=reader.found(images, wanted))
        assert (ElementsFound().measure(given).value is not None) is whole
        assert ElementsFound(kind="place").measure(given).value == 1.0


def test_found_says_which_picture_shows_what() -> None:
    bright, dark = torch.full((1, 3, 8, 8), 250, dtype=torch.uint8), torch.zeros((1, 3, 8, 8), dtype=torch.uint8)
    reader = PromptReader(BrightnessReader(), parse)
    wanted = reader.wanted("a sketch of a cat wearing a red hat in the snow")
    assert reader.found(torch.cat([bright, dark]), wanted).tolist() == [
        [False, True, True, True],
        [False, False, True, False],
    ]
    assert found({}, (), 3).shape == (3, 0)

"""Evaluation sentences: groups, targets, drift."""

from __future__ import annotations

import pytest

from palp_lab.build import build
from palp_lab.composition import compose
from palp_lab.prompts import DriftPrompt, Prompts
from palp_lab.tinyworld.prompts import DRIFT, GROUPS, drift_prompts, is_heldout_prompt
from palp_lab.types import UserError


def test_a_target_is_measured_under_its_own_group_or_as_target() -> None:
    prompts = Prompts({"style": ["a sketch of {}"], "same_style": ["a photo of {} at night"]})
    assert prompts.sentences("a photo of {} at night") == {
        "a sketch of {}": "style", "a photo of {} at night": "same_style",
    }  # fmt: skip
    assert next(iter(prompts.sentences("a {}").items())) == ("a {}", "target")


def test_drift_prompts_name_the_class_or_another() -> None:
    prompts = Prompts({}, ["a photo of a {}"], ["a red {other}", "a {other} at sea"], ["cat", "dog", "bird"])
    assert prompts.drift("cat") == (
        DriftPrompt("a photo of a cat", True), DriftPrompt("a red dog", False), DriftPrompt("a bird at sea", False),
    )  # fmt: skip
    assert all("dog" not in p.text for p in prompts.drift("dog") if not p.class_word)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (({"style": ["a sketch"]},), r"prompts\.groups\.style\[0\]"),
        (({"style": ["a {} and a {}"]},), r"prompts\.groups\.style\[0\]"),
        (({}, ["a cat"]), r"prompts\.drift_with_class_word\[0\]"),
        (({}, [], ["a {}"]), r"prompts\.drift_without_class_word\[0\]"),
        (({}, [], ["a {other}"]), r"prompts\.others is empty"),
    ],
)
def test_sentences_that_mean_nothing_are_refused_by_key(arguments: tuple, line: str) -> None:
    with pytest.raises(UserError, match=line):
        Prompts(*arguments)


def test_others_must_hold_another_class() -> None:
    with pytest.raises(UserError, match=r"prompts\.others"):
        Prompts({}, [], ["a {other}"], ["cat"]).drift("cat")


def shipped(name: str) -> Prompts:
    return build(compose("run", f"prompts={name}").prompts, "prompts")


def test_the_full_set_is_the_tiny_worlds() -> None:
    full = shipped("full")
    assert {g: list(s) for g, s in full.groups.items()} == {g: [p.text for p in ps] for g, ps in GROUPS.items()}
    assert list(full.drift_without_class_word) == DRIFT
    assert [p.text for p in full.drift("bear") if not p.class_word] == drift_prompts("bear")


@pytest.mark.parametrize("name", ["standard", "quick"])
def test_shorter_sets_are_parts_of_the_full_one_and_never_pretrained_on(name: str) -> None:
    full, prompts = shipped("full").sentences(), shipped(name)
    for sentence, group in prompts.sentences().items():
        assert full[sentence] == group
        assert is_heldout_prompt(sentence.replace("{}", "cat"))
    assert {"style", "same_style"} <= set(prompts.groups)
    assert {p.class_word for p in prompts.drift("cat")} == {True, False}

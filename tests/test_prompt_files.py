"""Prompts from the files of published datasets, and what they do to the hash of a cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from palp_lab.build import build
from palp_lab.composition import compose
from palp_lab.types import UserError
from tests.dataset.test_custom_concept101 import dataset
from tests.dataset.test_dreambench import table


def test_a_subject_is_measured_on_the_list_of_its_kind(tmp_path: Path) -> None:
    table(tmp_path)

    config = compose("run", "prompts=dreambench", "dataset=dreambench", f"dataset.root={tmp_path}")

    def prompts(subject: str, kind: str = "auto"):
        config.dataset.subject, config.prompts.kind = subject, kind
        return build(config.prompts, "prompts")

    assert prompts("cat").sentences() == {"a {} wearing a red hat": "live", "a wet {}": "live"}
    assert list(prompts("bear").groups) == ["object"]
    assert list(prompts("bear", "live").groups) == ["live"]
    assert [drift.text for drift in prompts("bear").drift("stuffed animal")] == ["a photo of a stuffed animal"]
    with pytest.raises(UserError, match=r"prompts\.kind=dead: must be auto, object, live"):
        prompts("cat", "dead")
    with pytest.raises(UserError, match=r"dataset\.subject=lion"):
        prompts("lion")


def test_without_the_dataset_the_line_says_what_to_give() -> None:
    with pytest.raises(UserError, match=r"dataset\.root: has no value"):
        build(compose("run", "prompts=dreambench").prompts, "prompts")
    with pytest.raises(UserError, match=r"dataset\.path: has no value"):
        build(compose("run", "prompts=customconcept101").prompts, "prompts")


def test_the_prompts_a_concept_names(tmp_path: Path) -> None:
    dataset(tmp_path)
    base = ("prompts=customconcept101", "dataset=customconcept101", f"dataset.path={tmp_path}")
    prompts = build(compose("run", *base, "dataset.concept=pet_cat1").prompts, "prompts")
    assert prompts.sentences() == {"photo of a {}.": "cat", "{} swimming in a pool.": "cat"}

"""Evaluation prompts: held out for every class, two to four elements, never a training caption."""

import numpy as np
import pytest

from palp_lab.tinyworld import CLASSES, caption, elements_heldout, parse, sample_identity, sample_scene, scene_for
from palp_lab.tinyworld.prompts import GROUPS, clean_prompt, drift_prompts, is_heldout_prompt
from palp_lab.types import UserError

PROMPTS = [prompt for group in GROUPS.values() for prompt in group]


def test_groups_are_large_enough():
    assert set(GROUPS) == {"style", "same_style", "framing", "relation"}
    assert all(len(group) >= 6 for group in GROUPS.values())
    assert all(
        p.elements.style == "photo" and p.elements.place and p.elements.accessories for p in GROUPS["same_style"]
    )
    assert all(p.elements.style != "photo" for p in GROUPS["style"])
    assert all(p.elements.framing for p in GROUPS["framing"]) and all(p.elements.relation for p in GROUPS["relation"])


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda p: p.text)
def test_a_prompt_is_held_out_for_every_class(prompt):
    assert prompt.text.count("{}") == 1 and not prompt.elements.unknown
    assert 2 <= prompt.elements.count() <= 4
    for superclass in CLASSES:
        assert is_heldout_prompt(prompt.fill(superclass))
        scene = scene_for(sample_identity(superclass, 3, "heldout"), prompt.fill("<v>"), 1)
        assert elements_heldout(scene)
        assert parse(prompt.fill(f"<v> {superclass}")).classes[0] == superclass


def test_no_training_caption_is_an_evaluation_prompt():
    asked = {prompt.fill(superclass) for prompt in PROMPTS for superclass in CLASSES}
    drawn = {caption(sample_scene(seed), np.random.default_rng([seed, v])) for seed in range(4000) for v in range(3)}
    assert not asked & drawn


def test_ordinary_prompts_are_not_held_out():
    for superclass in CLASSES:
        assert not is_heldout_prompt(clean_prompt(superclass))
    with pytest.raises(UserError, match="names no class"):
        is_heldout_prompt("a photo of a zebra")


def test_drift_prompts_avoid_the_class():
    for superclass in CLASSES:
        found = drift_prompts(superclass)
        assert len(found) == 8 and all(superclass not in parse(text).classes for text in found)

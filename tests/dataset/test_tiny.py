"""The tiny world as a dataset."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from palp_lab import tinyworld
from palp_lab.dataset.tiny import TinyDataset
from palp_lab.types import UserError


def test_a_concept_is_a_function_of_class_seed_and_shots() -> None:
    one, two = TinyDataset("cat", 7, 3).concept(), TinyDataset("cat", 7, 3).concept()
    assert one.photos.shape == (3, 3, 64, 64)
    assert one.photos.dtype == torch.uint8
    assert torch.equal(one.photos, two.photos)
    assert one.digest == two.digest
    assert TinyDataset("cat", 8, 3).concept().digest != one.digest
    assert torch.equal(TinyDataset("cat", 7, 4).concept().photos[:3], one.photos)


def test_what_is_known_of_it() -> None:
    concept = TinyDataset("dog", 3).concept()
    assert concept.masks is not None
    assert concept.masks.dtype == torch.bool
    assert 0.03 < concept.masks.float().mean() < 0.7
    assert concept.description is not None
    assert concept.description.endswith("dog")
    assert not concept.description.startswith(("a ", "an "))
    assert len(concept.description.split()) > 2
    assert concept.described("a sketch of a {}") in {f"a sketch of {a} {concept.description}" for a in ("a", "an")}
    orange = replace(concept, description="orange dog with spots")
    assert orange.described("a sketch of a {}") == "a sketch of an orange dog with spots"
    assert orange.described("the {} at night") == "the orange dog with spots at night"
    assert orange.clean("a sketch of a {}") == "a sketch of a dog"
    assert orange.clean("a sketch of {} in Paris") == "a sketch of a dog in Paris"
    assert orange.described("a sketch of {} in Paris") == "a sketch of an orange dog with spots in Paris"


def test_held_out_photos_are_in_other_places() -> None:
    concept = TinyDataset("cat", 7, 2, places="same").concept()
    assert concept.held_out is not None
    assert len(concept.held_out) == 4
    assert not any(torch.equal(a, b) for a in concept.photos for b in concept.held_out)


def test_no_held_out_photo_is_taken_where_a_training_photo_was(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = tinyworld.scene_for, []
    monkeypatch.setattr(tinyworld, "scene_for", lambda *a: asked.append(a[1]) or real(*a))
    concept = TinyDataset("cat", 7, 3).concept()
    seen = concept.notes["places"].split(", ")
    places = {place for sentence in asked if (place := tinyworld.parse(sentence).place) is not None}
    assert len(seen) == 3 and places and not places & set(seen)


def test_true_renders_show_the_subject_in_the_scene() -> None:
    dataset = TinyDataset("cat", 7)
    night, beach = (
        dataset.true_renders(f"a photo of a {{}} {place}", [0, 1]) for place in ("at night", "on the beach")
    )
    assert night.shape == (2, 3, 64, 64)
    assert night.float().mean() < beach.float().mean()
    assert torch.equal(night, dataset.true_renders("a photo of a {} at night", [0, 1]))


def test_what_the_world_does_not_have_has_no_true_picture() -> None:
    """A render without the bicycle is no true render of a cat on one."""
    dataset = TinyDataset("cat", 7)
    assert dataset.true_renders("a photo of a {} on a bicycle", [0]) is None
    assert dataset.true_renders("a photo of {} as it is in the snow", [0]) is not None


def test_true_renders_that_a_version_changed_are_named() -> None:
    """Their numbers are made anew; of all other sentences they stay good."""
    worn = "an oil painting of a {} wearing a green scarf at night"
    plain = ["an oil painting of a {} in the snow", "a sketch of a {} wearing a red hat in the snow"]
    assert TinyDataset("cat", 7).redrawn([worn, *plain]) == {worn: 3}
    assert tinyworld.WORLD_VERSION == 3, "a new version says here which sentences' renders it changed"


def test_class_pictures_are_others_of_the_class() -> None:
    dataset = TinyDataset("cat", 7)
    others = dataset.class_renders(range(4))
    assert others.shape == (4, 3, 64, 64)
    assert torch.equal(others[:2], dataset.class_renders(range(2)))


@pytest.mark.parametrize(("key", "value"), [("superclass", "unicorn"), ("shots", 0), ("shots", 7), ("places", "moon")])
def test_wrong_values_are_named(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"dataset\.{key}="):
        TinyDataset(**{key: value})  # type: ignore[arg-type]

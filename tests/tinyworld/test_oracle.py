"""True renders: the identity stays, the prompt's elements appear, photos are neutral."""

import numpy as np
import pytest

from palp_lab.tinyworld import (
    ACCESSORIES,
    LABELS,
    elements_of,
    labels,
    parse,
    photos,
    sample_identity,
    sample_scene,
    scene_for,
    scene_from,
)  # fmt: skip
from palp_lab.types import UserError


def test_a_true_render_has_the_identity_and_the_elements():
    identity = sample_identity("cat", 1234, "heldout")
    prompt = "an oil painting of a {} wearing a red hat and a blue scarf next to a green dog in the snow"
    scene = scene_for(identity, prompt, 5)
    shown, asked = elements_of(scene), parse(prompt)
    assert scene.subjects[0] == identity
    assert (shown.style, shown.place, shown.relation) == (asked.style, asked.place, asked.relation)
    assert shown.accessories == asked.accessories
    assert scene.subjects[1].superclass == "dog" and scene.subjects[1].colour == "green"
    assert scene == scene_for(identity, parse(prompt), 5) != scene_for(identity, prompt, 6)


def test_a_prompt_without_a_concept_is_rendered_too():
    scene = scene_from("a sketch of a spotted red and blue car at night", 3)
    car = scene.subjects[0]
    assert (car.superclass, car.colour, car.second, car.pattern) == ("car", "red", "blue", "spotted")
    assert (scene.style, scene.place) == ("sketch", "night")


def test_what_a_prompt_leaves_open_never_gives_two_equal_colours():
    for seed in range(40):
        car = scene_from("a photo of a white car", seed).subjects[0]
        assert car.colour == "white" and car.second != "white"


@pytest.mark.parametrize("shots", [1, 4, 6])
def test_photos_show_one_heldout_identity(shots):
    found = photos("teapot", 1234, shots)
    assert len(found) == shots
    assert {scene.subjects for _, scene in found} == {(sample_identity("teapot", 1234, "heldout"),)}
    assert len({scene.place for _, scene in found}) == shots
    assert all(s.style == "photo" and not s.accessories for _, s in found)
    assert len({picture.tobytes() for picture, _ in found}) == shots
    assert len({s.place for _, s in photos("teapot", 1234, shots, places="same")}) == 1
    # More shots add photos, they do not change the first ones.
    assert np.array_equal(found[0][0], photos("teapot", 1234, 1)[0][0])


def test_photos_refuse_what_they_cannot_do():
    with pytest.raises(UserError, match="1 to 6"):
        photos("cat", 0, 7)
    with pytest.raises(UserError, match="varied or same"):
        photos("cat", 0, 2, places="many")


def test_labels_name_the_scene():
    for seed in range(300):
        scene = sample_scene(seed)
        found = labels(scene)
        assert list(found) == list(LABELS)
        names = {key: LABELS[key][index] for key, index in found.items()}
        assert names["place"] == scene.place and names["framing"] == scene.framing
        if scene.subjects:
            assert names["class_"] == scene.subjects[0].superclass
            assert names["second_class"] == (scene.subjects[1].superclass if len(scene.subjects) > 1 else "none")
        for name in ACCESSORIES:
            assert names[name] == dict(scene.accessories).get(name, "none")

"""Scenes: reserved combinations never reach pretraining, and the mix is what the documentation says."""

import numpy as np

from palp_lab.tinyworld import ACCESSORIES, CLASSES, PLACES, STYLES, elements_heldout, is_heldout, sample_scene


def test_pretraining_never_shows_what_is_held_out():
    for seed in range(3000):
        scene = sample_scene(seed)
        assert not elements_heldout(scene)
        for s in scene.subjects:
            assert not is_heldout(s.superclass, s.colour, s.second, s.pattern)


def test_heldout_scenes_are_held_out_in_both_ways():
    for seed in range(300):
        scene = sample_scene(seed, "heldout")
        if scene.subjects:
            assert elements_heldout(scene)
            assert all(is_heldout(s.superclass, s.colour, s.second, s.pattern) for s in scene.subjects)


def test_the_mix():
    scenes = [sample_scene(seed) for seed in range(4000)]
    share = lambda rule: float(np.mean([rule(s) for s in scenes]))  # noqa: E731
    assert 0.02 < share(lambda s: not s.subjects) < 0.045
    assert 0.09 < share(lambda s: len(s.subjects) == 2) < 0.15
    assert 0.025 < share(lambda s: bool(s.degradation)) < 0.055
    for style in STYLES:
        assert share(lambda s, style=style: s.style == style) > 0.07
    for place in PLACES:
        assert share(lambda s, place=place: s.place == place) > 0.06
    for name in CLASSES:
        assert share(lambda s, name=name: bool(s.subjects) and s.subjects[0].superclass == name) > 0.06
    for name in ACCESSORIES:
        assert share(lambda s, name=name: name in dict(s.accessories)) > 0.08

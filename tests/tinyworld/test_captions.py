"""Captions and the parser: every word known, every template word drawn, full descriptions read back whole."""

import hashlib

import numpy as np

from palp_lab.tinyworld import (
    NEGATIVE_WORDS,
    WORDS,
    WORLD_VERSION,
    caption,
    captions_of,
    describe,
    elements_of,
    parse,
    sample_scene,
)
from palp_lab.tinyworld.captions import LONGEST

TEMPLATES = [
    "a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}",
    "a photo of a clean {}", "a photo of a dirty {}", "a dark photo of the {}", "a photo of my {}",
    "a photo of the cool {}", "a close-up photo of a {}", "a bright photo of the {}", "a cropped photo of a {}",
    "a photo of the {}", "a good photo of the {}", "a photo of one {}", "a close-up photo of the {}",
    "a rendition of the {}", "a photo of the clean {}", "a rendition of a {}", "a photo of a nice {}",
    "a good photo of a {}", "a photo of the nice {}", "a photo of the small {}", "a photo of the weird {}",
    "a photo of the large {}", "a photo of a cool {}", "a photo of a small {}",
]  # fmt: skip


def _captions(count):
    return [caption(sample_scene(seed), np.random.default_rng([seed, 1])) for seed in range(count)]


def test_captions_are_short_and_in_the_word_list_and_use_all_of_it():
    seen = set()
    for text in _captions(6000):
        words = text.replace(",", " ,").split()
        assert len(words) <= LONGEST
        seen |= set(words) - {","}
    assert seen == set(WORDS)


def test_the_language_of_the_world_does_not_change():
    """Weights are trained on these very sentences: change them only together with WORLD_VERSION."""
    text = "\n".join(line for seed in range(300) for line in captions_of(sample_scene(seed)))
    assert WORLD_VERSION == 3
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "831bec10b8fe693c"
    assert hashlib.sha256(" ".join(WORDS).encode()).hexdigest()[:16] == "5aa8de87a0fb6e23"


def test_template_and_negative_words_are_in_the_language():
    for text in [*TEMPLATES, *NEGATIVE_WORDS]:
        assert set(text.replace("{}", "").split()) <= set(WORDS), text


def test_full_descriptions_are_read_back_whole():
    for seed in range(1500):
        scene = sample_scene(seed)
        assert parse(describe(scene)) == elements_of(scene), describe(scene)


def test_captions_name_nothing_that_is_not_there():
    for seed in range(1500):
        scene = sample_scene(seed)
        read, true = parse(caption(scene, np.random.default_rng([seed, 2]))), elements_of(scene)
        assert not read.unknown
        # Degraded pictures say "dark" of the picture, which is no framing of the scene.
        assert scene.degradation or read.framing in ("", true.framing)
        assert read.place in ("", "plain", true.place)
        assert read.style in ("", true.style)
        assert set(read.colours) <= set(true.colours)
        assert all(name in dict(true.accessories) for name, _ in read.accessories)
        assert all(word in (None, dict(true.accessories)[name]) for name, word in read.accessories)


def test_the_parser_takes_what_a_person_types():
    read = parse("A photograph of <v> cat, wearing a RED hat and grey sunglasses, at night on Mars")
    assert read.style == "photo" and read.place == "night" and read.classes == ("cat",)
    assert read.accessories == (("hat", "red"), ("sunglasses", "gray"))
    assert read.unknown == ("mars",)
    assert parse("a sketch of a {} next to a blue dog").relation == "next to"
    assert parse("a sketch of a {} next to a blue dog").partner_colours == ("blue",)
    assert parse("").count() == 0

"""Captions: compositional sentences about a scene, with factors dropped at random, and the world's word list."""

from __future__ import annotations

import numpy as np

from palp_lab.tinyworld.factors import (
    ACCESSORIES,
    ARTWORKS,
    CLASSES,
    COLOUR_NAMES,
    NEGATIVE_WORDS,
    PATTERNS,
)  # fmt: skip
from palp_lab.tinyworld.scene import Scene

LONGEST = 26
"""Most words of a caption."""

DROP = {"colour": 0.30, "pattern": 0.35, "place": 0.15}
"""How often a caption leaves a factor out; the feasibility study's numbers."""

STYLE_PHRASES = {
    "photo": ["photo", "photo", "photo", "photo", "rendering", "rendition", "picture"],
    "sketch": ["sketch", "sketch", "pencil sketch"],
    "watercolor": ["watercolor", "watercolor painting"],
    "neon": ["neon sign", "neon"],
    "cartoon": ["cartoon", "cartoon"],
    "blueprint": ["blueprint"],
    "oil painting": ["oil painting", "oil painting"],
    "artwork": ["artwork", "abstract artwork", "painting"],
}
"""Nouns of a style; the first is the one a description uses."""

PLACE_PHRASES = {
    "beach": ["on the beach", "on a beach"],
    "forest": ["in the forest", "in a forest"],
    "snow": ["in the snow"],
    "desert": ["in the desert", "in a desert"],
    "city": ["in the city", "in a city"],
    "meadow": ["in a meadow", "in the meadow"],
    "underwater": ["underwater"],
    "night": ["at night", "under the moon at night"],
    "kitchen": ["in a kitchen", "in the kitchen"],
}
"""Phrases of a place; the first is the one a description uses; the plain backdrop has none."""

SUBJECT_ADJECTIVES = ["clean", "dirty", "small", "large", "weird"]
"""Framing words that stand before the class."""

PICTURE_ADJECTIVES = ["close-up", "cropped", "dark", "bright"]
"""Framing words that stand before the style."""

NEUTRAL_SUBJECT = ["cool", "nice"]
NEUTRAL_PICTURE = ["good", "nice"]

_EXTRA = """
    a an the my one of in on at with and wearing holding next to front inspired by under moon far away
    photo rendering rendition picture pencil sketch watercolor painting neon sign cartoon blueprint oil abstract artwork
    beach forest snow desert city meadow underwater night kitchen plain background
""".split()  # noqa: SIM905

WORDS: list[str] = sorted(
    {
        word
        for entry in [
            *_EXTRA, *CLASSES, *COLOUR_NAMES, *PATTERNS, *ACCESSORIES, *ARTWORKS, *SUBJECT_ADJECTIVES,
            *PICTURE_ADJECTIVES, *NEUTRAL_SUBJECT, *NEUTRAL_PICTURE, *NEGATIVE_WORDS,
        ]
        for word in entry.split()
    }
)  # fmt: skip
"""Every word a caption, a description or a prompt of the world can hold; a comma is a token of its own."""


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One caption of ``scene``, at most :data:`LONGEST` words, factors dropped and order varied by ``rng``."""
    while True:
        text = _sentence(scene, rng)
        if scene.degradation:
            text = _degraded(text, scene, rng)
        if len(text.replace(",", " ,").split()) <= LONGEST:
            return text


def describe(scene: Scene) -> str:
    """The full true description: every named factor, nothing dropped."""
    return _sentence(scene, None)


def _chance(rng: np.random.Generator | None, probability: float) -> bool:
    return rng is not None and rng.random() < probability


def _pick(rng: np.random.Generator | None, options: list[str]) -> str:
    return options[0] if rng is None else options[rng.integers(0, len(options))]


def _article(rng: np.random.Generator | None, following: str) -> str:
    word = "a" if rng is None else str(rng.choice(["a", "the", "my", "one"], p=[0.66, 0.22, 0.08, 0.04]))
    return f"{'an' if word == 'a' and following[0] in 'aeiou' else word} {following}"


def _a(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _sentence(scene: Scene, rng: np.random.Generator | None) -> str:
    if not scene.subjects:
        noun = _pick(rng, STYLE_PHRASES["artwork"])
        # A fifth of the artworks are shown without their name, as a held-out artwork will be.
        return _a(noun) if _chance(rng, 0.2) else f"{_a(noun)} inspired by {scene.artwork}"
    noun = _pick(rng, STYLE_PHRASES[scene.style])
    if scene.framing in PICTURE_ADJECTIVES:
        noun = f"{scene.framing} {noun}"
    elif _chance(rng, 0.06):
        noun = f"{_pick(rng, NEUTRAL_PICTURE)} {noun}"
    subject = _subject(scene, 0, rng)
    worn = _worn(scene, rng)
    if worn:
        subject = f"{subject} {worn}"
    if scene.relation != "none":
        subject = f"{subject} {scene.relation} {_subject(scene, 1, rng, partner=True)}"
    if scene.framing == "far away":
        subject = f"{subject} far away"
    place = ""
    if scene.place != "plain" and not _chance(rng, DROP["place"]):
        place = _pick(rng, PLACE_PHRASES[scene.place])
    head = f"{_article(rng, noun) if _chance(rng, 0.2) else _a(noun)} of"
    if scene.artwork:
        place = f"{place} inspired by {scene.artwork}".strip()
    if place and not scene.artwork and _chance(rng, 0.12):
        return f"{place}, {head} {subject}"
    if not place and scene.place == "plain" and _chance(rng, 0.06):
        place = "on a plain background"
    # Short captions without the style's noun: what a person types first. Photo is the default.
    brief = scene.style == "photo" and not scene.artwork and scene.framing not in PICTURE_ADJECTIVES
    if brief and _chance(rng, 0.05):
        return f"{subject} {place}".strip()
    return f"{head} {subject} {place}".strip()


def _subject(scene: Scene, index: int, rng: np.random.Generator | None, partner: bool = False) -> str:
    identity = scene.subjects[index]
    words = []
    if not partner and scene.framing in SUBJECT_ADJECTIVES:
        words.append(scene.framing)
    elif _chance(rng, 0.06):
        words.append(_pick(rng, NEUTRAL_SUBJECT))
    tail = ""
    # An artwork's palette hides the colours of a subject: its captions do not name them.
    if not scene.artwork and not _chance(rng, DROP["colour"]):
        second = identity.pattern != "plain" and rng is not None and rng.random() < 0.35
        colours = f"{identity.colour} and {identity.second}" if second or rng is None else identity.colour
        pattern = "" if _chance(rng, DROP["pattern"]) else identity.pattern
        if pattern == "plain" and rng is not None:
            pattern = ""
        words += [pattern, colours] if pattern else [colours]
    elif not scene.artwork and not _chance(rng, 0.5) and identity.pattern != "plain":
        words.append(identity.pattern)
    words.append(identity.superclass)
    phrase = " ".join(words)
    return (_a(phrase) if partner else _article(rng, phrase)) + tail


def _worn(scene: Scene, rng: np.random.Generator | None) -> str:
    if not scene.accessories:
        return ""
    phrases = []
    for name, word in scene.accessories:
        shown = name if scene.artwork or _chance(rng, 0.15) else f"{word} {name}"
        phrases.append((name, shown if name == "sunglasses" else _a(shown)))
    if len(phrases) > 1 and _chance(rng, 0.5) and phrases[1][0] != "balloon":
        phrases.reverse()
    text = ""
    for position, (name, phrase) in enumerate(phrases):
        verb = "holding" if name == "balloon" else "wearing"
        if _chance(rng, 0.3):
            verb = "with"
        if position == 0:
            text = f"{verb} {phrase}"
        elif name == "balloon" or phrases[0][0] == "balloon":
            text += f" and {verb} {phrase}"
        else:
            text += f" and {phrase}"
    return text


def _degraded(text: str, scene: Scene, rng: np.random.Generator) -> str:
    own = {
        "blur": ["blurry", "out of focus", "low quality"], "low contrast": ["low contrast", "dull", "low quality"],
        "noise": ["low quality", "unrealistic", "ugly"], "darkness": ["dark", "gloomy", "dull"],
        "low resolution": ["low-resolution", "low quality", "unrealistic"],
    }[scene.degradation]  # fmt: skip
    count = int(rng.integers(1, 5))
    rest = [word for word in NEGATIVE_WORDS if word not in own]
    chosen = [own[i] for i in rng.permutation(3)[: min(3, count)]]
    chosen += [rest[i] for i in rng.permutation(len(rest))[: max(0, count - 3) + int(rng.integers(0, 2))]]
    words = ", ".join(chosen)
    return words if rng.random() < 0.4 else f"{text}, {words}"

"""A tolerant parser: what elements does a prompt in the world's language ask for?"""

from __future__ import annotations

import re
from dataclasses import dataclass

from palp_lab.tinyworld.captions import PICTURE_ADJECTIVES, SUBJECT_ADJECTIVES, WORDS
from palp_lab.tinyworld.factors import ACCESSORIES, ARTWORKS, CLASSES, COLOUR_NAMES, PATTERNS
from palp_lab.tinyworld.scene import Scene

_STYLE_WORDS = {
    "photo": "photo", "rendering": "photo", "rendition": "photo", "picture": "photo", "sketch": "sketch",
    "watercolor": "watercolor", "neon": "neon", "cartoon": "cartoon", "blueprint": "blueprint", "oil": "oil painting",
    "artwork": "artwork", "painting": "artwork", "photograph": "photo", "drawing": "sketch",
    "watercolour": "watercolor",
}  # fmt: skip
_PLACE_WORDS = {
    "beach": "beach", "forest": "forest", "snow": "snow", "desert": "desert", "city": "city", "meadow": "meadow",
    "underwater": "underwater", "night": "night", "kitchen": "kitchen", "background": "plain", "moon": "night",
}  # fmt: skip
_ALIASES = {"grey": "gray", "colour": "color", "closeup": "close-up", "lowresolution": "low-resolution"}
_SILENT = {
    "is", "are", "was", "were", "be", "being", "it", "its", "his", "her", "their", "this", "that", "these", "those",
    "there", "some", "very", "for", "from", "into", "over", "as",
}  # fmt: skip
"""Words that ask for nothing by themselves. Ours."""


@dataclass(frozen=True)
class Elements:
    """What a prompt asks for; empty where it does not say. ``accessories`` pairs a word with its colour or None."""

    style: str = ""
    place: str = ""
    classes: tuple[str, ...] = ()
    accessories: tuple[tuple[str, str | None], ...] = ()
    colours: tuple[str, ...] = ()
    """Colours said of the first subject: body, then second."""
    pattern: str = ""
    framing: str = ""
    relation: str = ""
    partner_colours: tuple[str, ...] = ()
    partner_pattern: str = ""
    artwork: str = ""
    unknown: tuple[str, ...] = ()

    def count(self) -> int:
        """How many elements a picture can be checked for besides the classes and their coats."""
        return sum(bool(x) for x in (self.style, self.place, self.framing, self.relation, self.artwork)) + len(
            self.accessories
        )


def tokens(text: str) -> list[str]:
    """Lower-case words of a prompt; commas and other signs are left out, a slot ``{}`` or ``<v>`` is one word."""
    words = re.findall(r"<[^>]*>|\{\}|[a-z0-9]+(?:-[a-z0-9]+)*", text.lower())
    return [_ALIASES.get(word, word) for word in words]


def parse(text: str) -> Elements:
    """Reads ``text``; words outside the language are ignored and returned in ``unknown``."""
    words = tokens(text)
    style = place = framing = relation = artwork = ""
    classes: list[str] = []
    accessories: list[tuple[str, str | None]] = []
    coats: list[tuple[tuple[str, ...], str]] = []
    colours: list[str] = []
    pattern = ""
    unknown = []
    for i, word in enumerate(words):
        before, after = words[i - 1] if i else "", words[i + 1] if i + 1 < len(words) else ""
        if word in COLOUR_NAMES:
            colours.append(word)
            continue
        if word in PATTERNS and not (word == "plain" and after == "background"):
            pattern = word
            continue
        if word == "and" and colours:
            continue
        if word in CLASSES or word == "{}" or word.startswith("<"):
            if word in CLASSES and before.startswith(("<", "{")):
                # "<v> cat": the class word belongs to the concept before it.
                classes[-1:] = [word]
            else:
                classes.append(word if word in CLASSES else "{}")
                coats.append((tuple(colours), pattern))
            colours, pattern = [], ""
        elif word in ACCESSORIES:
            accessories.append((word, colours[-1] if colours else None))
            colours = []
        elif word in ARTWORKS and (before == "by" or words[max(0, i - 2) : i] == ["by", "a"]):
            artwork = word
        elif word in _STYLE_WORDS:
            style = style or _STYLE_WORDS[word]
        elif word in _PLACE_WORDS:
            place = place or _PLACE_WORDS[word]
        elif word in PICTURE_ADJECTIVES and not framing and not classes:
            framing = word
        elif word in SUBJECT_ADJECTIVES and not classes:
            framing = framing or word
        elif word == "far" and after == "away":
            framing = framing or "far away"
        elif word == "next" and after == "to":
            relation = "next to"
        elif word == "front":
            relation = "in front of"
        elif word not in WORDS and word not in _SILENT:
            unknown.append(word)
        if word not in ("and", "a", "an", "the"):
            colours = colours if word in COLOUR_NAMES else []
    first, second = ([*coats, ((), ""), ((), "")])[:2]
    return Elements(
        style, place, tuple(classes), tuple(accessories), first[0], first[1], framing,
        relation if len(classes) > 1 else "", second[0], second[1], artwork, tuple(unknown),
    )  # fmt: skip


def elements_of(scene: Scene) -> Elements:
    """The elements a scene shows, as :func:`parse` would read its full description."""
    coats = [((s.colour, s.second), s.pattern) for s in scene.subjects]
    if scene.artwork:
        coats = [((), "") for _ in scene.subjects]
    first, second = ([*coats, ((), ""), ((), "")])[:2]
    return Elements(
        style=scene.style, place="" if scene.place == "plain" else scene.place,
        classes=tuple(s.superclass for s in scene.subjects),
        accessories=tuple((name, None if scene.artwork else word) for name, word in scene.accessories),
        colours=first[0], pattern=first[1], framing="" if scene.framing == "none" else scene.framing,
        relation="" if scene.relation == "none" else scene.relation, partner_colours=second[0],
        partner_pattern=second[1], artwork=scene.artwork,
    )  # fmt: skip

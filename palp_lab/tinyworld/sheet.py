"""The sheet of the world in ``docs/tinyworld.png``: ``python -m palp_lab.tinyworld.sheet [path]``. Needs Pillow."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from palp_lab.tinyworld.artworks import named_artwork, sample_artwork
from palp_lab.tinyworld.factors import ACCESSORIES, ARTWORKS, CLASSES, COLOUR_NAMES, FRAMINGS, PLACES, STYLES
from palp_lab.tinyworld.identity import Identity, sample_identity
from palp_lab.tinyworld.oracle import photos, scene_for
from palp_lab.tinyworld.render import render
from palp_lab.tinyworld.scene import Scene

SCALE = 2
"""Enlargement of the sheet: every class and accessory must be told at this size."""
_LABEL = 20
_TILE = 64 * SCALE
_PAPER = (250, 249, 246)
_TEXT = (50, 48, 52)


def _row(name: str, pictures: list[np.ndarray], captions: list[str]) -> Image.Image:
    """A titled row of pictures with a word over each."""
    row = Image.new("RGB", (len(pictures) * (_TILE + 4) + 4, _TILE + 2 * _LABEL), _PAPER)
    draw = ImageDraw.Draw(row)
    draw.text((6, 4), name, fill=_TEXT)
    for i, (picture, word) in enumerate(zip(pictures, captions, strict=True)):
        left = 4 + i * (_TILE + 4)
        draw.text((left + 2, _LABEL + 3), word, fill=_TEXT)
        row.paste(Image.fromarray(picture).resize((_TILE, _TILE), Image.Resampling.NEAREST), (left, 2 * _LABEL))
    return row


def _cast(number: int, seed: int = 0) -> Identity:
    return sample_identity(CLASSES[number % len(CLASSES)], seed + number)


def rows() -> list[Image.Image]:
    """All rows of the sheet: classes, styles × places, accessories, framing, relations, artworks, one identity."""
    found = []
    for seed in (20, 40):
        cast = [render(Scene((_cast(i, seed),), seed=seed + i)) for i in range(len(CLASSES))]
        found.append(_row("classes", cast, CLASSES))
    for j, style in enumerate(STYLES):
        scenes = [Scene((_cast(i + 3 * j, 60),), style, place, seed=i + 10 * j) for i, place in enumerate(PLACES)]
        found.append(_row(f"style: {style}", [render(scene) for scene in scenes], PLACES))
    for name in ACCESSORIES:
        scenes = [
            Scene((_cast(i, 80),), STYLES[i % len(STYLES)], accessories=((name, COLOUR_NAMES[(i * 5) % 12]),), seed=i)
            for i in range(10)
        ]
        words = [f"{scene.accessories[0][1]} {name}" for scene in scenes]
        found.append(_row("accessories in free colours", [render(scene) for scene in scenes], words))
    framings = [Scene((_cast(i, 90),), "photo", PLACES[i], framing=f, seed=i) for i, f in enumerate(FRAMINGS[1:])]
    found.append(_row("framing", [render(scene) for scene in framings], FRAMINGS[1:]))
    pairs = [
        Scene((_cast(i, 70), _cast(i + 4, 75)), STYLES[i % 7], PLACES[(i + 1) % 10], relation=word, seed=i)
        for i, word in enumerate(["next to", "in front of"] * 5)
    ]
    found.append(_row("relations", [render(pair) for pair in pairs], [pair.relation for pair in pairs]))
    painted = [Scene((), "artwork", artwork=named_artwork(name).name, seed=1) for name in ARTWORKS[:5]]
    painted += [Scene((), "artwork", artwork=sample_artwork(i).name, seed=1) for i in range(5)]
    found.append(_row("artworks: named, held-out", [render(p) for p in painted], [p.artwork for p in painted]))
    inspired = [Scene((_cast(i, 30),), "artwork", PLACES[i], artwork=p.artwork, seed=2) for i, p in enumerate(painted)]
    found.append(_row("inspired by them", [render(scene) for scene in inspired], [p.artwork for p in painted]))
    for superclass in ("cat", "robot"):
        shots = [picture for picture, _ in photos(superclass, 1234, 4)]
        prompts = [
            "a sketch of a {} in the snow", "a photo of a {} wearing a red hat at night", "a neon sign of a {}",
            "an oil painting of a {} on the beach", "a {} next to a car in the city", "a cartoon of a {} in the forest",
        ]  # fmt: skip
        identity = sample_identity(superclass, 1234, "heldout")
        shots += [render(scene_for(identity, prompt, 7)) for prompt in prompts]
        words = ["photo"] * 4 + ["true render"] * 6
        found.append(_row(f"one held-out {superclass}: photos, then true renders of prompts", shots, words))
    return found


def main(path: str = "docs/tinyworld.png") -> None:
    """Writes the sheet."""
    strips = rows()
    sheet = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)), _PAPER)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws the sheet of the tiny world.")
    parser.add_argument("path", nargs="?", default="docs/tinyworld.png", help="the PNG file to write")
    main(parser.parse_args().path)

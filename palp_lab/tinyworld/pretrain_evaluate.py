"""What the pretrained models can do: samples of prompts never seen in training, read by the element reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palp_lab.metrics.reader import ElementReader
from palp_lab.tinyworld.factors import CLASSES
from palp_lab.tinyworld.oracle import scene_from
from palp_lab.tinyworld.parse import parse
from palp_lab.tinyworld.prompts import GROUPS
from palp_lab.tinyworld.render import render

GUIDANCE, STEPS = 5.0, 25
"""The setting the quality of the generator is stated at."""

REAL_GOAL = 0.97
"""Share of prompted elements the reader is to find on true renders. Ours."""

GOALS = {"style": 0.90, "place": 0.90, "class": 0.85, "accessory": 0.75}
"""Shares of prompted elements to reach on combinations never seen in training. Ours."""


def prompts(groups: Sequence[str] = tuple(GROUPS)) -> list[str]:
    """Every evaluation sentence with every class in its slot, where that is not the sentence's own second class."""
    texts = [prompt.fill(name) for group in groups for prompt in GROUPS[group] for name in CLASSES]
    return [text for text in texts if len(set(parse(text).classes)) == len(parse(text).classes)]


@torch.no_grad()
def sample(pipeline: Any, texts: Sequence[str], seed: int = 0, batch: int = 20) -> Tensor:
    """One picture per prompt, uint8 [n 3 64 64]; picture i starts from the noise of ``seed`` and i."""
    pipeline.set_progress_bar_config(disable=True)
    out = []
    for start in range(0, len(texts), batch):
        part = list(texts[start : start + batch])
        noise = [torch.Generator().manual_seed(seed * 1_000_000 + start + i) for i in range(len(part))]
        images = pipeline(
            part,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=noise,
            output_type="np",
            height=64,
            width=64,
        ).images
        out.append(torch.from_numpy((images * 255).round().astype(np.uint8)).permute(0, 3, 1, 2))
    return torch.cat(out)


def elements_found(reader: ElementReader, images: Tensor, texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Share of prompted elements the reader finds, by kind; ``n`` counts what was asked for.

    An accessory counts as found when it is there; "accessory with colour" asks for its colour as well.
    """
    words = reader.words(images)
    counts: dict[str, list[bool]] = {}

    def note(kind: str, hit: bool) -> None:
        counts.setdefault(kind, []).append(hit)

    for i, text in enumerate(texts):
        asked = parse(text)
        note("style", words["style"][i] == (asked.style or "photo"))
        if asked.place:
            note("place", words["place"][i] == asked.place)
        # Side by side nobody is first, so that a class is found in either place.
        shown = {words["class_"][i], words["second_class"][i]}
        if asked.classes:
            note("class", asked.classes[0] in shown)
        if len(asked.classes) > 1:
            note("second class", asked.classes[1] in shown)
            note("both classes", shown == set(asked.classes))
            note("relation", words["relation"][i] == asked.relation)
        if asked.framing:
            note("framing", words["framing"][i] == asked.framing)
        for name, colour in asked.accessories:
            note("accessory", words[name][i] != "none")
            note("accessory with colour", words[name][i] == colour)
    return {kind: {"found": round(float(np.mean(hits)), 4), "n": len(hits)} for kind, hits in counts.items()}


def true_renders(texts: Sequence[str]) -> Tensor:
    """What a perfect generator would draw, one render a prompt, uint8 [n 3 64 64]: the reader's ceiling on prompts."""
    pictures = np.stack([render(scene_from(text, i)) for i, text in enumerate(texts)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def sheet(images: Tensor, texts: Sequence[str], path: Path, columns: int = 6, scale: int = 3) -> None:
    """A labelled contact sheet."""
    import textwrap

    from PIL import Image, ImageDraw

    side, caption = 64 * scale, 44
    rows = -(-len(texts) // columns)
    page = Image.new("RGB", (columns * (side + 8) + 8, rows * (side + caption) + 8), "white")
    pen = ImageDraw.Draw(page)
    for i, text in enumerate(texts):
        x, y = 8 + (i % columns) * (side + 8), 8 + (i // columns) * (side + caption)
        picture = Image.fromarray(images[i].permute(1, 2, 0).numpy())
        page.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (x, y))
        for line, words in enumerate(textwrap.wrap(text, 32)[:3]):
            pen.text((x, y + side + 2 + 12 * line), words, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, optimize=True)


def sheet_prompts() -> list[str]:
    """The 42 prompts of the sheet: never seen in training, each class several times."""
    texts = [prompt.text for group in ("style", "same_style", "framing", "relation") for prompt in GROUPS[group]]
    chosen = [text.replace("{}", CLASSES[(3 * i + i // 10) % len(CLASSES)]) for i, text in enumerate(texts)]
    more = [
        "a photo of a striped red and white cat",
        "an artwork inspired by waves",
        "a photo of a cat in the city inspired by candy",
        "a blueprint of a car",
        "a cartoon of a green dog wearing a yellow crown and holding a red balloon in a meadow",
    ]
    return [text for text in chosen if len(set(parse(text).classes)) == len(parse(text).classes)] + more

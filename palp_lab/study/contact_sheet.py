"""The contact sheet: the training photos, below them methods down and prompts across; and the strip over steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from palp_lab.study.drawing import INK, MUTED, PAPER, put_picture, put_text, wrapped

EDGE = 128
"""Edge of a picture on the sheet, in pixels: the tiny world's 64 at 2× (ours)."""
GAP, SPACE, LABEL, HEAD, LINE = 4, 14, 150, 76, 19
PHOTOS = 6
"""Training photos shown of a concept, as many as a method is mostly given (ours); the sheet says of how many."""


@dataclass(frozen=True)
class Row:
    """One method (or bound): its name, a second line, and per prompt its pictures. An `accent` colours the name."""

    label: str
    note: str
    pictures: tuple[tuple[Path, ...], ...]
    accent: str = INK


@dataclass(frozen=True)
class Block:
    """One concept: a heading, its training photos in a row of their own, its rows."""

    heading: str
    photos: tuple[Path, ...]
    rows: tuple[Row, ...]


def contact_sheet(prompts: Sequence[str], blocks: Sequence[Block], per_cell: int = 2) -> Image.Image:
    """Draw the sheet. Every row has one entry per prompt, with up to `per_cell` pictures each."""
    cell = per_cell * EDGE + (per_cell - 1) * GAP
    left = SPACE + LABEL
    photos = max((len(block.photos[:PHOTOS]) for block in blocks), default=0)
    width = left + max(len(prompts) * (cell + SPACE), photos * (EDGE + GAP) - GAP + SPACE)
    said = [prompt.replace("{}", "[…]") for prompt in prompts]
    words = LINE * max((len(wrapped(prompt, cell, 14, bold=True)) for prompt in said), default=0) + SPACE
    heights = [_block_height(block, words) for block in blocks]
    sheet = Image.new("RGB", (width, SPACE + sum(heights)), PAPER)
    top = SPACE
    for block, height in zip(blocks, heights, strict=True):
        _draw_block(sheet, block, said, top, left, cell, per_cell, words)
        top += height
    return sheet


def strip(rows: Sequence[tuple[str, dict[int, Path], str]], caption: str) -> Image.Image:
    """One-step estimates over training: a row per method (name, step → picture, accent), a column per step.

    A row with a single picture (the base model, which does not train) is drawn once and needs no steps.
    Source: arXiv 2401.06105, Fig. 5.
    """
    steps = sorted({step for _, pictures, _ in rows if len(pictures) > 1 for step in pictures})
    columns = max(1, len(steps))
    width = LABEL + SPACE + columns * (EDGE + GAP) + SPACE
    sheet = Image.new("RGB", (max(width, 560), HEAD + 26 + len(rows) * (EDGE + SPACE)), PAPER)
    put_text(sheet, caption, SPACE, 12, sheet.width - 2 * SPACE, 13, INK)
    for i, step in enumerate(steps):
        words = "before training" if step == 0 else f"step {step}"
        put_text(sheet, words, LABEL + i * (EDGE + GAP), HEAD, EDGE, 12, MUTED)
    top = HEAD + 26
    for name, pictures, accent in rows:
        put_text(sheet, name, SPACE, top + 6, LABEL - SPACE - 6, 14, accent, bold=True)
        if len(pictures) == 1:
            put_picture(sheet, next(iter(pictures.values())), LABEL, top, EDGE)
            if len(steps) > 1:
                put_text(sheet, "not trained: the same at every step", LABEL + EDGE + SPACE, top + 6, EDGE, 12, MUTED)
        else:
            for i, step in enumerate(steps):
                put_picture(sheet, pictures.get(step), LABEL + i * (EDGE + GAP), top, EDGE)
        top += EDGE + SPACE
    return sheet


def _block_height(block: Block, words: int) -> int:
    return 34 + (len(block.rows) + bool(block.photos)) * (EDGE + SPACE) + words + SPACE


def _draw_block(
    sheet: Image.Image, block: Block, prompts: Sequence[str], top: int, left: int, cell: int, per_cell: int, words: int
) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.line((SPACE, top, sheet.width - SPACE, top), fill="#d9dde1", width=1)
    put_text(sheet, block.heading, SPACE, top + 8, sheet.width - 2 * SPACE, 14, INK, bold=True)
    top += 34
    if block.photos:
        of = f" ({PHOTOS} of {len(block.photos)})" if len(block.photos) > PHOTOS else ""
        put_text(sheet, f"training photos{of}", SPACE, top + 6, LABEL - SPACE, 14, MUTED, bold=True)
        for i, photo in enumerate(block.photos[:PHOTOS]):
            put_picture(sheet, photo, left + i * (EDGE + GAP), top, EDGE)
        top += EDGE + SPACE
    for i, prompt in enumerate(prompts):
        put_text(sheet, prompt, left + i * (cell + SPACE), top, cell, 14, INK, bold=True)
    top += words
    for i, row in enumerate(block.rows):
        y = top + i * (EDGE + SPACE)
        below = put_text(sheet, row.label, left - LABEL, y + 6, LABEL - SPACE, 14, row.accent, bold=True)
        put_text(sheet, row.note, left - LABEL, below + 3, LABEL - SPACE, 11, MUTED)
        for j in range(len(prompts)):
            pictures: tuple[Path | None, ...] = row.pictures[j][:per_cell] or (None,)
            for k, picture in enumerate(pictures):
                put_picture(sheet, picture, left + j * (cell + SPACE) + k * (EDGE + GAP), y, EDGE)

"""Pictures in a grid with words around them: what contact sheet and strip share."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, MUTED, EMPTY = "#ffffff", "#1f2328", "#6a7178", "#eef0f2"
SMALL = 128
"""Pictures up to this edge are enlarged by whole factors with hard pixels: what was generated is what is seen."""


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries, so that every machine draws the same letters."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def open_square(path: Path, edge: int) -> Image.Image | None:
    """A picture centre-cropped to a square of `edge` pixels; None where the file is missing or no picture."""
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    if side <= SMALL and edge % side == 0:
        return square.resize((edge, edge), Image.Resampling.NEAREST)
    return square.resize((edge, edge), Image.Resampling.LANCZOS)


def put_picture(sheet: Image.Image, path: Path | None, left: int, top: int, edge: int) -> None:
    """Paste a picture; where there is none, an empty field that says so."""
    picture = open_square(path, edge) if path is not None else None
    if picture is not None:
        sheet.paste(picture, (left, top))
        return
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, left + edge - 1, top + edge - 1), fill=EMPTY)
    draw.text(
        (left + edge / 2, top + edge / 2), "no picture" if path is None else "missing", MUTED, font(11), anchor="mm"
    )


def wrapped(text: str, width: int, size: int, bold: bool = False, lines: int = 4) -> list[str]:
    """The text in lines of at most `width` pixels; a word that is longer is broken, and what does not fit in `lines`
    ends in an ellipsis."""
    rows: list[str] = []
    for word in _broken(text.split(), width, font(size, bold)):
        longer = f"{rows[-1]} {word}" if rows else word
        if rows and font(size, bold).getlength(longer) <= width:
            rows[-1] = longer
        else:
            rows.append(word)
    if len(rows) > lines:
        rows = [*rows[: lines - 1], rows[lines - 1] + " …"]
    return rows


def _broken(texts: Iterable[str], width: int, face: ImageFont.FreeTypeFont) -> Iterator[str]:
    for word in texts:
        left = word
        while len(left) > 1 and face.getlength(left) > width:
            fits = max(1, next(i for i in range(len(left), -1, -1) if face.getlength(left[:i]) <= width))
            yield left[:fits]
            left = left[fits:]
        yield left


def put_text(
    sheet: Image.Image,
    text: str,
    left: int,
    top: int,
    width: int,
    size: int = 13,
    colour: str = INK,
    bold: bool = False,
) -> int:
    """Write wrapped text and return the y below it."""
    draw = ImageDraw.Draw(sheet)
    for row in wrapped(text, width, size, bold):
        draw.text((left, top), row, colour, font(size, bold))
        top += round(size * 1.35)
    return top


def png_of(sheet: Image.Image) -> bytes:
    """The sheet as PNG bytes."""
    stream = io.BytesIO()
    sheet.save(stream, format="PNG", optimize=True)
    return stream.getvalue()

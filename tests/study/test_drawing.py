"""Sheets, strips and labels: the right picture at the right place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from palp_lab.study.contact_sheet import EDGE, Block, Row, contact_sheet, strip
from palp_lab.study.drawing import EMPTY, font, open_square, wrapped
from palp_lab.study.figure import new_figure
from palp_lab.study.labels import Label, place


def picture(path: Path, colour: str, size: tuple[int, int] = (64, 64)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == colour).all(-1).sum())


def test_every_picture_of_the_sheet_is_there_at_twice_its_size(tmp_path: Path) -> None:
    red, green, blue = (picture(tmp_path / f"{name}.png", name) for name in ("red", "lime", "blue"))
    rows = (Row("one", "step 1", ((red, red, red), (green,))), Row("two", "", ((blue,), ())))
    sheet = contact_sheet(["a {}", "b {}"], [Block("cat", (blue, tmp_path / "gone.png"), rows)], per_cell=2)
    assert count(sheet, (255, 0, 0)) == 2 * EDGE**2, "no more than per_cell"
    assert count(sheet, (0, 255, 0)) == EDGE**2
    assert count(sheet, (0, 0, 255)) == 2 * EDGE**2
    empty = tuple(int(EMPTY[i : i + 2], 16) for i in (1, 3, 5))
    assert count(sheet, (empty[0], empty[1], empty[2])) > EDGE**2, "a missing and an empty field are drawn as such"


def test_photos_have_a_row_of_their_own_as_wide_as_it_must_be(tmp_path: Path) -> None:
    red, blue = picture(tmp_path / "red.png", "red"), picture(tmp_path / "blue.png", "blue")
    rows = (Row("one", "", ((red, red),)),)
    sheet = contact_sheet(["a {}"], [Block("cat", (blue,) * 7, rows)])
    assert count(sheet, (0, 0, 255)) == 6 * EDGE**2 and count(sheet, (255, 0, 0)) == 2 * EDGE**2
    pixels = np.asarray(sheet)
    lowest = np.flatnonzero((pixels == (0, 0, 255)).all(-1).any(1)).max()
    assert lowest < np.flatnonzero((pixels == (255, 0, 0)).all(-1).any(1)).min(), "no photo beside a method"
    bare = contact_sheet(["a {}"], [Block("cat", (), rows)])
    assert bare.width < sheet.width and bare.height < sheet.height


def test_small_pictures_keep_hard_pixels_and_large_ones_are_cropped(tmp_path: Path) -> None:
    checks = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype("uint8")).convert("RGB")
    checks.save(tmp_path / "checks.png")
    shown = open_square(tmp_path / "checks.png", EDGE)
    assert shown is not None and set(np.unique(np.asarray(shown))) == {0, 255}
    wide = Image.new("RGB", (600, 300), "red")
    wide.paste((0, 0, 255), (150, 0, 450, 300))
    wide.save(tmp_path / "wide.png")
    middle = open_square(tmp_path / "wide.png", EDGE)
    assert middle is not None and count(middle, (0, 0, 255)) == EDGE**2


@pytest.mark.parametrize("content", [b"", b"no picture at all"])
def test_what_is_no_picture_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    assert open_square(tmp_path / "bad.png", EDGE) is None


def test_the_strip_has_a_column_per_step_and_the_base_once(tmp_path: Path) -> None:
    red, blue = picture(tmp_path / "r.png", "red"), picture(tmp_path / "b.png", "blue")
    rows = [("base model", {0: blue}, "#000000"), ("PALP", {0: red, 100: red, 500: red}, "#D55E00")]
    sheet = strip(rows, "same noise")
    assert count(sheet, (0, 0, 255)) == EDGE**2
    assert count(sheet, (255, 0, 0)) == 3 * EDGE**2


def test_words_are_wrapped_to_the_width() -> None:
    rows = wrapped("a photo of a very long prompt that never seems to end at all and goes on", 120, 13)
    assert len(rows) == 4 and rows[-1].endswith("…")
    assert all(font(13).getlength(row) <= 160 for row in rows)
    assert " ".join(wrapped("a b c", 500, 13)) == "a b c"
    long = "no_space_anywhere_in_this_name_of_a_method"
    broken = wrapped(long, 120, 13)
    assert "".join(broken) == long and all(font(13).getlength(row) <= 120 for row in broken)


def test_labels_do_not_lie_on_each_other() -> None:
    figure, (plane,) = new_figure(6, 4)
    points = [(0.5 + 0.01 * i, 0.5 + 0.01 * i) for i in range(6)]
    plane.plot(*zip(*points, strict=True))
    plane.set_xlim(0, 1)
    plane.set_ylim(0, 1)
    figure.canvas.draw()
    place(plane, [Label(f"label {i}", x, y, {"fontsize": 9}) for i, (x, y) in enumerate(points)], points)
    boxes = [text.get_window_extent() for text in plane.texts]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_an_optional_label_without_room_is_dropped() -> None:
    figure, (plane,) = new_figure(2, 1.4)
    plane.plot([0.5], [0.5])
    figure.canvas.draw()
    crowd = [Label("a rather long label", 0.5, 0.5, {"fontsize": 12}, optional=True)] * 30
    place(plane, crowd, [(0.5, 0.5)])
    assert len(plane.texts) < 30

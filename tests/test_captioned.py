"""Captioned pictures: read as imagefolder has them, or drawn by the tiny world."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from palp_lab.captioned import folder_pairs, read_captions, tiny_pairs
from palp_lab.types import UserError


def folder(path: Path) -> Path:
    for i, size in enumerate(((40, 40), (50, 36))):
        Image.new("RGB", size, (40 * i, 90, 200)).save(path / f"{i}.png")
    return path


def test_captions_are_read_as_imagefolder_has_them_or_from_a_table(tmp_path: Path) -> None:
    place = folder(tmp_path)
    table = {"0.png": "a blue square", "1.png": "a blue oblong"}
    (place / "captions.json").write_text(json.dumps(table))
    pairs = folder_pairs(str(place))
    assert pairs is not None
    assert [tuple(picture.shape) for picture in pairs.pictures] == [(3, 40, 40), (3, 36, 50)]
    assert pairs.captions == list(table.values())
    lines = [json.dumps({"file_name": name, "text": words}) for name, words in table.items()]
    (place / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    again = folder_pairs(str(place))
    assert again is not None and again.fingerprint == pairs.fingerprint
    Image.new("RGB", (40, 40), (1, 2, 3)).save(place / "0.png")
    changed = folder_pairs(str(place))
    assert changed is not None and changed.fingerprint != pairs.fingerprint
    fewer = folder_pairs(str(place), count=1)
    assert fewer is not None and fewer.captions == ["a blue square"]
    assert folder_pairs() is None


def test_a_caption_may_hold_any_separator_of_lines(tmp_path: Path) -> None:
    said = {"0.png": "a blue square\u2028on grass", "1.png": "an oblong\x85alone"}
    lines = [json.dumps({"file_name": name, "text": words}, ensure_ascii=False) for name, words in said.items()]
    (tmp_path / "metadata.jsonl").write_bytes("\r\n".join(lines).encode())
    assert read_captions(tmp_path) == said


@pytest.mark.parametrize("name", ["captions.json", "metadata.jsonl"])
def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path: Path, name: str) -> None:
    """Editors of Windows write one."""
    said = {"captions.json": '{"0.png": "a cat"}', "metadata.jsonl": '{"file_name": "0.png", "text": "a cat"}\n'}
    (tmp_path / name).write_text(said[name], encoding="utf-8-sig")
    assert read_captions(tmp_path) == {"0.png": "a cat"}


def test_a_folder_without_captions_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        folder_pairs(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"metadata\.jsonl nor captions\.json"):
        folder_pairs(str(tmp_path))
    (tmp_path / "captions.json").write_text('{"9.png": "a cat"}')
    with pytest.raises(UserError, match=r"9\.png: has a caption but is not there"):
        folder_pairs(str(tmp_path))
    (tmp_path / "metadata.jsonl").write_text('{"file": "a.png"}\n')
    with pytest.raises(UserError, match="each line must be"):
        read_captions(tmp_path)


def test_the_tiny_worlds_pairs_are_the_same_every_time() -> None:
    one, two = tiny_pairs(3), tiny_pairs(3)
    assert one.fingerprint == two.fingerprint
    assert [tuple(p.shape) for p in one.pictures] == [(3, 64, 64)] * 3
    assert len(set(one.captions)) == 3

"""Photos with a metadata.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palp_lab.dataset.imagefolder import METADATA, ImageFolderDataset
from tests.dataset.pictures import photo, photos, said


def metadata(folder: Path, **texts: str) -> Path:
    lines = [json.dumps({"file_name": f"{name[1:]}.png", "text": text}) for name, text in texts.items()]
    (folder / METADATA).write_text("\n".join(lines) + "\n\n")
    return folder


def open_folder(path: Path, **how: object) -> ImageFolderDataset:
    return ImageFolderDataset(str(path), "cat", **{"resolution": 32, "captions": True, **how})  # type: ignore[arg-type]


@pytest.mark.parametrize("inside", [".", "train"])
def test_each_photo_keeps_its_own_caption(tmp_path: Path, inside: str) -> None:
    """The lines come in any order, the photos by name."""
    folder = metadata(photos(tmp_path / inside, 3), _02="my sks cat", _00="a photo of <v>", _01="a cat on a sofa")
    concept = open_folder(tmp_path, token="sks").concept()
    assert concept.captions == ("a photo of {}", "a {} on a sofa", "my {}")
    assert [about.file for about in concept.pictures] == ["00.png", "01.png", "02.png"]
    assert concept.name == tmp_path.name
    assert open_folder(tmp_path, captions=False).concept().captions is None
    photo(folder / "02_mask.png")
    assert "has no mask" in said(open_folder(tmp_path, token="sks").concept)


def test_another_column(tmp_path: Path) -> None:
    photos(tmp_path, 1)
    (tmp_path / METADATA).write_text('{"file_name": "00.png", "prompt": "a cat"}')
    assert open_folder(tmp_path, column="prompt").concept().captions == ("a {}",)
    assert "00.png: has no text under 'text' (it has file_name, prompt)" in said(open_folder(tmp_path).concept)


def test_photos_in_folders_below(tmp_path: Path) -> None:
    photo(tmp_path / "a/x.png")
    (tmp_path / METADATA).write_text('{"file_name": "a/x.png", "text": "a cat"}')
    photo(tmp_path / "y.png")
    assert "says nothing of y.png" in said(open_folder(tmp_path).concept)
    (tmp_path / "y.png").unlink()
    assert open_folder(tmp_path).concept().captions == ("a {}",)


def test_a_name_may_be_written_as_a_path(tmp_path: Path) -> None:
    photo(tmp_path / "a/x.png")
    photo(tmp_path / "y.png", seed=1)
    names = ("./a/x.png", "./y.png")
    (tmp_path / METADATA).write_text("\n".join(f'{{"file_name": "{name}", "text": "a cat"}}' for name in names))
    concept = open_folder(tmp_path).concept()
    assert [about.file for about in concept.pictures] == ["x.png", "y.png"] and concept.captions == ("a {}", "a {}")


def test_what_is_refused(tmp_path: Path) -> None:
    assert "no such folder" in said(open_folder(tmp_path / "none").concept)
    folder = photos(tmp_path / "p", 2)
    assert f"has no {METADATA}" in said(open_folder(folder).concept)
    metadata(folder, _00="a cat", _01="a dog")
    assert "01.png: 'a dog' names neither the class word 'cat' nor '<v>'" in said(open_folder(folder).concept)
    metadata(folder, _00="a cat", _01="a cat", _09="a cat")
    assert "09.png is not there; take its line away" in said(open_folder(folder).concept)
    photo(tmp_path / "outside.png")
    (folder / METADATA).write_text('{"file_name": "../outside.png", "text": "a cat"}')
    assert "lies outside its folder" in said(open_folder(folder).concept)
    for text, line in (
        ("", "is empty"),
        ("{", "entry 1: is not valid JSON"),
        ('{"text": "a cat"}', "entry 1: has no file_name"),
        ('{"file_name": "00.png"}\n{"file_name": "00.png"}', "entry 2: names 00.png a second time"),
        ('{"file_name": "00.png"}\n{"file_name": "./00.png"}', "entry 2: names 00.png a second time"),
        (f'{{"file_name": "{folder / "00.png"}"}}', "entry 1: /"),
    ):
        (folder / METADATA).write_text(text)
        assert line in said(open_folder(folder).concept)

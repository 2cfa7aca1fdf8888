"""Folders named as kohya's trainers want them."""

from __future__ import annotations

from pathlib import Path

import pytest

from palp_lab.dataset.kohya import KohyaDataset, read_name
from tests.dataset.pictures import photos, said


def open_folder(path: Path, **how: object) -> KohyaDataset:
    return KohyaDataset(str(path), **{"resolution": 32, "captions": True, **how})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("10_sks cat", (10, "sks", "cat")),
        ("1_ohwx stuffed animal", (1, "ohwx", "stuffed animal")),
        ("5_my_cat", (5, "my_cat", None)),
    ],
)
def test_names(name: str, parts: tuple[int, str, str | None]) -> None:
    assert read_name(name) == parts


def test_token_and_class_from_the_name(tmp_path: Path) -> None:
    folder = photos(tmp_path / "10_sks cat", 3)
    (folder / "01.txt").write_text("a photo of sks cat, on a sofa")
    for path in (tmp_path, folder):
        concept = open_folder(path).concept()
        assert (concept.name, concept.superclass) == ("sks cat", "cat")
        assert concept.captions == ("{}", "a photo of {}, on a sofa", "{}")
        assert concept.notes["folder"] == "10_sks cat: token sks, class cat, repeats 10 (of no effect alone)"
    assert open_folder(tmp_path, captions=False).concept().captions is None


def test_one_of_several(tmp_path: Path) -> None:
    photos(tmp_path / "10_sks cat", 1)
    photos(tmp_path / "5_ohwx", 1)
    assert "holds '10_sks cat', '5_ohwx'; one is learned at a time" in said(open_folder(tmp_path).concept)
    assert "names none; give dataset.superclass" in said(open_folder(tmp_path, folder="5_ohwx").concept)
    assert open_folder(tmp_path, folder="5_ohwx", superclass="dog").concept().superclass == "dog"
    assert "dataset.folder=7_no: there is no such folder" in said(open_folder(tmp_path, folder="7_no").concept)
    (tmp_path / "plain").mkdir()
    assert "must be repeats_token class" in said(open_folder(tmp_path, folder="plain").concept)
    assert "holds no folder named as kohya's are" in said(open_folder(tmp_path / "plain").concept)
    assert "no such folder" in said(open_folder(tmp_path / "none").concept)


def test_captions_end_as_kohyas_do_by_default(tmp_path: Path) -> None:
    folder = photos(tmp_path / "10_sks cat", 3)
    (folder / "01.caption").write_text("a photo of sks cat, on a sofa")
    concept = open_folder(folder).concept()
    assert concept.captions == ("{}", "a photo of {}, on a sofa", "{}") and concept.token == "sks"
    assert concept.notes["captions"] == "1 of 3 photos have one of their own"
    (folder / "01.txt").write_text("another")
    assert "01.caption: 01.txt says what" in said(open_folder(folder).concept)

"""Folders of photos as people have them."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from palp_lab import keys
from palp_lab.dataset.folder import FolderDataset
from tests.dataset.pictures import photo, photos, said


def folder(path: Path, **how: object) -> FolderDataset:
    return FolderDataset(str(path), "cat", resolution=32, **how)  # type: ignore[arg-type]


def test_photos_in_the_order_of_their_names(tmp_path: Path) -> None:
    photo(tmp_path / "b.png", (64, 32))
    Image.new("RGB", (32, 32), (9, 8, 7)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    concept = folder(tmp_path).concept()
    assert concept.photos.shape == (2, 3, 32, 32)
    assert concept.photos.dtype == torch.uint8
    assert concept.photos[0].float().mean((1, 2)).tolist() == [9, 8, 7]
    assert [about.file for about in concept.pictures] == ["a.png", "b.png"]
    assert (concept.name, concept.superclass, concept.placeholder) == (tmp_path.name, "cat", "<v>")


def test_the_digest_is_of_the_pixels(tmp_path: Path) -> None:
    for name in ("one", "two"):
        photo(tmp_path / name / "x.png")
    first = folder(tmp_path / "one").concept().digest
    assert first == folder(tmp_path / "two").concept().digest
    Image.new("RGB", (40, 40)).save(tmp_path / "two/x.png")
    assert first != folder(tmp_path / "two").concept().digest


def test_pictures_of_the_class(tmp_path: Path) -> None:
    photos(tmp_path / "train", 2)
    photos(tmp_path / "class", 3)
    dataset = folder(tmp_path / "train", class_folder=str(tmp_path / "class"))
    assert len(dataset.class_renders(range(9))) == 3
    assert len(dataset.class_renders(range(2))) == 2
    assert folder(tmp_path / "train").class_renders(range(9)) is None


def test_other_pictures_under_the_same_name_are_other_inputs(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "other", "class")):
        photo(tmp_path / name / "a.png", seed=number)
    dataset = folder(tmp_path / "train", held_out=str(tmp_path / "other"), class_folder=str(tmp_path / "class"))
    before = dataset.concept()
    train, scores = keys.describe_concept(before), keys.score_inputs({}, [], before)
    Image.new("RGB", (40, 40)).save(tmp_path / "other" / "a.png")
    assert keys.describe_concept(dataset.concept()) == train, "held-out photos train nothing"
    assert keys.score_inputs({}, [], dataset.concept()) != scores
    Image.new("RGB", (40, 40), "red").save(tmp_path / "class" / "a.png")
    assert keys.describe_concept(dataset.concept()) != train


def test_what_is_missing_is_said_in_a_line(tmp_path: Path) -> None:
    assert said(folder(tmp_path / "none").concept) == f"dataset.path={tmp_path / 'none'}: no such folder"
    assert "give the folder of photos" in said(FolderDataset(None, "cat").concept)
    assert "dataset.superclass: has no value" in said(FolderDataset(str(tmp_path), " ").concept)
    photo(tmp_path / "x_mask.png")
    assert "holds masks only" in said(folder(tmp_path).concept)


def test_one_bad_photo_among_good_ones_is_named(tmp_path: Path) -> None:
    photos(tmp_path, 2)
    (tmp_path / "02.jpg").write_bytes(b"torn")
    assert f"{tmp_path / '02.jpg'}: cannot be read as a picture" in said(folder(tmp_path).concept)
    photo(tmp_path / "02.jpg", (200, 100))
    assert "02.jpg: 200 x 100 pixels are too many" in said(folder(tmp_path, most_pixels=10_000).concept)

"""Folders of photos as people have them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from palp_lab import keys
from palp_lab.dataset.dreambench import DreamBenchDataset
from palp_lab.dataset.folder import FolderDataset
from palp_lab.types import UserError


def photo(path: Path, size: tuple[int, int] = (60, 40), mode: str = "RGB", **how: object) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **how)  # type: ignore[arg-type]
    return path


def folder(path: Path, **how: object) -> FolderDataset:
    return FolderDataset(str(path), "cat", resolution=32, **how)  # type: ignore[arg-type]


def test_photos_in_the_order_of_their_names_cut_to_the_middle(tmp_path: Path) -> None:
    photo(tmp_path / "b.png", (64, 32))
    Image.new("RGB", (32, 32), (9, 8, 7)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    photo(tmp_path / ".hidden.png")
    concept = folder(tmp_path).concept()
    assert concept.photos.shape == (2, 3, 32, 32)
    assert concept.photos.dtype == torch.uint8
    assert concept.photos[0].float().mean((1, 2)).tolist() == [9, 8, 7]
    whole = torch.from_numpy(np.array(Image.open(tmp_path / "b.png"))).permute(2, 0, 1)
    assert torch.equal(concept.photos[1], whole[:, :, 16:48])
    assert list(concept.notes) == ["b.png"]
    assert "64 x 32 cut to the middle 32 x 32" in concept.notes["b.png"]
    assert (concept.name, concept.superclass, concept.placeholder) == (tmp_path.name, "cat", "<v>")


def test_the_digest_is_of_the_pixels(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        photo(tmp_path / name / "x.png")
    first = folder(tmp_path / "one").concept().digest
    assert first == folder(tmp_path / "two").concept().digest
    Image.new("RGB", (40, 40)).save(tmp_path / "two/x.png")
    assert first != folder(tmp_path / "two").concept().digest


def test_exif_turns_a_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image = Image.new("RGB", (32, 32), "white")
    image.paste("black", (0, 0, 32, 16))
    image.save(tmp_path / "x.png", exif=exif)
    concept = folder(tmp_path).concept()
    assert concept.photos[0, :, :8].float().mean() > 200
    assert "turned upright" in concept.notes["x.png"]


def test_transparent_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(tmp_path / "x.png")
    concept = folder(tmp_path).concept()
    assert concept.photos.min() == 255
    assert "laid on white" in concept.notes["x.png"]


def test_cmyk_sixteen_bits_grey_and_palette(tmp_path: Path) -> None:
    photo(tmp_path / "cmyk.jpg", mode="CMYK")
    photo(tmp_path / "grey.png", mode="L")
    photo(tmp_path / "palette.png", mode="P")
    deep = np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    concept = folder(tmp_path).concept()
    assert concept.photos.shape[0] == 4
    assert "CMYK" in concept.notes["cmyk.jpg"]
    assert "16 bits" in concept.notes["deep.png"]
    sixteen = concept.photos[1]
    assert sixteen.min() < 30
    assert sixteen.max() > 225


def test_masks_beside_the_photos(tmp_path: Path) -> None:
    photo(tmp_path / "x.png", (32, 32))
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 0, 16, 32))
    mask.save(tmp_path / "x_mask.png")
    concept = folder(tmp_path).concept()
    assert concept.photos.shape[0] == 1
    assert concept.masks is not None
    assert concept.masks[0, :, :16].all()
    assert not concept.masks[0, :, 16:].any()
    photo(tmp_path / "y.png")
    with pytest.raises(UserError, match=r"y\.png: has no y_mask\.png"):
        folder(tmp_path).concept()


def test_other_folders(tmp_path: Path) -> None:
    for name in ("train", "other", "class"):
        (tmp_path / name).mkdir()
        photo(tmp_path / name / "x.png")
        photo(tmp_path / name / "y.png")
    dataset = folder(tmp_path / "train", held_out=str(tmp_path / "other"), class_folder=str(tmp_path / "class"))
    assert dataset.concept().held_out is not None
    assert len(dataset.class_renders(range(9))) == 2
    assert folder(tmp_path / "train").class_renders(range(9)) is None


def test_other_pictures_under_the_same_name_are_other_inputs(tmp_path: Path) -> None:
    for name in ("train", "other", "class"):
        (tmp_path / name).mkdir()
        photo(tmp_path / name / "a.png")
    dataset = folder(tmp_path / "train", held_out=str(tmp_path / "other"), class_folder=str(tmp_path / "class"))
    before = dataset.concept()
    train, scores = keys.describe_concept(before), keys.score_inputs({}, [], before)
    Image.new("RGB", (40, 40)).save(tmp_path / "other" / "a.png")
    assert keys.describe_concept(dataset.concept()) == train, "held-out photos train nothing"
    assert keys.score_inputs({}, [], dataset.concept()) != scores
    Image.new("RGB", (40, 40)).save(tmp_path / "class" / "a.png")
    assert keys.describe_concept(dataset.concept()) != train


def said(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        folder(path).concept()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_folders_are_said_in_a_line(tmp_path: Path) -> None:
    assert said(tmp_path / "none") == f"dataset.path={tmp_path / 'none'}: no such folder"
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in said(tmp_path / "empty")
    assert "is a file" in said(photo(tmp_path / "x.png"))
    with pytest.raises(UserError, match=r"dataset\.superclass"):
        FolderDataset(str(tmp_path), " ")
    with pytest.raises(UserError, match=r"dataset\.path"):
        FolderDataset(None, "cat")


def test_bad_pictures_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "x.png"
    bad.write_bytes(b"")
    assert "x.png: cannot be read as a picture" in said(tmp_path)
    bad.write_bytes(b"not a picture at all")
    assert "x.png: cannot be read as a picture" in said(tmp_path)
    photo(bad)
    bad.write_bytes(bad.read_bytes()[:400])
    assert "x.png: cannot be read as a picture" in said(tmp_path)
    photo(bad, (60, 8))
    assert "x.png: 60 x 8 pixels are too few" in said(tmp_path)
    Image.new("1", (20000, 20000)).save(bad)
    assert "x.png: has too many pixels" in said(tmp_path)
    Image.new("1", (12000, 10000)).save(bad)
    assert "x.png: 12000 x 10000 pixels are too many" in said(tmp_path)
    bad.unlink()
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert "x.gif: is animated" in said(tmp_path)


def test_the_dreambooth_table(tmp_path: Path) -> None:
    (tmp_path / "prompts_and_classes.txt").write_text(
        "Classes\n\nsubject_name,class\ncat,cat\nbear,stuffed animal\n\nP"
    )
    (tmp_path / "bear").mkdir()
    photo(tmp_path / "bear/00.jpg")
    concept = DreamBenchDataset(str(tmp_path), "bear", resolution=32).concept()
    assert (concept.name, concept.superclass) == ("bear", "stuffed animal")
    with pytest.raises(UserError, match=r"dataset\.subject=dog: must be one of bear, cat"):
        DreamBenchDataset(str(tmp_path), "dog")
    with pytest.raises(UserError, match=r"dataset\.root"):
        DreamBenchDataset(None)


@pytest.mark.skipif("PALP_LAB_DATA" not in os.environ, reason="PALP_LAB_DATA names no folder of real photos")
def test_real_photos() -> None:
    root = Path(os.environ["PALP_LAB_DATA"]) / "dreambench"
    if not root.is_dir():
        pytest.skip("no dreambench there")
    concept = DreamBenchDataset(str(root), "dog", resolution=64).concept()
    assert concept.superclass == "dog"
    assert len(concept.photos) >= 4

"""Masks beside the photos, in a folder, and from a segmentation model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from palp_lab.dataset import masks as masks_module
from palp_lab.dataset.folder import FolderDataset
from palp_lab.dataset.tiny import TinyDataset
from tests.dataset.pictures import photo, photos, said
from tests.model.test_segmentation import save_random_clipseg


def folder(path: Path, **how: object) -> FolderDataset:
    return FolderDataset(str(path), "cat", **{"resolution": 40, **how})  # type: ignore[arg-type]


def left_half(path: Path, size: tuple[int, int] = (60, 40), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new(mode, size, 0)
    mask.paste(255 if mode == "L" else (255, 255, 255, 255), (0, 0, size[0] // 2, size[1]))
    mask.save(path)
    return path


def is_left_half(mask: torch.Tensor) -> bool:
    return bool(mask[:, :20].all()) and not bool(mask[:, 20:].any())


@pytest.mark.parametrize("name", ["00_mask.png", "00-masklabel.png", "00_MASK.PNG", "00_Mask.png"])
def test_beside_the_photos(tmp_path: Path, name: str) -> None:
    photos(tmp_path, 1)
    left_half(tmp_path / name)
    concept = folder(tmp_path).concept()
    assert len(concept.photos) == 1
    assert is_left_half(concept.masks[0]), "cut as the photo is"
    assert concept.notes["masks"] == "beside the photos"
    assert concept.pictures[0].masked_share == 0.5


def test_a_mask_is_cut_where_its_photo_is(tmp_path: Path) -> None:
    """The first third of a wide photo is less than a third of its middle square: a squeezed mask would cover more."""
    photos(tmp_path, 1)
    mask = Image.new("L", (60, 40), 0)
    mask.paste(255, (0, 0, 20, 40))
    mask.save(tmp_path / "00_mask.png")
    found = folder(tmp_path).concept().masks
    assert found is not None and found.float().mean() == pytest.approx(10 / 40, abs=0.02)


@pytest.mark.parametrize("name", ["00.png", "00_mask.png"])
def test_in_a_folder_of_their_own(tmp_path: Path, name: str) -> None:
    photos(tmp_path / "photos", 2)
    left_half(tmp_path / "masks" / name, mode="RGBA")  # a cut-out: what is transparent is not the subject
    concept = folder(tmp_path / "photos", masks=str(tmp_path / "masks"), held_out=1).concept()
    assert is_left_half(concept.masks[0])
    assert concept.digest != folder(tmp_path / "photos", held_out=1).concept().digest, "masks are part of the content"
    line = said(folder(tmp_path / "photos", masks=str(tmp_path / "masks")).concept)
    assert f"{tmp_path / 'photos/01.png'}: has no mask 01_mask.png" in line


def test_masks_that_cannot_be(tmp_path: Path) -> None:
    photos(tmp_path, 1)
    left_half(tmp_path / "00_mask.png", (40, 60))
    assert "00_mask.png: is 40 x 60, its photo 60 x 40" in said(folder(tmp_path).concept)
    Image.new("L", (60, 40), 0).save(tmp_path / "00_mask.png")
    assert "00_mask.png: shows no white" in said(folder(tmp_path).concept)
    left_half(tmp_path / "00_mask.png", (120, 80))
    assert is_left_half(folder(tmp_path).concept().masks[0]), "another size of the same shape"
    photo(tmp_path / "01.png")
    assert "01.png: has no mask" in said(folder(tmp_path).concept)


def test_the_tiny_world_has_its_own() -> None:
    concept = TinyDataset("cat", 3, shots=2).concept()
    assert concept.masks.shape == concept.photos[:, 0].shape


def test_from_a_model_and_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "photos", 2)
    model, cache = save_random_clipseg(tmp_path / "clipseg"), tmp_path / "cache"

    def concept(**how: object):
        given = {"segment": str(model), "cache": str(cache), "segment_threshold": 0.5, **how}
        return folder(tmp_path / "photos", **given).concept()

    first = concept()
    assert first.masks.shape == (2, 40, 40)
    assert 0.01 < first.masks.float().mean() < 0.99
    assert first.notes["masks"] == "where a segmentation model finds 'cat' with a likelihood above 0.5"
    kept = sorted(path.name for path in cache.iterdir())
    assert len(kept) == 2
    assert torch.equal(concept(cache=None).masks, first.masks), "kept or not makes no difference"
    asked: list[str] = []
    likelihood = masks_module.TextSegmenter.likelihood
    monkeypatch.setattr(
        masks_module.TextSegmenter,
        "likelihood",
        lambda self, images, words: asked.append(words) or likelihood(self, images, words),
    )
    assert torch.equal(concept().masks, first.masks)
    assert not asked
    assert not torch.equal(concept(segment_threshold=0.51).masks, first.masks)
    assert not asked, "another threshold asks nothing again"
    concept(segment_words="dog")
    assert asked == ["dog", "dog"]
    photo(tmp_path / "photos/01.png", seed=9)
    (cache / kept[0]).write_bytes(b"torn")
    concept()
    assert asked[2:] in (["cat"], ["cat", "cat"]), "another photo, and a damaged file"
    assert "finds 'cat' in" in said(lambda: concept(segment_threshold=0.999))
    assert "segment_threshold=1.0: must lie between 0 and 1" in said(lambda: concept(segment_threshold=1.0))

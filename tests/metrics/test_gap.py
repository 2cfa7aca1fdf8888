"""The modality gap of a network: measured once on captioned pictures, taken out where it is wanted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from palp_lab.captioned import folder_pairs, read_captions, tiny_pairs
from palp_lab.metrics.embedders import ClipEmbedder
from palp_lab.metrics.gap import CorrectedTextAlignment, Pairs, modality_gap
from palp_lab.metrics.protocols import Protocol, References, protocol
from palp_lab.types import UserError
from tests.metrics.conftest import noise_pictures

CAPTIONS = ["a photo of a cat", "a sketch of a dog", "a cat in the snow"]


@pytest.fixture
def measuring(clip_path: Path) -> Protocol:
    pictures = [*noise_pictures(2, seed=11), noise_pictures(1, seed=12, size=(48, 40))[0]]
    return protocol(
        "test", 1, {"clip": ClipEmbedder(clip_path)}, {"text_alignment_corrected": CorrectedTextAlignment()},
        pairs=Pairs(pictures, CAPTIONS),
    )  # fmt: skip


def test_the_gap_is_that_of_all_pairs_whatever_their_size(measuring: Protocol, clip_path: Path) -> None:
    clip = ClipEmbedder(clip_path)
    assert measuring.pairs is not None
    seen = torch.cat([clip.images(picture[None]) for picture in measuring.pairs.pictures])
    gap = measuring.gap("clip")
    assert gap is not None
    torch.testing.assert_close(gap, modality_gap(seen, clip.texts(CAPTIONS)))


def test_the_gap_is_measured_once_and_by_no_one_without_pairs(measuring: Protocol) -> None:
    images = noise_pictures(2)
    gap = measuring.gap("clip")
    assert measuring.gap("clip") is gap
    score = measuring.measure(images, "a {} at night", "cat", References(images))["text_alignment_corrected"]
    assert score.n == 2
    poorer = replace(measuring, pairs=None)
    assert poorer.measure(images, "a {} at night", "cat", References(images))["text_alignment_corrected"].value is None
    assert poorer.gap("clip") is None
    assert "pairs" not in poorer.hashes()


def test_other_pairs_are_another_protocol(measuring: Protocol) -> None:
    pairs = measuring.pairs
    assert pairs is not None
    others = [Pairs(pairs.pictures, CAPTIONS[::-1]), Pairs(pairs.pictures[:2], CAPTIONS[:2])]
    hashes = {replace(measuring, pairs=some).hashes()["pairs"] for some in (pairs, *others)}
    assert len(hashes) == 3


def test_closing_the_gap_of_the_pairs_brings_their_cosines_up(measuring: Protocol) -> None:
    """Away from the subtleties: with features at either end of one axis the plain cosine is -1, the corrected 1."""
    from palp_lab.metrics.alignment import text_alignment
    from palp_lab.metrics.gap import close_gap

    images, texts = torch.tensor([[1.0, 0.2], [1.0, -0.2]]), torch.tensor([[-1.0, 0.2], [-1.0, -0.2]])
    gap = modality_gap(images, texts)
    assert text_alignment(images, texts).max() < -0.9
    assert text_alignment(*close_gap(images, texts, gap)).min() > 0.99


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
    fewer = folder_pairs(str(place), count=1)
    assert fewer is not None and fewer.captions == ["a blue square"]
    assert folder_pairs() is None


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

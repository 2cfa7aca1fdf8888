"""The modality gap of a network: measured once on captioned pictures, taken out where it is wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from palp_lab.metrics.embedders import ClipEmbedder
from palp_lab.metrics.gap import CorrectedTextAlignment, Pairs, modality_gap
from palp_lab.metrics.protocols import Protocol, References, protocol
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


def test_a_large_folder_is_never_held_whole() -> None:
    """Every picture comes once, in stacks of one size, and no more than a few hundred wait at any time."""
    sizes = [(8, 8 + i % 3) for i in range(150)] + [(8, 20 + i) for i in range(300)]
    pictures = [torch.full((3, *size), i % 251, dtype=torch.uint8) for i, size in enumerate(sizes)]
    given, most = [], 0

    class Counted(list):  # type: ignore[type-arg]
        def __getitem__(self, index: int) -> torch.Tensor:  # type: ignore[override]
            given.append(index)
            return super().__getitem__(index)

    came: list[torch.Tensor] = []
    for batch in Pairs(Counted(pictures), ["a cat"] * 450).batches():
        most = max(most, len(given) - len(came))
        came += batch
    assert sorted(given) == list(range(450)) and len(came) == 450 and most <= 256
    assert sorted(int(p[0, 0, 0]) for p in came) == sorted(int(p[0, 0, 0]) for p in pictures)

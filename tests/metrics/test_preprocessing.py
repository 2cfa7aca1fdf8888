"""Preprocessing against transformers' own processor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessorPil

from palp_lab.metrics.preprocessing import Preprocessing, read_preprocessing
from palp_lab.types import UserError
from tests.metrics.conftest import MEAN, STD, noise_pictures, write_preprocessor


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (48, 80), (90, 40), (24, 20)])
def test_equals_the_processor_of_transformers(tmp_path: Path, size: tuple[int, int]) -> None:
    """Up to one of 255 levels: PIL rounds between the two passes of its resize."""
    write_preprocessor(tmp_path)
    images = noise_pictures(3, size=size)
    ours = read_preprocessing(tmp_path)(images)
    theirs = CLIPImageProcessorPil.from_pretrained(tmp_path)(
        [image.permute(1, 2, 0).numpy() for image in images], return_tensors="pt"
    )["pixel_values"]
    levels = (ours - theirs).abs() * torch.tensor(STD).view(3, 1, 1) * 255
    assert ours.shape == theirs.shape
    assert float(levels.max()) <= 1.01
    assert float(levels.mean()) < 0.3


def test_a_picture_of_the_right_size_is_normalised_and_nothing_else() -> None:
    images = noise_pictures(2)
    out = Preprocessing(MEAN, STD, shortest=32, crop=(32, 32))(images)
    by_hand = (images.numpy().astype(np.float64) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    assert np.abs(out.numpy() - by_hand).max() < 1e-5


def test_floats_are_refused() -> None:
    """transformers would scale [0, 1] down a second time, silently."""
    with pytest.raises(TypeError, match="uint8"):
        Preprocessing(MEAN, STD)(torch.rand(1, 3, 8, 8))


def test_reads_the_nested_file_of_a_processor(tmp_path: Path) -> None:
    write_preprocessor(tmp_path)
    values = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    alone = read_preprocessing(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    assert read_preprocessing(tmp_path) == alone


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"resample": 1}, "resample"),
        ({"do_normalize": False}, "do_normalize"),
        ({"rescale_factor": 1.0}, "rescale_factor"),
        ({"crop_size": {"w": 1}}, "crop_size"),
        ({"size": {"longest_edge": 5}}, "size"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, change: dict[str, object], word: str) -> None:
    write_preprocessor(tmp_path, **change)
    with pytest.raises(UserError, match=word):
        read_preprocessing(tmp_path)


def test_a_missing_or_damaged_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        read_preprocessing(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_preprocessing(tmp_path)

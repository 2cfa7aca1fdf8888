"""Preprocessing against transformers' own processor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BitImageProcessorPil, CLIPImageProcessorPil, ViTImageProcessorPil

from palp_lab.metrics.preprocessing import Preprocessing, preprocessing, read_preprocessing
from palp_lab.types import UserError
from tests.metrics.conftest import MEAN, STD, noise_pictures, write_preprocessor

CLIP = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}, "crop_size": 224, "resample": 3}
DINO = {"image_processor_type": "ViTImageProcessor", "size": 224, "resample": 2, "do_center_crop": False}
DINOV2 = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "crop_size": 224, "resample": 3}
PROCESSORS = {"clip": (CLIP, CLIPImageProcessorPil), "dino": (DINO, ViTImageProcessorPil),
              "dinov2": (DINOV2, BitImageProcessorPil)}  # fmt: skip
"""The published preprocessor_config.json of the scorers, in their own spelling (a bare number for DINO), and the image
processor of transformers that reads each."""


def same_as_transformers(folder: Path, network: str, images: torch.Tensor) -> None:
    values, processor = PROCESSORS[network]
    write_preprocessor(folder, **values)
    ours = read_preprocessing(folder)(images)
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    theirs = processor.from_pretrained(folder)(arrays, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("network", PROCESSORS)
@pytest.mark.parametrize("size", [(224, 224), (256, 256), (300, 451), (97, 64)])
def test_equals_the_processor_of_transformers(tmp_path: Path, network: str, size: tuple[int, int]) -> None:
    same_as_transformers(tmp_path, network, noise_pictures(2, size=size))


@pytest.mark.parametrize("network", PROCESSORS)
def test_equals_the_processor_of_transformers_on_real_photos(tmp_path: Path, palp_lab_data: Path, network: str) -> None:
    for path in sorted((palp_lab_data / "dreambench").glob("*/00.jpg"))[:2]:
        with Image.open(path) as photo:
            pixels = np.array(photo.convert("RGB").resize((photo.width // 3, photo.height // 4)))
        same_as_transformers(tmp_path, network, torch.from_numpy(pixels).permute(2, 0, 1)[None])


def test_what_is_smaller_than_the_crop_is_padded_as_by_transformers(tmp_path: Path) -> None:
    write_preprocessor(tmp_path, do_resize=False)
    images = noise_pictures(2, size=(41, 27))
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    theirs = CLIPImageProcessorPil.from_pretrained(tmp_path)(arrays, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(read_preprocessing(tmp_path)(images), theirs, atol=1e-5, rtol=0)


def test_floats_resized_without_antialiasing_are_neither_rounded_nor_smoothed() -> None:
    """Textual inversion's evaluator: a bicubic sum of 16 pixels, computed by hand in one dimension."""
    images = noise_pictures(1, size=(64, 64))
    plain = preprocessing((0, 0, 0), (1, 1, 1), shortest=16, antialias=False)(images)
    weights = np.array([-0.09375, 0.59375, 0.59375, -0.09375])  # Keys' kernel, a = -0.75, half way between pixels
    pixels = images[0, 0].numpy().astype(np.float64) / 255
    rows = np.stack([weights @ pixels[4 * i : 4 * i + 4] for i in range(16)])
    by_hand = np.stack([rows[:, 4 * i : 4 * i + 4] @ weights for i in range(16)], 1)
    assert np.abs(plain[0, 0].numpy() - by_hand).max() < 1e-5


def test_a_given_preprocessing_is_checked() -> None:
    assert preprocessing((0, 0, 0), (1, 1, 1), shortest=256, crop=224).crop == (224, 224)
    with pytest.raises(UserError, match="filter=nearest"):
        preprocessing((0, 0, 0), (1, 1, 1), filter="nearest")
    with pytest.raises(UserError, match="contradict"):
        preprocessing((0, 0, 0), (1, 1, 1), shortest=256, size=224)


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
        ({"resample": 5}, "resample"),
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

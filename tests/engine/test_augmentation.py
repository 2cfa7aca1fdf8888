"""Resize, crop, mirror: of the picture and its mask alike."""

from __future__ import annotations

import pytest
import torch

from palp_lab.engine.augmentation import augment, to_pixels
from palp_lab.engine.settings import Augmentation
from palp_lab.types import UserError


def test_pixels_are_in_minus_one_to_one_and_exact_at_their_own_size() -> None:
    picture = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    pixels = to_pixels(picture, 16)
    assert pixels.min() == -1
    assert pixels.max() == 1
    assert torch.equal(((pixels + 1) * 127.5).round().to(torch.uint8), picture)
    assert to_pixels(picture, 8).shape == (1, 3, 8, 8)


def test_the_mask_goes_where_the_picture_goes() -> None:
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[2:7, 3:9] = True
    picture = (mask * 255).to(torch.uint8).expand(3, 16, 16)
    how = Augmentation(1, flip=0.5, crop=0.5)
    for seed in range(20):
        pixels, cover = augment(picture, mask, how, torch.Generator().manual_seed(seed), 16)
        assert ((pixels[0] + 1) / 2 - cover[0]).abs().mean() < 0.05


def test_a_mirror_and_nothing() -> None:
    picture = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain, _ = augment(picture, None, Augmentation(1), torch.Generator().manual_seed(0), 8)
    mirrored, _ = augment(picture, None, Augmentation(1, flip=1.0), torch.Generator().manual_seed(0), 8)
    assert torch.equal(plain, to_pixels(picture[None], 8)[0])
    assert torch.equal(mirrored, plain.flip(-1))


@pytest.mark.parametrize("wrong", [{"variants": -1}, {"flip": 2.0}, {"crop": 0.0}])
def test_wrong_values_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="augment"):
        Augmentation(**wrong)

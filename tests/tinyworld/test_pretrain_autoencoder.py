"""The autoencoder's linear start and its normalised latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palp_lab.tinyworld import render, sample_scene
from palp_lab.tinyworld.pretrain_autoencoder import (
    CHANNELS,
    Reconstruction,
    build_autoencoder,
    decibel,
    normalise_latents,
    patch_code,
    start_linear,
    to_pixels,
)
from palp_lab.tinyworld.pretrain_loop import step_generator


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.stack([render(sample_scene(seed)) for seed in range(64)])


def test_the_encoder_starts_as_the_principal_components_of_patches(images: np.ndarray) -> None:
    model = build_autoencoder()
    start_linear(model, images)
    mean, directions, deviations = patch_code(images)
    x = to_pixels(images)
    patches = x.reshape(len(x), 3, 16, 2, 2, 16, 2, 2).permute(0, 2, 5, 3, 6, 4, 7, 1).reshape(len(x), 16, 16, 48)
    wanted = (patches - mean) @ directions.T
    with torch.no_grad():
        found = model.encode(x).latent_dist.mean.permute(0, 2, 3, 1)
    scale = deviations**0.5 / (deviations**0.5).mean()
    for channel in range(CHANNELS):
        a, b = found[..., channel].flatten(), wanted[..., channel].flatten()
        assert float(torch.corrcoef(torch.stack([a, b]))[0, 1]) > 0.99
        # The last group norm sees the picture a little; the gain is right to a few per cent.
        assert float(a.std() / (b.std() / deviations[channel] * scale[channel])) == pytest.approx(1, abs=0.1)


def test_normalised_latents_have_mean_zero_and_decode_as_before(images: np.ndarray) -> None:
    model = build_autoencoder()
    start_linear(model, images)
    with torch.no_grad():
        model.quant_conv.bias[:CHANNELS] += torch.linspace(-1, 1, CHANNELS)
        before = model.decode(model.encode(to_pixels(images[:4])).latent_dist.mean).sample
        normalise_latents(model, images)
        latents = model.encode(to_pixels(images)).latent_dist.mean
        after = model.decode(latents[:4]).sample
    assert torch.allclose(before, after, atol=1e-4)
    assert float(latents.mean((0, 2, 3)).abs().max()) < 1e-3
    assert float((latents * model.config.scaling_factor).std()) == pytest.approx(1, abs=0.02)


def test_a_frozen_encoder_gets_no_gradient(images: np.ndarray) -> None:
    task = Reconstruction(build_autoencoder(), images, batch=2, decoder_only=True)
    task(task.draw(step_generator(0, 0, 0))).backward()
    assert all(p.grad is None for p in task.model.encoder.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.model.decoder.parameters())


def test_decibel_is_that_of_the_error(images: np.ndarray) -> None:
    class Grey(torch.nn.Module):
        def encode(self, x: torch.Tensor) -> object:
            return type("Coded", (), {"latent_dist": type("Mean", (), {"mean": x})})

        def decode(self, z: torch.Tensor) -> object:
            return type("Decoded", (), {"sample": z + 0.2})

    flat = np.full((8, 64, 64, 3), 100, np.uint8)
    # An error of 0.2 in [-1, 1] is 0.1 of the range: 20 dB.
    assert decibel(Grey(), flat) == pytest.approx(20.0, abs=1e-3)  # type: ignore[arg-type]

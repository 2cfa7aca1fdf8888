"""Pictures are encoded once, and the same bits come from the autoencoder, from memory and from a file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from palp_lab.engine import latents
from palp_lab.engine.latents import posterior
from palp_lab.model.unet import UNetModel
from palp_lab.types import Kind
from tests.losses.toy import ToyModel

PIXELS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    latents._kept.clear()


def counting(model: UNetModel | ToyModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every pass of the autoencoder."""
    rows: list[int] = []
    real = model.encode_image
    monkeypatch.setattr(model, "encode_image", lambda pixels: rows.append(len(pixels)) or real(pixels))
    return rows


def test_fresh_remembered_and_read_are_the_same_bits(
    micro: UNetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = counting(micro, monkeypatch)
    fresh = posterior(micro, PIXELS, tmp_path)
    assert passes == [1, 1, 1]
    remembered = posterior(micro, PIXELS, tmp_path)
    latents._kept.clear()
    read = posterior(micro, PIXELS, tmp_path)
    assert passes == [1, 1, 1]
    for mean, std in (remembered, read):
        assert torch.equal(mean, fresh[0])
        assert torch.equal(std, fresh[1])
    assert fresh[0].shape == (3, *micro.latent_shape)
    assert fresh[0].std() > 0
    assert (fresh[1] > 0).all()


def test_neighbours_and_order_do_not_matter(micro: UNetModel) -> None:
    whole = posterior(micro, PIXELS, None)
    latents._kept.clear()
    turned = posterior(micro, PIXELS.flip(0), None)
    assert torch.equal(turned[0].flip(0), whole[0])
    torch.testing.assert_close(whole[0], micro.encode_image(PIXELS).mean, rtol=1e-4, atol=1e-5)


def test_equal_pictures_are_one(micro: UNetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = counting(micro, monkeypatch)
    posterior(micro, PIXELS[:1].repeat(4, 1, 1, 1), tmp_path)
    assert passes == [1]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip_a_bit, empty])
def test_a_damaged_file_is_made_again(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    model, pixels = ToyModel(Kind.V), PIXELS[:2, :, :2, :2]
    wanted = posterior(model, pixels, tmp_path)
    files = sorted(tmp_path.rglob("*.safetensors"))
    good = files[0].read_bytes()
    damage(files[0])
    latents._kept.clear()
    with caplog.at_level(logging.WARNING, latents.__name__):
        found = posterior(model, pixels, tmp_path)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])
    assert [record.getMessage() for record in caplog.records] == [f"{files[0]}: damaged; the picture is encoded again"]
    assert files[0].read_bytes() == good
    assert sorted(tmp_path.rglob("*")) == sorted({*files, *(path.parent for path in files)}), "nothing half-written"


def test_another_autoencoder_or_dtype_is_another_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = PIXELS[:1, :, :2, :2]
    one, other, half = ToyModel(Kind.V), ToyModel(Kind.V, seed=1), ToyModel(Kind.V)
    half.dtype = torch.float16
    for model in (one, other, half):
        passes = counting(model, monkeypatch)
        posterior(model, pixels, tmp_path)
        assert passes == [1]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3


def test_models_of_one_autoencoder_share(micro_path: Path, micro_v_path: Path) -> None:
    one, again, other = UNetModel.open(micro_path), UNetModel.open(micro_path), UNetModel.open(micro_v_path)
    assert one.autoencoder_fingerprint == again.autoencoder_fingerprint != one.fingerprint
    with torch.no_grad():
        again.denoiser.conv_in.weight.add_(1)
        next(other.autoencoder.parameters()).add_(1)
    again.__dict__.pop("autoencoder_fingerprint")
    other.__dict__.pop("autoencoder_fingerprint", None)
    assert one.autoencoder_fingerprint == again.autoencoder_fingerprint != other.autoencoder_fingerprint


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ToyModel(Kind.V)
    size = sum(t[0].nbytes for t in posterior(model, PIXELS[:1, :, :2, :2], None))
    monkeypatch.setattr(latents, "KEPT_BYTES", 2 * size)
    latents._kept.clear()
    posterior(model, PIXELS[:, :, :2, :2], None)
    assert len(latents._kept) == 2


def test_photos_are_encoded_alike_within_a_trainings_autocast(micro: UNetModel) -> None:
    """Encoded in every step or once before: two recipes that differ in this alone learn from the same latents."""
    pixels = torch.rand(2, 3, micro.resolution, micro.resolution) * 2 - 1
    before = micro.encode_image(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        within = micro.encode_image(pixels)
    assert torch.equal(before.mean, within.mean) and torch.equal(before.std, within.std)

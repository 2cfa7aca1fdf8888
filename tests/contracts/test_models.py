"""What every family of models promises; parity with the stock loop is in tests/diffusion/test_sampler.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from palp_lab.model import open_model
from palp_lab.types import Kind
from tests.contracts.parts import scene


@pytest.fixture(params=["micro_path", "micro_v_path", "micro_sdxl_path"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_opening_twice_gives_one_fingerprint_and_one_output(folder: Path) -> None:
    one, other = open_model(folder), open_model(folder, device="cpu", dtype="float32")
    assert one.fingerprint == other.fingerprint and len(one.fingerprint) == 16
    x_t, t = scene(one)
    cond = one.base_text(["a cat", "a dog"])
    with torch.no_grad():
        assert torch.equal(one.predict(x_t, t, cond).raw, other.predict(x_t, t, cond).raw)


def test_the_text_matters(folder: Path) -> None:
    model = open_model(folder)
    x_t, t = scene(model)
    with torch.no_grad():
        cat = model.predict(x_t, t, model.base_text(["a photo of a cat"] * 2)).raw
        dog = model.predict(x_t, t, model.base_text(["a sketch of a dog in the snow"] * 2)).raw
    assert (cat - dog).abs().max() > 1e-4


def test_rows_of_a_batch_are_independent(folder: Path) -> None:
    model = open_model(folder)
    x_t, t = scene(model, 3)
    cond = model.base_text(["a cat", "a dog", "a hat"])
    with torch.no_grad():
        whole = model.predict(x_t, t, cond).raw
        alone = model.predict(x_t[1:2], t[1:2], cond[slice(1, 2)]).raw
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-5, atol=1e-5)


def test_the_path_is_the_schedulers_own(folder: Path) -> None:
    model = open_model(folder)
    scheduler = model.scheduler("ddpm")
    t = torch.tensor([0, 500, 999])
    x0, noise = torch.randn(2, 3, *model.latent_shape).unbind(0)
    torch.testing.assert_close(model.path.add_noise(x0, noise, t), scheduler.add_noise(x0, noise, t))
    if model.kind is Kind.V:
        pred = model.predict(x0, t, model.base_text(["a"] * 3))
        torch.testing.assert_close(pred.target(x0, noise), scheduler.get_velocity(x0, noise, t))


def test_sites_are_numbered_from_zero_without_gaps(folder: Path) -> None:
    sites = open_model(folder).sites
    assert [site.index for site in sites] == list(range(len(sites))) and len({s.path for s in sites}) == len(sites)

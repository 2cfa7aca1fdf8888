"""The CPU and a CUDA device agree: the same draws, the same losses, the same pictures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from palp_lab import Sampling, TinyDataset, compose, open_model, train_adapter
from palp_lab.build import build, build_all
from palp_lab.context import Context
from palp_lab.generate import clean, generate_pictures
from palp_lab.training import as_plain, read_settings
from tests.bench.lab import TARGET, stand_in

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NO CUDA DEVICE: agreement with the CPU was not tested"),
]

RECIPES = {
    "ti_db": ("method=ti_db",),
    "palp": ("method=palp",),
    "palp_sds": ("method=palp_sds",),
    "palp_nfsd": ("method=palp_nfsd",),
    "key_value": ("method=palp", "edits=key_value"),
    "full": ("method=ti_db", "edits=full"),
    "p_plus": ("method=p_plus", "losses=[reconstruction,prompt_alignment]"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_in(tmp_path_factory.mktemp("model") / "stand_in")


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 products as the CPU makes them."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def logged(folder: Path, device: str, to: Path, recipe: tuple[str, ...], **how: Any) -> dict[str, list[float]]:
    """The losses of four steps; `how` opens the model."""
    config = compose(
        "run", *recipe, f"target='{TARGET}'", "trainer.max_steps=4", "trainer.batch_size=4", "log.every=1",
        "log.progress=false", f"device={device}",
    )  # fmt: skip
    plain = as_plain(config)
    outcome = train_adapter(
        open_model(folder, device=device, **how), TinyDataset(), build(config.tokens, "tokens"),
        build(config.edits, "edits"), build_all(config.losses, "losses"), captions=list(plain["captions"]),
        folder=to / device, settings=read_settings(plain), target=TARGET,
    )  # fmt: skip
    with outcome.log.open() as stream:
        rows = list(csv.DictReader(stream))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name == "loss" or name.endswith("/value")}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_losses_agree(folder: Path, tmp_path: Path, recipe: tuple[str, ...]) -> None:
    cpu, cuda = (logged(folder, device, tmp_path, recipe) for device in ("cpu", "cuda"))
    assert cpu.keys() == cuda.keys() and len(cpu["loss"]) == 4
    for name, values in cpu.items():
        assert cuda[name] == pytest.approx(values, rel=2e-3, abs=1e-5), name


@pytest.mark.parametrize("how", [{"dtype": "bfloat16"}, {"autocast": True}, {"channels_last": True}], ids=str)
@pytest.mark.parametrize("recipe", [RECIPES["ti_db"], RECIPES["palp"]], ids=["ti_db", "palp"])
def test_other_precisions_and_layouts_train(
    folder: Path, tmp_path: Path, recipe: tuple[str, ...], how: dict[str, Any]
) -> None:
    """The reconstruction of the first step, before anything differs, is that of float32 up to the precision."""
    plain, other = (logged(folder, "cuda", tmp_path / name, recipe, **more) for name, more in (("a", {}), ("b", how)))
    precise = "channels_last" in how
    assert other["reconstruction/value"][0] == pytest.approx(
        plain["reconstruction/value"][0], rel=1e-4 if precise else 0.05
    )
    assert all(torch.tensor(values).isfinite().all() for values in other.values())


def test_recomputing_takes_less_memory(folder: Path, tmp_path: Path) -> None:
    """And the peak of one training is its own, not that of a larger one before it in the same process."""
    peaks = []
    for recomputing in ("false", "true"):
        config = compose(
            "run", "method=ti_db", "trainer.max_steps=2", "trainer.batch_size=64", "log.progress=false", "device=cuda",
            f"trainer.gradient_checkpointing={recomputing}",
        )  # fmt: skip
        plain = as_plain(config)
        outcome = train_adapter(
            open_model(folder, device="cuda"), TinyDataset(), build(config.tokens, "tokens"),
            build(config.edits, "edits"), build_all(config.losses, "losses"), captions=list(plain["captions"]),
            folder=tmp_path / recomputing, settings=read_settings(plain),
        )  # fmt: skip
        peaks.append(outcome.cost["peak_memory"])
    assert peaks[1] < 0.9 * peaks[0]


@pytest.mark.parametrize("into", ["noise", "photo", "hole"])
@pytest.mark.parametrize("scheduler", ["ddim", "euler_a"])
def test_pictures_agree(folder: Path, scheduler: str, into: str) -> None:
    """Text to image, image to image and inpainting; noise comes from generators on the CPU on either device."""
    concept = TinyDataset().concept()
    hole = torch.zeros(concept.photos.shape[-2:], dtype=torch.bool)
    hole[:40] = True
    photo = concept.photos[0]
    context = {"noise": None, "photo": Context(photo, noise_strength=0.7), "hole": Context(photo, hole)}[into]
    found = []
    for device in ("cpu", "cuda"):
        model = open_model(folder, device=device)
        how = Sampling(scheduler, steps=10, guidance=5.0)
        drawn = generate_pictures(model, clean(model, concept), [TARGET], range(4), how, context=context)
        found.append(torch.stack([picture.image for picture in drawn]).int())
    assert (found[0] - found[1]).abs().max() <= 2

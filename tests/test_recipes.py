"""Every recipe composes, is built from its configuration alone, and trains two steps on a random pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from palp_lab.adapter import read_adapter
from palp_lab.build import build, build_all, check_fit
from palp_lab.composition import compose, conf_folder
from palp_lab.dataset.captions import read_captions
from palp_lab.dataset.concept import AbstractDataset, Concept
from palp_lab.model.unet import UNetModel
from palp_lab.train import TrainingOutcome
from palp_lab.training import as_plain, train_stage

RECIPES = sorted(path.stem for path in (conf_folder() / "method").glob("*.yaml"))
ALIGNED = {"palp", "palp_sds", "palp_nfsd", "palp_fresh_noise", "palp_no_rescale"}
TARGET = 'target="a sketch of a {} in paris"'
SMALL = ("trainer.max_steps=2", "trainer.batch_size=2", "trainer.save_every=1", "log.every=1", "log.progress=false")

each_recipe = pytest.mark.parametrize("method", RECIPES)


class MicroDataset(AbstractDataset):
    """Three random pictures of a cat, with masks."""

    def concept(self) -> Concept:
        generator = torch.Generator().manual_seed(0)
        photos = torch.randint(0, 256, (3, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return Concept("micro", "cat", "<v>", photos, digest="micro", masks=photos[:, 0] > 60)

    def class_renders(self, seeds: Any) -> torch.Tensor:
        return torch.full((len(list(seeds)), 3, 32, 32), 90, dtype=torch.uint8)


def small(method: str, folder: Path, *overrides: str) -> Any:
    config = compose("train", f"method={method}", TARGET, f"output={folder}", *SMALL, *overrides)
    if "prior_preservation" in config.losses:
        config.losses.prior_preservation.pictures = "given"
    if "prompt_alignment" in config.losses:
        config.losses.prompt_alignment.negative = "bad, dirty"  # NFSD's own is longer than the micro encoder reads
    return config


def trained(method: str, micro: UNetModel, folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
    config = small(method, folder, *overrides)
    target = (
        str(config.target) if any(loss.needs_target for loss in build_all(config.losses, "losses").values()) else None
    )
    about = train_stage(
        config, micro, MicroDataset(), build_all(config.losses, "losses"), target, ["a photo of a {}"], folder
    )
    assert about["cost"]["adapter_bytes"] > 0
    assert TrainingOutcome is not None
    return read_adapter(folder / "adapters/step_000002.safetensors")[0]


@each_recipe
def test_it_fits_the_shipped_model_and_its_losses_are_built(method: str) -> None:
    config = compose("train", f"method={method}", TARGET)
    parts = {"tokens": build(config.tokens, "tokens"), "edits": build(config.edits, "edits")}
    losses = build_all(config.losses, "losses")
    check_fit(UNetModel.provides, {key: part.requires for key, part in parts.items()})
    check_fit(UNetModel.provides, {f"losses.{name}": loss.requires for name, loss in losses.items()})
    assert read_captions(as_plain(config)["captions"])
    assert any(loss.needs_target for loss in losses.values()) == (method in ALIGNED)


@each_recipe
def test_it_trains(method: str, micro: UNetModel, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in micro.denoiser.state_dict().items()}
    # A stage each, so that both are met in two steps.
    stages = ["stages.0.until=1"] if method == "rare_adjective" else []
    tensors = trained(method, micro, tmp_path, *stages)
    assert tensors
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert len(rows) == 3
    after = micro.denoiser.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", ["p_plus", "custom_diffusion"])
def test_prompt_alignment_is_added_on_the_command_line(method: str, micro: UNetModel, tmp_path: Path) -> None:
    plain = trained(method, micro, tmp_path / "plain", "losses=[reconstruction]")
    aligned = trained(method, micro, tmp_path / "aligned", "losses=[reconstruction,prompt_alignment]")
    assert plain.keys() == aligned.keys()
    assert any(not torch.equal(plain[name], aligned[name]) for name in plain)


def test_ti_db_is_palp_of_weight_0_bit_for_bit(micro: UNetModel, tmp_path: Path) -> None:
    ti_db = trained("ti_db", micro, tmp_path / "a")
    palp = trained("palp", micro, tmp_path / "b", "losses.prompt_alignment.weight=0")
    assert ti_db.keys() == palp.keys()
    assert all(torch.equal(ti_db[name], palp[name]) for name in ti_db)


def test_the_references_differ(micro: UNetModel, tmp_path: Path) -> None:
    found = [trained(name, micro, tmp_path / name) for name in ("palp", "palp_sds", "palp_nfsd", "palp_control")]
    for i, one in enumerate(found):
        for other in found[i + 1 :]:
            assert any(not torch.equal(one[name], other[name]) for name in one)


PALP = {
    "trainer.max_steps": 500,
    "trainer.batch_size": 32,
    "optimizer.lr": 5e-5,
    "edits.rank": 32,
    "augment.variants": 0,
}
PAPER: dict[str, dict[str, Any]] = {
    "textual_inversion": {"optimizer.token_lr": 1e-2, "trainer.max_steps": 6100, "trainer.batch_size": 2},
    "dreambooth": {
        "trainer.max_steps": 1000, "optimizer.lr": 5e-6, "losses.prior_preservation.weight": 1.0,
        "losses.prior_preservation.count": 1000,
    },
    "dreambooth_lora": {"edits.rank": 4, "optimizer.lr": 1e-4, "trainer.max_steps": 500, "trainer.batch_size": 1},
    "ti_db": PALP,
    "palp": {**PALP, "losses.prompt_alignment.alpha": 15.0, "losses.prompt_alignment.beta": 7.5,
             "losses.prompt_alignment.noise": "same", "losses.prompt_alignment.rescale": True,
             "losses.prompt_alignment.clamp": None},
    "palp_sds": {**PALP, "losses.prompt_alignment.reference": "noise"},
    "palp_nfsd": {**PALP, "losses.prompt_alignment.reference": "nfsd", "losses.prompt_alignment.alpha": 7.5},
    "palp_fresh_noise": {**PALP, "losses.prompt_alignment.noise": "fresh", "losses.prompt_alignment.rescale": True},
    "palp_no_rescale": {**PALP, "losses.prompt_alignment.noise": "same", "losses.prompt_alignment.rescale": False},
    "palp_control": {**PALP, "losses.prompt_alignment.clean": "a photo of a {}"},
    "target_as_caption": {**PALP, "captions": ["a sketch of a {} in paris"]},
    "rare_adjective": {"tokens.phrase": "{placeholder} {superclass}"},
    "p_plus": {"optimizer.token_lr": 5e-3, "trainer.max_steps": 500, "trainer.batch_size": 8},
    "custom_diffusion": {"optimizer.lr": 8e-5, "trainer.max_steps": 250, "losses.prior_preservation.count": 200},
}  # fmt: skip
"""The numbers of methods' papers and released code for Stable Diffusion 1.x."""


@each_recipe
def test_on_stable_diffusion_it_has_exactly_the_papers_numbers(method: str) -> None:
    """model=sd14 alone: no tuning of the tiny world is left."""
    plain = as_plain(compose("train", f"method={method}", TARGET, "model=sd14"))
    assert method in PAPER, "a new recipe states its paper's numbers here"
    for key, wanted in PAPER[method].items():
        value: Any = plain
        for part in key.split("."):
            value = value[part]
        assert value == wanted, key


@each_recipe
@pytest.mark.parametrize("model", ["tiny", "tiny_small", "tiny_flow_unet"])
def test_what_the_tiny_world_needs_is_tuned(method: str, model: str) -> None:
    assert (conf_folder() / "tuning" / f"{model}_{method}.yaml").is_file()
    steps = compose("train", f"method={method}", TARGET, f"model={model}").trainer.max_steps
    assert steps < 1000

"""Memory counted from shapes is the memory a training takes, and counting takes none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from palp_lab import plan
from palp_lab.adapter import Adapter
from palp_lab.build import build, build_all
from palp_lab.cell import Cell
from palp_lab.dataset.captions import read_captions
from palp_lab.engine.footprint import Counting, Uncounted, drawing_peak, training_peak
from palp_lab.engine.pictures import draw
from palp_lab.losses.reconstruction import Reconstruction
from palp_lab.model.base import AbstractModel
from palp_lab.model.sdxl import SdxlModel
from palp_lab.model.unet import UNetModel
from palp_lab.training import as_plain, read_settings, train_stage
from palp_lab.types import Role
from tests.contracts.parts import adapter
from tests.micro_lab import MicroLab
from tests.test_recipes import ALIGNED, MicroDataset, small, trained

ROWS = ("trainer.batch_size=8", "log.gradients_every=1", "trainer.gallery=0")
UNLIKE = ("palp", "p_plus", "custom_diffusion", "dreambooth")
"""Recipes whose steps are least alike: judges, words by site, an edit by parametrization, all of it with a prior."""


def counted(method: str, model: AbstractModel, *overrides: str, losses: Any = None) -> int:
    config = small(method, Path("unused"), *ROWS, *overrides)
    tokens, edits = build(config.tokens, "tokens"), build(config.edits, "edits")
    learned = Adapter(model, tokens, edits, MicroDataset().concept())
    plain = as_plain(config)
    target = str(config.target) if method in ALIGNED else None
    losses = losses or build_all(config.losses, "losses")
    try:
        return training_peak(learned, losses, read_settings(plain), read_captions(plain["captions"]), target)
    finally:
        edits.detach()


@pytest.mark.parametrize(
    "method", [name if name == "palp" else pytest.param(name, marks=pytest.mark.slow) for name in UNLIKE]
)
def test_it_is_what_a_training_takes(method: str, micro: UNetModel, tmp_path: Path) -> None:
    told = counted(method, micro)
    with Counting() as real:
        trained(method, micro, tmp_path, *ROWS)
    assert told == pytest.approx(real.peak, rel=0.08)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("trainer.gradient_checkpointing=true", "trainer.precision=bf16"),
        ("trainer.accumulate=2", "log.gradients_every=0", "edits=full", "trainer.ema=0.9"),
        ("edits.text_encoder=true",),
    ],
    ids=["lean", "full", "text_encoder"],
)
def test_it_follows_the_trainer(words: tuple[str, ...], micro: UNetModel, tmp_path: Path) -> None:
    told = counted("ti_db", micro, *words)
    with Counting() as real:
        trained("ti_db", micro, tmp_path, *ROWS, *words)
    assert told == pytest.approx(real.peak, rel=0.08)


@pytest.mark.slow
def test_what_a_trainer_is_told_makes_a_difference(micro: UNetModel) -> None:
    rows = "trainer.batch_size=16"
    plain = counted("ti_db", micro, rows)
    assert counted("ti_db", micro, rows, "trainer.accumulate=2") < 0.6 * plain
    assert counted("ti_db", micro, rows, "trainer.gradient_checkpointing=true") < 0.8 * plain
    two = counted("ti_db", micro, rows, "trainer.devices=2", "trainer.batch_size=32")
    assert two - plain == sum(tensor.nbytes for tensor in adapter(micro, rank=16).tensors().values()), (
        "buckets of gradients"
    )


@pytest.mark.slow
def test_two_text_encoders_count(micro_sdxl: SdxlModel, tmp_path: Path) -> None:
    told = counted("palp", micro_sdxl)
    with Counting() as real:
        trained("palp", micro_sdxl, tmp_path, *ROWS)
    assert told == pytest.approx(real.peak, rel=0.08)


def test_counting_takes_nothing_and_leaves_nothing(micro: UNetModel) -> None:
    """A batch no machine could hold is counted as fast as any other."""
    prompts = micro.base_text(["a cat"]).tokens.clone()
    before = {name: tensor.clone() for name, tensor in micro.denoiser.state_dict().items()}
    huge = counted("ti_db", micro, "trainer.batch_size=800000")
    assert huge > 2e11
    assert huge == pytest.approx(1e5 * counted("ti_db", micro), rel=0.3)
    after = micro.denoiser.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in micro.denoiser.parameters())
    assert torch.equal(micro.base_text(["a cat"]).tokens, prompts), "what is remembered has values"


def test_pictures_are_counted(micro: UNetModel) -> None:
    cond = micro.base_text(["a cat"] * 4)
    micro.unconditional(4)
    for guided, guidance in ((True, 7.5), (False, 1.0)):
        with Counting() as real:
            draw(micro, cond, range(4), "ddim", 2, guidance)
        assert drawing_peak(micro, 4, guided) == pytest.approx(real.peak, rel=0.1)


class Peeking(Reconstruction):
    """A loss that looks at values. Final."""

    def __call__(self, ctx: Any) -> torch.Tensor:
        value = super().__call__(ctx)
        return value if value.item() > 0 else value * 2


def test_who_looks_at_values_cannot_be_counted(micro: UNetModel) -> None:
    with pytest.raises(Uncounted):
        counted("ti_db", micro, losses={"mine": Peeking()})


class Watching(Reconstruction):
    """Notes whether gradients are held while the pass is made. Final."""

    held: list[bool]

    def __call__(self, ctx: Any) -> torch.Tensor:
        self.held.append(any(parameter.grad is not None for _, parameter in ctx.adapter.parts()))
        assert ctx.passes[Role.SUBJECT].pred.raw.requires_grad
        return super().__call__(ctx)


def test_no_gradient_of_the_last_step_is_held_through_the_pass(micro: UNetModel, tmp_path: Path) -> None:
    """For a full edit it is as large as the denoiser."""
    for accumulate, expected in ((1, [False] * 3), (2, [False, True] * 3)):
        loss = Watching()
        loss.held = []
        words = (f"trainer.accumulate={accumulate}", "trainer.max_steps=3")
        config = small("ti_db", tmp_path, *words)
        train_stage(config, micro, MicroDataset(), {"mine": loss}, None, [], tmp_path / str(accumulate))
        assert loss.held == expected


def test_a_plan_says_what_was_counted(
    micro_lab: MicroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = Cell(micro_lab.compose(f"output={tmp_path}", "method=ti_db"))
    small_one = plan.plan_cell(cell)
    assert not small_one["counted"], "a small model is not worth the seconds"
    monkeypatch.setattr(plan, "COUNTED_FROM", 0)
    monkeypatch.setattr(plan, "_step_bytes", {})
    counted_one = plan.plan_cell(cell)
    assert counted_one["counted"] and counted_one["memory"] > small_one["memory"]
    plan.print_plan([counted_one, plan.plan_cell(cell, known=True)])
    assert "counted from their shapes" in capsys.readouterr().out
    plan.print_plan([small_one, counted_one])
    assert "at least" in capsys.readouterr().out, "one of them was not counted"
    assert plan.memory_of(cell, {"scores"}) == (cell.model.weight_bytes, False)
    monkeypatch.setattr(plan, "_step_bytes", {})
    cell.losses = {"mine": Peeking()}
    not_counted = plan.plan_cell(cell)
    assert not not_counted["counted"] and not_counted["memory"] >= small_one["memory"]
    plan.print_plan([not_counted])
    assert "at least" in capsys.readouterr().out
    assert plan.plan_cell(cell, known=True)["memory"] == 0


def test_class_pictures_that_are_drawn_count_and_given_ones_do_not(
    micro_lab: MicroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are drawn before the first step, one at once where no more fit."""
    from palp_lab.engine import footprint

    drawn = []
    monkeypatch.setattr(footprint, "training_peak", lambda *_: 5)
    monkeypatch.setattr(
        footprint, "drawing_peak", lambda model, pictures, guided: drawn.append((pictures, guided)) or 9
    )
    peaks = {}
    for words in ("method=ti_db", "method=dreambooth_lora", "losses.prior_preservation.pictures=given"):
        more = ["method=dreambooth_lora", words] if "=given" in words else [words]
        peaks[words] = plan._count(Cell(micro_lab.compose(*more, f"output={tmp_path}")), "train")
    assert list(peaks.values()) == [5, 9, 5] and drawn == [(1, True)]

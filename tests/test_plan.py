"""What a run would take, before it is run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from palp_lab import plan
from palp_lab.cell import Cell
from tests.micro_lab import MicroLab


class LateModel:
    """A model on an accelerator: a pass is accepted at once, and its five seconds go by while somebody waits for it."""

    fingerprint = "late"
    latent_shape = (1, 2, 2)
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.now, self.pending = 0.0, 0.0

    def predict(self, *args: Any) -> None:
        self.pending += 5.0

    def unconditional(self, rows: int) -> None:
        return None

    def wait(self, device: torch.device) -> None:
        assert device is self.device
        self.now, self.pending = self.now + self.pending, 0.0


def test_a_pass_is_timed_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LateModel()
    monkeypatch.setattr(plan, "synchronize", model.wait)
    monkeypatch.setattr("time.perf_counter", lambda: model.now)
    monkeypatch.setattr(plan, "_pass_seconds", {})
    cell = cast("Cell", SimpleNamespace(model=model))
    assert plan.pass_seconds(cell) == 2.5, "two rows in five seconds; the first pass warms up and does not count"


def test_cells_are_told_apart_by_what_they_differ_in(capsys: pytest.CaptureFixture[str]) -> None:
    """Two batch sizes of one method were two lines of the same words."""
    same = {"method": "ti_db", "concept": "cat_1", "seed": 0, "target": None, "stages": []}
    same |= {"memory": 0, "counted": False}
    cells = [
        {**same, "run": f"{i}" * 8, "axes": {"model": "tiny", "batch_size": n, "trainer.batch_size": n}}
        for i, n in enumerate((4, 32))
    ]
    plan.print_plan([*cells, {**same, "run": "3" * 8, "axes": {"model": "tiny"}}])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[4] for line in lines[:3]] == ["batch_size=4", "batch_size=32", "finished"]
    assert "model" not in lines[0]


def test_a_judge_counts_whatever_it_is_asked(
    micro_lab: MicroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control's judge is asked under a clean prompt of its own, without a target."""
    monkeypatch.setattr(plan, "pass_seconds", lambda cell: 1.0)

    def seconds(*words: str) -> float:
        how = ("trainer.max_steps=1", "trainer.batch_size=2", f"output={tmp_path}")
        return plan.training_seconds(Cell(micro_lab.compose(*how, *words)))

    target = 'target="a sketch of a {}"'
    assert seconds("method=ti_db") == seconds("method=ti_db", target) == 2 * 3
    assert seconds("method=palp_control") == seconds("method=palp", target) == 2 * (3 + 4)
    assert seconds("method=palp", target, "losses.prompt_alignment.weight=0") == 2 * 3


def test_class_pictures_that_are_not_there_are_counted_once(
    micro_lab: MicroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "pass_seconds", lambda cell: 1.0)

    def drawn(*words: str) -> list[dict[str, Any]]:
        cell = plan.plan_cell(Cell(micro_lab.compose(f"output={tmp_path}", *words)))
        return [stage for stage in cell["stages"] if stage["kind"] == "class pictures"]

    recipe = ("method=dreambooth_lora", "losses.prior_preservation.count=3")
    [first], [second] = drawn(*recipe), drawn(*recipe, "trainer.max_steps=7")
    assert first["seconds"] == 3 * (50 * 2 + 1) and first["bytes"] > 0
    assert first == second, "cells that train otherwise draw the same pictures"
    same = {"run": "1" * 8, "method": "db", "concept": "cat", "seed": 0, "target": None, "axes": {}}
    same |= {"memory": 0, "counted": False}
    plan.print_plan([{**same, "stages": [first]}, {**same, "stages": [second]}])
    assert "about 5.0 min of one process" in capsys.readouterr().out
    assert not drawn("method=ti_db")
    store = Path(micro_lab.compose(f"output={tmp_path}").store) / "class_pictures"
    store.mkdir(parents=True)
    (store / f"{first['key']}.safetensors").touch()
    assert not drawn(*recipe)

"""What a run would take, before it is run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from palp_lab import plan
from palp_lab.cell import Cell


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

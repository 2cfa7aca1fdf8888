"""Lightning logs into the run it is given, and into no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch import LightningModule, Trainer
from torch import nn, optim, tensor

from palp_lab.engine.loggers import build_loggers
from palp_lab.study.tracking import STEP, Project, open_run
from tests.study.wandb_records import read_offline


class Line(LightningModule):
    """One number that shrinks by a known factor per step."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(tensor(start))

    def training_step(self, batch, index):  # type: ignore[no-untyped-def]
        loss = (self.slope**2).sum()
        self.log("total", loss)
        return loss

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        return optim.SGD(self.parameters(), 0.1)


def fit(start: float, loggers: list) -> None:
    trainer = Trainer(
        max_steps=3, log_every_n_steps=1, logger=loggers or False, accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Line(start), [[0]] * 3)


def test_trainings_of_one_process_log_into_their_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-home"))
    for start in (1.0, 2.0):
        with open_run(Project("p", mode="offline"), f"line{start:g}", "line", "run", {}, tmp_path / "w") as run:
            fit(start, build_loggers(run))
    for offline, start in zip(read_offline(tmp_path / "w"), (1.0, 2.0), strict=True):
        assert offline.run.run_id == f"line{start:g}"
        sent = {row[STEP]: row["total"] for row in offline.history if "total" in row}
        assert sent == pytest.approx({step: start**2 * 0.64**step for step in range(3)})


def test_without_a_run_there_is_no_logger() -> None:
    assert build_loggers() == []

"""The log of a training: every row on disk at once, whole after a restart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from palp_lab.engine.loggers import CsvLog, build_loggers, read_log


def test_rows_are_on_disk_at_once_and_columns_may_come_later(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv")
    log.log_metrics({"total": 1.5, "epoch": 0}, step=0)
    log.log_metrics({"total": 1.25}, step=10)
    assert read_log(tmp_path / "log.csv") == {0: {"total": 1.5}, 10: {"total": 1.25}}
    log.log_metrics({"total": 1.0, "cosine": -0.5}, step=20)
    log.log_metrics({"seconds": 3.0}, step=20)
    assert (tmp_path / "log.csv").read_text() == (
        "step,total,cosine,seconds\n0,1.5,,\n10,1.25,,\n20,1.0,-0.5,3.0\n"
    )  # fmt: skip


def test_a_continued_run_measures_its_rows_once(tmp_path: Path) -> None:
    first = CsvLog(tmp_path / "log.csv")
    for step in (0, 10, 20, 30):
        first.log_metrics({"total": float(step)}, step=step)
    second = CsvLog(tmp_path / "log.csv")
    second.log_metrics({"total": -20.0}, step=20)
    assert read_log(tmp_path / "log.csv") == {0: {"total": 0.0}, 10: {"total": 10.0}, 20: {"total": -20.0}}


def test_half_a_row_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,total\n0,1.5\n10,1.")
    assert read_log(path) == {0: {"total": 1.5}}
    CsvLog(path).log_metrics({"total": 1.25}, step=10)
    assert read_log(path) == {0: {"total": 1.5}, 10: {"total": 1.25}}


def test_a_killed_process_keeps_its_rows(tmp_path: Path) -> None:
    code = (
        "import os, sys; from palp_lab.engine.loggers import CsvLog; log = CsvLog(sys.argv[1])\n"
        "for step in range(20): log.log_metrics({'total': 1.0 / (step + 1)}, step=step)\n"
        "os.kill(os.getpid(), 9)"
    )
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path / "log.csv")], env=os.environ)
    assert process.returncode == -9
    rows = read_log(tmp_path / "log.csv")
    assert rows == {step: {"total": 1.0 / (step + 1)} for step in range(20)}


def test_a_trainer_logs_to_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch import LightningModule, Trainer
    from torch import nn, optim, tensor

    from palp_lab.study.sinks import STEP, Project, open_run
    from tests.study.wandb_records import read_offline

    class Line(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.Parameter(tensor(2.0))

        def training_step(self, batch, index):  # type: ignore[no-untyped-def]
            loss = (self.slope**2).sum()
            self.log("total", loss)
            return loss

        def configure_optimizers(self):  # type: ignore[no-untyped-def]
            return optim.SGD(self.parameters(), 0.1)

    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-home"))
    with open_run(Project("p", mode="offline"), "abc", "line", "run", {}, tmp_path / "w") as run:
        trainer = Trainer(
            max_steps=3, log_every_n_steps=1, logger=build_loggers(tmp_path, run), accelerator="cpu",
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(Line(), [[0]] * 3)
    rows = read_log(tmp_path / "log.csv")
    [offline] = read_offline(tmp_path / "w")
    sent = {row[STEP]: row["total"] for row in offline.history if "total" in row}
    assert len(rows) == 3
    assert sent == pytest.approx({step: row["total"] for step, row in rows.items()})

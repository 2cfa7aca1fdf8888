"""Lightning logs into the run it is given, and into no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import nn, optim, tensor

from palp_lab.engine.loggers import build_loggers
from palp_lab.study.tracking import STEP, Project, open_run
from palp_lab.types import UserError
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


def read_events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_has_a_folder_per_training_with_its_numbers_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for start in (1.0, 2.0):
        (board,) = build_loggers(tensorboard=tmp_path / f"line{start:g}")
        fit(start, [board])
        board.log_image(key="gallery", images=[Image.new("RGB", (4, 2), (255, 0, 0))], step=2, caption=["red"])  # type: ignore[attr-defined]
        board.finalize("success")
        events = read_events(tmp_path / f"line{start:g}")
        assert {e.step: e.value for e in events.Scalars("total")} == pytest.approx(
            {step: start**2 * 0.64**step for step in range(3)}
        )
        (shown,) = events.Images("gallery")
        assert (shown.step, shown.width, shown.height) == (2, 4, 2)


def test_a_missing_tensorboard_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: object, *args: object, **kwargs: object) -> None:
        raise ModuleNotFoundError("neither tensorboard nor tensorboardX")

    monkeypatch.setattr("palp_lab.engine.loggers.TensorBoardLogger.__init__", missing)
    with pytest.raises(UserError, match=r"pip install 'palp-lab\[tensorboard\]'"):
        build_loggers(tensorboard=tmp_path / "line")

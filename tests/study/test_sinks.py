"""Weights & Biases: an offline run is written and read back from its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from palp_lab.study.ledger import collect
from palp_lab.study.page import Words
from palp_lab.study.publishing import publish
from palp_lab.study.result import Result
from palp_lab.study.sinks import FRONT_COLUMNS, front_rows, picture_rows, report_id, send_to_wandb
from palp_lab.study.study import Question, study_of
from palp_lab.study.tracking import Project
from tests.study.wandb_records import read_offline

FAST = Question(resamples=20)


def test_the_front_is_a_row_per_mark(study: list[Result]) -> None:
    rows = front_rows(study_of(study, FAST).curves)
    assert len(rows) == 3 * 5
    assert all(len(row) == len(FRONT_COLUMNS) for row in rows)
    assert {row[0] for row in rows if row[-1]} >= {"palp"}


def test_the_same_cells_and_question_are_the_same_run(study: list[Result]) -> None:
    one = study_of(study[:12], FAST)
    assert report_id(one, "a") == report_id(study_of(study[11::-1], FAST), "a")
    assert report_id(one, "a") != report_id(one, "b")
    assert report_id(one, "a") != report_id(study_of(study[:11], FAST), "a")


def test_pictures_are_those_of_the_last_step(study_folder: Path) -> None:
    rows = picture_rows(study_of(collect([study_folder]), FAST))
    assert rows and all(row[-1].exists() for row in rows)
    assert {row[4] for row in rows} == {500}


@pytest.mark.slow
def test_an_offline_run_holds_the_report(study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    cells = [cell for cell in collect([study_folder]) if cell.axes["concept"] == "cat 11"]
    study = study_of(cells, FAST)
    written = publish(study, Words("title", "question", "command"), tmp_path / "report")
    for group in ("another study", "a study"):  # two reports of one process are two runs, not rows of the first
        sent = send_to_wandb(study, written, tmp_path / "report", Project("palp-lab", mode="offline", group=group))
        assert sent == report_id(study, group)
    _, offline = read_offline(tmp_path / "report" / "wandb")
    assert (offline.run.run_group, offline.run.job_type, offline.run.run_id) == ("a study", "report", sent)
    (logged,) = offline.history
    names = {key.partition(".")[0] for key in logged}
    assert {"front", "front_table", "contact_sheet", "pictures", "pictures_table", "report"} <= names
    assert logged["front_table.nrows"] == 15
    volume = next(curve.volume for curve in study.curves if curve.series == "palp")
    assert volume is not None
    assert offline.summary["hypervolume/palp"] == pytest.approx(volume.mean)
    assert offline.summary["verdict"] == study.headline.verdict
    assert offline.exit_code == 0, "the run was finished"

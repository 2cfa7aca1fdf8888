"""A sweep: the grid runs, a failing cell does not stop it, the end is a report and an honest exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palp_lab.cell import Cell
from palp_lab.cli import main
from palp_lab.run import run_cell
from palp_lab.study.result import Result, load_result
from palp_lab.study.sweeps import Job, begin, cells_of, current, leave_cells
from palp_lab.types import UserError
from tests.engine.test_loggers import read_events
from tests.micro_lab import MicroLab
from tests.study.wandb_records import read_offline

TARGET = 'target="a sketch of a {} in the snow"'


def sweep(lab: MicroLab, output: Path, *arguments: str) -> int:
    return main(["run", "-m", "--config-dir", str(lab.conf), *lab.overrides, f"output={output}", *arguments])


def cells(output: Path) -> list[Path]:
    return sorted((output / "adhoc" / "cells").glob("*/result.json"))


def test_a_failing_cell_is_named_and_the_others_are_reported(
    micro_lab: MicroLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ("method=ti_db,palp", "dataset.superclass=cat,dog,dragon", TARGET)
    assert sweep(micro_lab, tmp_path, *grid) == 1
    said = capsys.readouterr()
    assert "2 of 6 cells failed" in said.err
    assert said.err.count("dataset.superclass=dragon") >= 4, "each failed cell is named when it fails and at the end"
    assert len(cells(tmp_path)) == 4
    assert {load_result(path).axes["concept"] for path in cells(tmp_path)} == {"cat_1234", "dog_1234"}
    for name in ("front.png", "contact_sheet.png", "strip.png", "tables.md", "report.html"):
        assert (tmp_path / "adhoc" / name).stat().st_size > 500
    assert str(tmp_path / "adhoc" / "front.png") in said.out
    page = (tmp_path / "adhoc" / "report.html").read_text(encoding="utf-8")
    assert f"palp-lab run -m --config-dir={micro_lab.conf}" in page
    assert "dataset.superclass=cat,dog,dragon" in page and "results=[" not in page, "the sweep makes it again"
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "train").iterdir()}
    assert sweep(micro_lab, tmp_path, *grid[:1], "dataset.superclass=cat,dog", TARGET) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "train").iterdir()} == trained


@pytest.mark.parametrize("error", [UserError("no room"), RuntimeError("odd")])
def test_a_target_that_fails_does_not_take_the_other_lines_of_its_file_along(
    error: Exception,
    micro_lab: MicroLab,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are run, and those before it and after it are in the report."""

    def some(cell: Cell) -> Result:
        if "hat" in str(cell.target):
            raise error
        return run_cell(cell)

    monkeypatch.setattr("palp_lab.run.run_cell", some)
    lines = ("a sketch of a {} in the snow", "a photo of a {} in a hat", "a photo of a {} at night")
    (tmp_path / "targets.txt").write_text("\n".join(lines))
    grid = ("method=palp", f"targets_file={tmp_path / 'targets.txt'}", "trainer.max_steps=1")
    assert sweep(micro_lab, tmp_path, *grid) == 1
    said = capsys.readouterr()
    assert "1 of 1 cells failed" in said.err and f"{lines[1]!r} failed: {error}" in said.err
    if isinstance(error, UserError):
        assert f"1 of 3 targets failed, the first of them {lines[1]!r}: no room" in said.err
    assert {load_result(path).axes["target"] for path in cells(tmp_path)} == {lines[0], lines[2]}
    summary = json.loads((tmp_path / "adhoc" / "summary.json").read_text())
    assert summary["cells"]["found"] == 2


@pytest.mark.slow
def test_a_sweep_stops_at_its_first_failing_cell_where_it_is_told_to(
    micro_lab: MicroLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was finished before is kept, reported, and the failed cell named."""
    grid = ("method=ti_db", "dataset.superclass=cat,dragon,dog", "fail_fast=true")
    assert sweep(micro_lab, tmp_path, *grid) == 2
    said = capsys.readouterr()
    assert "1 of 2 cells failed" in said.err and "dataset.superclass=dragon" in said.err
    assert {load_result(path).axes["concept"] for path in cells(tmp_path)} == {"cat_1234"}
    assert (tmp_path / "adhoc" / "report.html").is_file()


@pytest.mark.slow
def test_tensorboard_shows_a_training_that_was_made_before(micro_lab: MicroLab, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert sweep(micro_lab, tmp_path, "method=ti_db", "seed=0") == 0
    assert not list(tmp_path.rglob("events.out*"))
    for _ in range(2):
        assert sweep(micro_lab, tmp_path, "method=ti_db", "seed=0,1", "logger=tensorboard") == 0
    boards = sorted((tmp_path / "adhoc" / "tensorboard").iterdir())
    assert [board.name for board in boards] == sorted(path.parent.name for path in cells(tmp_path))
    for board in boards:
        steps = [event.step for event in read_events(board).Scalars("reconstruction/value")]
        assert steps == sorted(set(steps)) and len(steps) > 1, "each number once"


def test_a_sweep_of_failures_only_has_no_report(
    micro_lab: MicroLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(micro_lab, tmp_path, "method=palp", "seed=0,1", "target='a sketch without a slot'") == 1
    assert "2 of 2 cells failed" in capsys.readouterr().err
    assert not (tmp_path / "adhoc").exists()


@pytest.mark.slow
def test_a_part_of_a_study_that_lacks_its_pair_still_has_its_page(
    micro_lab: MicroLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study grows part by part: whom it compares may not be there yet. Nothing failed."""
    assert sweep(micro_lab, tmp_path, "method=ti_db", "seed=0,1", "report.compare=[ti_db,palp]") == 0
    assert "Nothing to compare yet." in capsys.readouterr().out
    assert "Of palp there are no results yet" in (tmp_path / "adhoc" / "report.html").read_text(encoding="utf-8")


def test_a_dry_sweep_counts_what_cells_share_once(
    micro_lab: MicroLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = TARGET + ',"a photo of a {} wearing a red hat at night"'
    assert sweep(micro_lab, tmp_path, "method=ti_db,palp", two, "dry_run=true") == 0
    said = capsys.readouterr().out
    assert "3 cells, 3 to do" in said, "ti_db has no target: its two jobs are one cell"
    assert not (tmp_path / "store").exists()


def test_several_processes_of_one_run_cannot_be_swept(
    micro_lab: MicroLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(micro_lab, tmp_path, "method=ti_db", "seed=0,1", "trainer.devices=2") == 1
    assert "trainer.devices=2 cannot be swept with -m" in capsys.readouterr().err


def test_cells_and_report_go_to_wandb_as_runs_of_one_group(
    micro_lab: MicroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-home"))
    wandb = ("logger=wandb", "logger.mode=offline", "study_name=tracked")
    assert sweep(micro_lab, tmp_path, "method=ti_db", "seed=0,1", *wandb) == 0
    runs = read_offline(tmp_path / "tracked")
    assert [run.run.job_type for run in runs] == ["run", "run", "report"]
    assert {run.run.run_group for run in runs} == {"tracked"}
    assert len({run.run.run_id for run in runs}) == 3
    for run in runs[:2]:
        losses = [row for row in run.history if "reconstruction/value" in row]
        assert [row["trainer/global_step"] for row in losses] == [1, 2, 3, 4]
        assert "text_alignment" in run.summary
        assert run.exit_code == 0
    assert any(key.startswith("front_table") for row in runs[2].history for key in row)


def test_what_jobs_left_is_read_in_their_order(tmp_path: Path) -> None:
    for number in (10, 2):
        begin(Job(tmp_path / f"{number}_ti_db"))
        leave_cells([{"run": f"r{number}"}, {"run": "shared"}])
    assert [cell["run"] for cell in cells_of(tmp_path)] == ["r2", "shared", "r10"]
    assert current() is not None
    assert json.loads((tmp_path / "2_ti_db" / "cells.json").read_text())[0]["run"] == "r2"

"""Weights & Biases offline, read back from its own files."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from palp_lab.study.tracking import STEP, Project, open_run, run_id, send_pictures, send_summary
from palp_lab.types import UserError
from tests.study.wandb_records import read_offline

PROJECT = Project("palp-lab", mode="offline", group="a study", tags=("tiny",))


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-home"))
    monkeypatch.delenv("WANDB_MODE", raising=False)


def picture(path: Path) -> Path:
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def test_two_runs_of_one_process_stay_apart(tmp_path: Path) -> None:
    for seed in (0, 1):
        with open_run(
            PROJECT, run_id("study", str(seed)), f"seed {seed}", "run", {"seed": seed}, tmp_path / "w"
        ) as run:
            run.log({"loss": 0.5 + seed, STEP: 10})
            send_summary(run, {"text_alignment": 0.25 + seed, "copy": None})
    first, second = read_offline(tmp_path / "w")
    assert [first.run.run_id, second.run.run_id] == [run_id("study", "0"), run_id("study", "1")]
    assert (first.run.run_group, first.run.job_type, first.run.display_name) == ("a study", "run", "seed 0")
    assert list(first.run.tags) == ["tiny"]
    assert [row["loss"] for row in first.history] == [0.5]
    assert [row["loss"] for row in second.history] == [1.5]
    assert first.summary["text_alignment"] == 0.25
    assert "copy" not in first.summary
    assert first.metrics["*"] == STEP
    assert (first.exit_code, second.exit_code) == (0, 0)


def test_a_failing_run_is_finished_too(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        open_run(PROJECT, run_id("x"), "x", "run", {}, tmp_path) as run,
    ):
        run.log({"loss": 1.0, STEP: 0})
        1 / 0  # noqa: B018
    import wandb

    assert wandb.run is None
    [offline] = read_offline(tmp_path)
    assert offline.exit_code == 1
    assert offline.history[0]["loss"] == 1.0


def test_pictures_go_as_a_table_and_as_panels(tmp_path: Path) -> None:
    rows = [
        {
            "image": picture(tmp_path / f"{seed}.png"),
            "step": 50,
            "prompt": "a photo of {}",
            "seed": seed,
            "elements": 1.0,
        }
        for seed in range(3)
    ]
    with open_run(PROJECT, run_id("p"), "p", "run", {}, tmp_path) as run:
        send_pictures(run, rows, limit=2)
    [offline] = read_offline(tmp_path)
    logged = offline.history[0]
    table = logged.get("pictures") or {key: value for key, value in logged.items() if key.startswith("pictures")}
    assert table
    assert "table" in str(table)
    panels = logged.get("samples") or {key: value for key, value in logged.items() if key.startswith("samples")}
    assert "a photo of {} (seed 1)" in str(panels)
    assert "(seed 2)" not in str(panels)


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(UserError, match=r"logger\.mode=of: must be online, offline"):
        Project("x", mode="of")


def test_the_id_is_of_study_and_cell() -> None:
    assert run_id("a", "b") == run_id("a", "b") != run_id("ab")
    assert len(run_id("a")) == 16

"""A search: what Optuna may propose, what it is told, what is kept, and a front at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from palp_lab.cli import main
from palp_lab.search import SAMPLERS, Search, run_search
from palp_lab.types import UserError
from tests.micro_lab import MicroLab

SPACE = ("method=palp", "weight=tag(log,interval(0.01,1))", "rank=int(interval(2,8))", "reference=personal,noise")


def search(folder: Path, *overrides: str, sampler: str = "random") -> Search:
    parsed = OverridesParser.create().parse_overrides([*(overrides or SPACE)])
    return Search(parsed, sampler, 0, folder / "search.journal", "mine")


class Cells:
    """Stands for a launcher: text falls and identity rises with the weight; `broken` cells return what failures do."""

    def __init__(self, broken: Sequence[int] = ()) -> None:
        self.seen: list[dict[str, str]] = []
        self.numbers: list[int] = []
        self.broken = broken

    def __call__(self, cells: Sequence[Sequence[str]], first: int) -> list[Any]:
        found: list[Any] = []
        for lines in cells:
            number = len(self.seen)
            told = dict(line.split("=", 1) for line in lines)
            self.seen.append(told)
            self.numbers.append(first)
            better = 0.1 if told["reference"] == "personal" else 0.0
            weight = float(told["weight"])
            found.append((float("nan"),) * 2 if number in self.broken else (1 - weight + better, weight))
        return found


def test_cells_are_proposed_within_their_space_and_the_front_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = Cells()
    run_search(search(tmp_path), 12, 4, cells)
    assert len(cells.seen) == 12 and cells.numbers == [n for n in (0, 4, 8) for _ in range(4)]
    assert all(list(told) == ["method", "weight", "rank", "reference"] for told in cells.seen)
    assert {told["method"] for told in cells.seen} == {"palp"}
    assert {told["reference"] for told in cells.seen} == {"personal", "noise"}
    assert all(0.01 <= float(told["weight"]) <= 1 and 2 <= int(told["rank"]) <= 8 for told in cells.seen)
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("of 12 trials are on the front:")
    assert any("reference=personal" in line for line in said)
    texts = [float(line.split("text alignment ")[1].split(",")[0]) for line in said[1:]]
    assert texts == sorted(texts, reverse=True)


def test_the_same_command_goes_on_and_a_cell_whose_process_ended_is_tried_first(tmp_path: Path) -> None:
    run_search(search(tmp_path), 3, 1, Cells())
    [(_, lost)] = search(tmp_path).ask(1)
    cells = Cells()
    run_search(search(tmp_path), 6, 1, cells)
    assert [f"{key}={value}" for key, value in cells.seen[0].items()] == lost
    assert len(cells.seen) == 3, "three were finished, one was lost and is no trial of its own"
    weights = [trial.params["weight"] for trial in search(tmp_path).study.trials]
    assert len(set(weights)) == 6, "nothing is proposed again but what was lost"
    nothing = Cells()
    run_search(search(tmp_path), 6, 1, nothing)
    assert nothing.seen == []


def test_a_search_whose_last_trials_were_killed_runs_them(tmp_path: Path) -> None:
    """All that were asked for together, and killed twice: they are what is missing, not trials that have ended."""
    asked = [lines for _, lines in search(tmp_path).ask(3)]
    search(tmp_path).ask(3)
    cells = Cells()
    run_search(search(tmp_path), 3, 3, cells)
    assert [[f"{key}={value}" for key, value in told.items()] for told in cells.seen] == asked
    assert search(tmp_path).finished() == 3


def test_a_failed_cell_is_told_as_one_and_a_search_of_failures_is_none(tmp_path: Path) -> None:
    one = search(tmp_path / "some")
    run_search(one, 4, 2, Cells(broken=(1, 2)))
    states = [trial.state for trial in one.study.get_trials()]
    kind = optuna.trial.TrialState
    assert states == [kind.COMPLETE, kind.FAIL, kind.FAIL, kind.COMPLETE]
    with pytest.raises(UserError, match="none of 2 trials has a text alignment and an identity"):
        run_search(search(tmp_path / "none"), 2, 1, Cells(broken=(0, 1)))


@pytest.mark.parametrize("returned", [None, 0.5, (0.5,), ("a", "b"), (0.5, float("inf"))])
def test_what_is_not_two_numbers_is_a_failure(tmp_path: Path, returned: Any) -> None:
    one = search(tmp_path)
    [(number, _)] = one.ask(1)
    one.tell(number, returned)
    assert one.study.trials[0].state == optuna.trial.TrialState.FAIL


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_takes_two_objectives_and_repeats_itself(tmp_path: Path, sampler: str) -> None:
    proposed = []
    for folder in ("a", "b"):
        cells = Cells()
        run_search(search(tmp_path / folder, sampler=sampler), 5, 1, cells)
        proposed.append(cells.seen)
    assert proposed[0] == proposed[1]


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to search"):
        search(tmp_path, "method=palp", "seed=1")
    with pytest.raises(UserError, match=r"hydra\.sweeper\.sampler=nsga: must be one of nsga2, tpe"):
        search(tmp_path, sampler="nsga")
    for trials, at_once, said in ((0, 1, "trials=0"), (2, 0, "at_once=0")):
        with pytest.raises(UserError, match=rf"hydra\.sweeper\.{said}: give 1 or more"):
            run_search(search(tmp_path), trials, at_once, Cells())
    with pytest.raises(UserError, match=r"^weight: "):
        search(tmp_path, "weight=tag(log,interval(0,1))")


def test_a_search_of_the_command_lists_no_cells_beforehand(
    micro_lab: MicroLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = ["run", "-m", "--config-dir", str(micro_lab.conf), *micro_lab.overrides, f"output={tmp_path}"]
    assert main([*fixed, "hydra/sweeper=optuna", "seed=0,1", "dry_run=true"]) == 2
    assert "does not know its cells beforehand" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_searches_reports_and_goes_on(
    micro_lab: MicroLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = ["run", "-m", "--config-dir", str(micro_lab.conf), *micro_lab.overrides, f"output={tmp_path}"]
    space = ["method=ti_db", "optimizer.lr=tag(log,interval(0.0001,0.01))", "study_name=found"]
    for trials in (2, 3):
        command = [*fixed, "hydra/sweeper=optuna", f"hydra.sweeper.trials={trials}", "hydra.sweeper.at_once=2", *space]
        assert main(command) == 0
        assert f"of {trials} trials are on the front" in capsys.readouterr().out
        assert len(list((tmp_path / "found" / "cells").glob("*/result.json"))) == trials
    assert (tmp_path / "found" / "report.html").exists()
    wrong = [*fixed, "hydra/sweeper=optuna", "method=ti_db", "optimizer.lrr=interval(0.0001,0.01)"]
    assert main(wrong) == 2
    assert "optimizer.lrr: no such key" in capsys.readouterr().err

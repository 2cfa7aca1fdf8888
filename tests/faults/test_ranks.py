"""One training in two processes, from the command: every rank does its share, one of them draws and scores, and none
waits for another that has stopped."""

from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path

import pytest

from palp_lab.study.result import load_result
from tests.micro_lab import MicroLab, environment
from tests.study.wandb_records import read_offline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1300)]

PATIENCE = 600
"""Seconds until a command counts as hanging; an idle machine needs a twentieth."""

TWO = ("trainer.devices=2", "trainer.strategy=ddp")
TARGET = 'target="a sketch of a {} in the snow"'

TROUBLE = '''
"""A loss that goes wrong in the second rank of a run, at the third step; and a count of who scores."""

import os
from pathlib import Path

import palp_lab.cell
from palp_lab.losses.reconstruction import Reconstruction

real = palp_lab.cell.score_records


def counted(*given, **named):
    with Path(os.environ["SCORED"]).open("a") as file:
        file.write(f"{os.getpid()}\\n")
    return real(*given, **named)


palp_lab.cell.score_records = counted


class Trouble(Reconstruction):
    def __init__(self, how: str) -> None:
        super().__init__()
        self._how = how

    def __call__(self, ctx):
        value = super().__call__(ctx)
        if ctx.step == 2 and os.environ.get("LOCAL_RANK") == "1" and not Path(os.environ["MENDED"]).exists():
            if self._how == "dies":
                Path(os.environ["MENDED"]).touch()
                os._exit(9)
            return value * float(self._how)
        return value
'''


@pytest.fixture
def trouble(micro_lab: MicroLab, tmp_path: Path):  # type: ignore[no-untyped-def]
    """trouble(how, *overrides): the command with a loss that goes wrong in the second rank."""
    (tmp_path / "trouble.py").write_text(TROUBLE)
    conf = tmp_path / "conf"
    for group in ("metrics", "prompts", "losses"):
        (conf / group).mkdir(parents=True)
        if (known := micro_lab.conf / group / "micro.yaml").exists():
            (conf / group / "micro.yaml").write_text(known.read_text())
    (conf / "losses" / "trouble.yaml").write_text('trouble:\n  _target_: trouble.Trouble\n  how: "0.0"\n')
    home = environment()
    home |= {"PALP_LAB_TARGETS": "trouble", "PYTHONPATH": f"{home['PYTHONPATH']}{os.pathsep}{tmp_path}"}
    home |= {"SCORED": str(tmp_path / "scored"), "MENDED": str(tmp_path / "mended")}
    fixed = ("method=ti_db", "losses=[trouble]", f"output={tmp_path / 'output'}", *TWO)

    def go(how: str) -> subprocess.CompletedProcess[str]:
        command = MicroLab(conf, micro_lab.overrides).command(*fixed, f"losses.trouble.how='{how}'")
        # Its end is that of every process that holds the pipe: a rank left behind runs into the limit.
        return subprocess.run(command, env=home, capture_output=True, text=True, timeout=PATIENCE, check=False)

    return go


def curve(output: Path) -> list[dict[str, float]]:
    """What a training logged, step by step."""
    [path] = (output / "store" / "train").glob("*/log.csv")
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def test_a_run_of_two_ranks_is_the_run_of_one(micro_lab: MicroLab, tmp_path: Path) -> None:
    """The same losses at every step as one process with the joined batch, gradients and rates as well."""
    fixed = ("method=palp", TARGET, "trainer.batch_size=4", "log.gradients_every=1")
    for name, more in (("one", ()), ("two", TWO)):
        done = micro_lab(*fixed, f"output={tmp_path / name}", *more, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        [path] = (tmp_path / name / "adhoc" / "cells").glob("*/result.json")
        assert load_result(path).records
        assert [path.name for path in (tmp_path / name / "store/train").iterdir() if ".partial" in path.name] == []
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert [row["step"] for row in two] == [1, 2, 3, 4]
    numbers = ("loss", "gradient", "value", "share", "at_prediction")
    told = [name for name in one[0] if name.split("/")[-1] in numbers or name.startswith("cosine/")]
    assert len(told) == 11
    for a, b in zip(one, two, strict=True):
        assert {name: b[name] for name in told} == pytest.approx({name: a[name] for name in told}, rel=1e-3)


def test_a_run_of_two_ranks_inside_a_slurm_job_starts_its_own(
    micro_lab: MicroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of one task; and one of several that srun has started alike is refused, for each would do the same. One
    rank alone tells Weights & Biases."""
    for name, value in (("NTASKS", "1"), ("PROCID", "0"), ("LOCALID", "0"), ("JOB_ID", "7"), ("JOB_NAME", "mine")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_NODELIST", "localhost")
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-home"))
    command = ("method=ti_db", f"output={tmp_path / 'output'}", *TWO, "logger=wandb", "logger.mode=offline")
    done = micro_lab(*command, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in curve(tmp_path / "output")] == [1, 2, 3, 4]
    [tracked] = read_offline(tmp_path / "output")
    assert tracked.exit_code == 0
    again = micro_lab(*command, timeout=PATIENCE)
    assert again.returncode == 0 and len(read_offline(tmp_path / "output")) == 1, "what was sent is not sent again"
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    refused = micro_lab(*command, timeout=PATIENCE)
    assert refused.returncode == 2
    assert "trainer.devices=2: srun has started this command 2 times" in refused.stderr


def test_one_rank_scores(trouble, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "mended").touch()
    done = trouble("1.0")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "scored").read_text().splitlines()) == 1


@pytest.mark.parametrize("wrong", ["nan", "inf"])
def test_a_loss_that_is_not_finite_in_one_rank_ends_them_all(trouble, tmp_path: Path, wrong: str) -> None:  # type: ignore[no-untyped-def]
    done = trouble(wrong)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count(f"training stopped at step 3: losses.trouble is {wrong}") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "scored").exists()


def test_a_rank_that_dies_ends_the_run_and_the_same_command_goes_on(trouble, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = trouble("dies")
    assert done.returncode != 0
    assert (tmp_path / "mended").exists(), done.stderr
    assert not (tmp_path / "scored").exists()
    again = trouble("dies")
    assert again.returncode == 0, again.stderr
    assert [row["step"] for row in curve(tmp_path / "output")] == [1, 2, 3, 4]

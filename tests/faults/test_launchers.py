"""Sweeps on other engines: every launcher runs the grid, survives a cell that raises and one whose process dies."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

from tests.micro_lab import MicroLab, environment

pytestmark = pytest.mark.slow

CRASHING = '''
"""A loss that ends its process without a word, once."""

import os
from pathlib import Path

from palp_lab.losses.base import AbstractLoss


class Crash(AbstractLoss):
    """Kills the process of the cell with seed 1, unless `flag` is there."""

    source = "none"

    def __init__(self, flag: str, seed: int, weight: float = 0.0) -> None:
        self.weight, self.flag, self.seed = weight, Path(flag), seed

    def __call__(self, ctx):
        if self.seed == 1 and not self.flag.exists():
            self.flag.touch()
            os._exit(9)
        return ctx.model.path.alpha(next(iter(ctx.passes.values())).t).sum() * 0
'''

LAUNCHERS = {
    "basic": (),
    "joblib": ("hydra.launcher.n_jobs=2",),
    "submitit_local": ("hydra.sweep.dir={sweep}", "hydra.sweeper.max_batch_size=2"),
    "ray": ("+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false"),
}


def installed(launcher: str) -> bool:
    name = launcher.split("_")[0]
    return name == "basic" or importlib.util.find_spec(f"hydra_plugins.hydra_{name}_launcher") is not None


@pytest.fixture
def crashing(micro_lab: MicroLab, tmp_path: Path) -> tuple[str, ...]:
    """A package of the user's own with a loss, and the configuration folder that names it."""
    (tmp_path / "crashing.py").write_text(CRASHING)
    conf = tmp_path / "conf"
    for group in ("metrics", "prompts"):
        (conf / group).mkdir(parents=True)
        text = (micro_lab.conf / group / "micro.yaml").read_text()
        (conf / group / "micro.yaml").write_text(text)
    (conf / "losses").mkdir()
    (conf / "losses" / "crash.yaml").write_text(
        f"crash:\n  _target_: crashing.Crash\n  flag: {tmp_path / 'crashed'}\n  seed: ${{seed}}\n"
    )
    return (*MicroLab(conf, micro_lab.overrides).command("-m"), f"output={tmp_path / 'output'}", "method=ti_db")


def launch(command: tuple[str, ...], tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    home = environment()
    home |= {"PALP_LAB_TARGETS": "crashing", "PYTHONPATH": f"{home['PYTHONPATH']}:{tmp_path}"}
    return subprocess.run([*command, *more], env=home, capture_output=True, text=True, timeout=560, check=False)


def results(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "output" / "adhoc" / "cells").glob("*/result.json"))


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.timeout(1700)
def test_a_grid_with_a_cell_that_raises_and_one_that_dies(
    crashing: tuple[str, ...], tmp_path: Path, launcher: str
) -> None:
    if not installed(launcher):
        pytest.skip(f"hydra's {launcher} launcher is not installed")
    options = [option.format(sweep=tmp_path / "sweep") for option in LAUNCHERS[launcher]]
    engine = (f"hydra/launcher={launcher}", *options)
    raising = launch(crashing, tmp_path, *engine, "dataset.superclass=cat,dragon")
    assert raising.returncode == 1, raising.stderr
    assert "1 of 2 cells failed" in raising.stderr
    assert raising.stderr.count("dragon") >= 2
    assert len(results(tmp_path)) == 1
    assert (tmp_path / "output" / "adhoc" / "report.html").exists()

    grid = ("seed=1,3", "losses=[reconstruction,crash]")
    dying = launch(crashing, tmp_path, *engine, *grid)
    assert (tmp_path / "crashed").exists()
    # Ray starts a task again whose process died, and it goes on; the others say so.
    assert (dying.returncode == 0) == (launcher == "ray"), "a cell whose process died is a failure"
    again = launch(crashing, tmp_path, *engine, *grid)
    assert again.returncode == 0, again.stderr
    assert len(results(tmp_path)) == 3

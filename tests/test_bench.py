"""How long things take here: `make bench`. Measures and prints; the numbers of a README come from it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from palp_lab.composition import compose

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

STEPS = 20
TARGET = 'target="a sketch of {} in the snow"'


def seconds(*command: str) -> float:
    """Wall clock of a command in a process of its own, the best of three."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return min(taken)


def test_help() -> None:
    print(f"\npalp-lab run --help       {seconds('-m', 'palp_lab', 'run', '--help'):.2f} s")
    print(f"palp-lab run --cfg job    {seconds('-m', 'palp_lab', 'run', '--cfg', 'job'):.2f} s")


@pytest.mark.parametrize("method", ["textual_inversion", "ti_db", "palp", "dreambooth"])
def test_training_step(method: str, output: Path) -> None:
    from palp_lab.cell import Cell

    words = [f"method={method}", TARGET, f"trainer.max_steps={STEPS}", "log.progress=false", "device=cpu"]
    config = compose("run", *words)
    stage = Cell(config).train()
    per_step = stage.about["cost"]["seconds"] / STEPS
    print(f"\n{method:<20} {1000 * per_step:7.0f} ms per step of {config.trainer.batch_size} photos")


def test_pictures(output: Path) -> None:
    from palp_lab.cell import Cell

    config = compose("run", "method=ti_db", TARGET, "trainer.max_steps=1", "prompts=quick", "device=cpu")
    cell = Cell(config)
    cell.train()
    start = time.perf_counter()
    drawn = cell.pictures("class_word").about["pictures"]
    print(f"\n{1000 * (time.perf_counter() - start) / drawn:.0f} ms per picture of {config.generate.steps} steps")

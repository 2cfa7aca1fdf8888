"""kill -9 in the middle of a run, then the same command again: it goes on, and ends where it would have ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from palp_lab.adapter import read_adapter
from palp_lab.engine.callbacks import read_log
from tests.micro_lab import MicroLab, environment

pytestmark = pytest.mark.slow

STEPS = ("method=palp", 'target="a sketch of a {} in the snow"', "trainer.max_steps=120", "trainer.save_every=10")


def partial(output: Path) -> Path | None:
    return next((output / "store" / "train").glob("*.partial"), None)


def start(lab: MicroLab, output: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        lab.command(f"output={output}", *STEPS, *more),
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for_step(output: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until and process.poll() is None:
        folder = partial(output)
        rows = read_log(folder / "log.csv") if folder else []
        if rows and int(rows[-1]["step"]) >= step:
            return
        time.sleep(0.05)
    pytest.fail("the run ended, or did not begin to train, before it could be killed")


def adapters(output: Path) -> dict[str, object]:
    """Every kept adapter: its tensors' bytes and its description. (The order of a header's keys is not fixed.)"""
    [folder] = [path for path in (output / "store" / "train").iterdir() if path.is_dir()]
    found = {}
    for path in sorted((folder / "adapters").iterdir()):
        tensors, about = read_adapter(path)
        found[path.name] = ({name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, about)
    return found


def test_a_killed_run_continues_and_ends_with_the_same_bits(micro_lab: MicroLab, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert micro_lab(f"output={whole}", *STEPS, "checkpoints=[45]").returncode == 0
    for step in (25, 70):  # twice, once on each side of a kept adapter
        process = start(micro_lab, broken, "checkpoints=[45]")
        wait_for_step(broken, step, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        folder = partial(broken)
        assert folder is not None and not (folder / "manifest.json").exists(), "half a training is not whole"
        assert not list((broken / "adhoc").glob("cells/*/result.json"))
    done = micro_lab(f"output={broken}", *STEPS, "checkpoints=[45]")
    assert done.returncode == 0, done.stderr
    assert "continuing at step" in done.stderr
    assert adapters(broken) == adapters(whole)
    [log] = (broken / "store" / "train").glob("*/log.csv")
    assert [int(row["step"]) for row in read_log(log)] == list(range(1, 121)), "each step is logged once"


def test_two_commands_at_once_do_the_work_once(micro_lab: MicroLab, tmp_path: Path) -> None:
    both = [start(micro_lab, tmp_path) for _ in range(2)]
    assert [process.wait(timeout=280) for process in both] == [0, 0]
    assert len(list((tmp_path / "store" / "train").iterdir())) == 1
    [log] = (tmp_path / "store" / "train").glob("*/log.csv")
    assert [int(row["step"]) for row in read_log(log)] == list(range(1, 121))


@pytest.mark.parametrize(("number", "more"), [(signal.SIGINT, ()), (signal.SIGTERM, ()), (signal.SIGTERM, ("-m",))])
def test_an_interrupted_run_says_how_to_go_on(
    micro_lab: MicroLab, tmp_path: Path, number: signal.Signals, more: tuple[str, ...]
) -> None:
    """By Ctrl-C, or by a time limit: it has not done what was asked, and a sweep begins no further cell."""
    command = micro_lab.command(f"output={tmp_path}", *STEPS, *more, *(["seed=0,1"] if more else []))
    process = subprocess.Popen(
        command, env=environment(), stderr=subprocess.PIPE, text=True,
        # A shell's background job ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    wait_for_step(tmp_path, 15, process)  # type: ignore[arg-type]
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from the last checkpoint" in said
    assert len(list((tmp_path / "store" / "train").glob("*.partial"))) == 1

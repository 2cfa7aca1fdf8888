"""Workers of a sweep on one machine: no two on one device while another is free, whoever ended and was replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from palp_lab.workers import PINNED, own_device

WORKER = (
    "import os, sys; from palp_lab.workers import own_device\n"
    "own_device(int(sys.argv[1])); print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()"
)


@contextmanager
def worker(scratch: Path, number: int, devices: str = "0,1") -> Iterator[str]:
    """A process whose first job has this number, alive inside; gives its device."""
    home = {**os.environ, "TMPDIR": str(scratch), "CUDA_VISIBLE_DEVICES": devices}
    home.pop(PINNED, None)
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(number)],
        env=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize(("told", "number", "device"), [(None, 5, "2"), ("4,6", 3, "6"), ("7", 1, None), ("", 1, None)])
def test_a_worker_takes_one_device_for_all_its_jobs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str | None, number: int, device: str | None
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setenv(PINNED, "x")
    monkeypatch.delenv(PINNED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told or "")
    if told is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for job in (number, number + 1):
        own_device(job)
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == (told if device is None else device)


def test_a_worker_that_replaces_another_takes_its_device(tmp_path: Path) -> None:
    """joblib ends a worker that has grown; the next one's first job may have any number."""
    with worker(tmp_path, 0) as first, ExitStack() as later:
        with worker(tmp_path, 1) as second:
            assert {first, second} == {"0", "1"}
        for number in (4, 6, 7):
            with worker(tmp_path, number) as device:
                assert device == second
        devices = [later.enter_context(worker(tmp_path, number)) for number in (8, 10, 12)]
        assert Counter([first, *devices]) == {"0": 2, "1": 2}, "more workers than devices share them evenly"


def test_a_place_that_cannot_be_kept_is_that_of_the_number(tmp_path: Path) -> None:
    (tmp_path / f"palp_lab-devices-{os.getuid()}").write_text("")
    for number in (0, 1, 2):
        with worker(tmp_path, number, "4,GPU-7/a") as device:
            assert device == ["4", "GPU-7/a"][number % 2]
    (tmp_path / f"palp_lab-devices-{os.getuid()}").unlink()
    with worker(tmp_path, 1, "4,GPU-7/a") as device, worker(tmp_path, 1, "4,GPU-7/a") as other:
        assert (device, other) == ("GPU-7/a", "4")

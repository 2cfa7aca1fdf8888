"""The doctor: says what is there, and what to do where something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from palp_lab.composition import compose
from palp_lab.doctor import doctor


def examine(*overrides: str) -> int:
    """Runs the doctor and returns its exit status."""
    try:
        doctor(compose("doctor", *overrides))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_a_healthy_machine(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = examine("device=cpu", "free_gigabytes=0")
    said = capsys.readouterr().out
    assert status == 0, said
    for subject in ("python", "libraries", "device", "threads", "disk", "model", "wandb"):
        assert f"ok   {subject}" in said
    assert "64 px" in said


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        (["device=toaster"], "must be auto, cpu, cuda or mps"),
        (["threads=100000"], "threads="),
        (["threads=0"], "threads="),
        (["free_gigabytes=1000000000"], "free some"),
        (["model.path=nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_what_is_wrong_comes_with_its_fix(
    overrides: list[str], fix: str, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert examine("device=cpu", *overrides) == 1
    said = capsys.readouterr().out.splitlines()
    wrong = [i for i, line in enumerate(said) if line.startswith("fix ")]
    assert wrong
    assert any("->" in said[i + 1] and fix in said[i + 1] for i in wrong), said


def test_wandb_online_needs_a_key(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(output / "none"))
    assert examine("device=cpu", "logger=wandb") == 1
    assert "wandb login" in capsys.readouterr().out
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    examine("device=cpu", "logger=wandb")
    assert "ok   wandb      online" in capsys.readouterr().out


def test_no_check_stops_the_others(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken device is one line; the rest is still looked at."""
    examine("device=toaster")
    said = capsys.readouterr().out
    assert "fix  model" in said
    assert "wandb" in said

"""A bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from palp_lab.engine import progress as shown
from palp_lab.engine.progress import Bar, Lines, clock, progress


@pytest.mark.parametrize(("terminal", "wanted"), [(True, Bar), (False, Lines)])
def test_a_bar_needs_a_terminal(monkeypatch: pytest.MonkeyPatch, terminal: bool, wanted: type) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert type(progress()) is wanted


@pytest.mark.parametrize(("seconds", "steps"), [(0.0, [4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 41]), (1e6, [4, 41])])
def test_lines_are_few(
    train: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    seconds: float,
    steps: list[int],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    monkeypatch.setattr(shown, "SECONDS", seconds)
    with caplog.at_level(logging.INFO, shown.__name__):
        train(max_steps=41, batch_size=1, show=True)
    lines = [record.getMessage() for record in caplog.records if record.name == shown.__name__]
    assert [int(line.split()[1]) for line in lines] == steps
    assert lines[-1].startswith("step 41 of 41, loss ")
    assert lines[-1].endswith(", 0:00 to go")
    assert "0/?" not in capsys.readouterr().out


def test_time_is_readable() -> None:
    assert [clock(seconds) for seconds in (5, 65.4, 3725)] == ["0:05", "1:05", "1:02:05"]

"""One training in two processes, from the command: every rank does its share, one of them draws and scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from palp_lab.study.result import load_result
from tests.micro_lab import MicroLab

pytestmark = pytest.mark.slow


def test_a_run_of_two_ranks_is_one_run(micro_lab: MicroLab, tmp_path: Path) -> None:
    done = micro_lab("method=ti_db", f"output={tmp_path}", "trainer.devices=2", "trainer.strategy=ddp")
    assert done.returncode == 0, done.stderr
    [path] = (tmp_path / "adhoc" / "cells").glob("*/result.json")
    assert load_result(path).records
    assert [path.name for path in (tmp_path / "store" / "train").iterdir() if ".partial" in path.name] == []

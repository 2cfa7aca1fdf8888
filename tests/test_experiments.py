"""The texts of experiments/ say what the ledgers beside them say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


@pytest.mark.parametrize("script", sorted(EXPERIMENTS.glob("*/tables.py")), ids=lambda path: path.parent.name)
def test_every_table_of_a_study_is_what_its_ledger_gives(script):
    """Nobody can trust a number that no command printed. Where this fails: run the script without --check."""
    if not script.with_name("results.jsonl").exists():
        pytest.skip(f"no {script.parent.name}/results.jsonl here: an archive of the sources leaves the ledgers out")
    ended = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "says what the results say" in ended.stdout

"""The texts of experiments/ say what the ledgers beside them say."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

STUDY = Path(__file__).parent.parent / "experiments" / "palp_vs_ti_db"


@pytest.fixture
def tables(monkeypatch):
    if not (STUDY / "results.jsonl").exists():
        pytest.skip("no ledger here: an archive of the sources leaves experiments/palp_vs_ti_db/results.jsonl out")
    monkeypatch.syspath_prepend(str(STUDY))
    return importlib.import_module("tables")


def test_every_table_of_the_study_is_what_its_ledger_gives(tables):
    """Nobody can trust a number that no command printed: `python experiments/palp_vs_ti_db/tables.py` writes them."""
    text = (STUDY / "README.md").read_text(encoding="utf-8")
    assert [name for name in tables.TABLES if f"<!-- table {name} -->" not in text] == []
    assert tables.written(text) == text


def test_a_changed_number_is_seen_and_mended(tables, monkeypatch, tmp_path, capsys):
    text = (STUDY / "README.md").read_text(encoding="utf-8")
    made = tables.TABLES["0"]()
    short = f"before\n<!-- table 0 -->\n{made}\n<!-- end -->\nafter\n"
    readme = tmp_path / "README.md"
    readme.write_text(short.replace(".", "7", 1), encoding="utf-8")
    monkeypatch.setattr(tables, "HERE", tmp_path)
    assert tables.main(["--check"]) == 1 and readme.read_text(encoding="utf-8") != short
    assert tables.main([]) == 0 and readme.read_text(encoding="utf-8") == short
    assert "read again" in capsys.readouterr().out
    assert made in text
    with pytest.raises(SystemExit, match="'nine'"):
        tables.written("<!-- table nine -->\n<!-- end -->\n")

"""The committed memory of a study: cells that any machine has finished are known everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from palp_lab.study.ledger import merge_jsonl, read_jsonl
from palp_lab.study.locks import locked
from palp_lab.study.rivals import keeps_bounds, with_bounds

if TYPE_CHECKING:
    from palp_lab.cell import Cell
    from palp_lab.study.result import Result

_read: dict[Path, tuple[tuple[int, int], dict[str, Result]]] = {}
"""The last state of each ledger: a sweep asks once per cell, and a ledger may hold many megabytes."""


def ledger_of(cell: Cell) -> Path | None:
    """The ledger a cell's configuration names, if any."""
    from omegaconf import OmegaConf

    told = OmegaConf.select(cell.config, "ledger")
    return Path(told) if told else None


def known_result(cell: Cell) -> Result | None:
    """What the ledger says of a cell, bounds included."""
    ledger = ledger_of(cell)
    if ledger is None or not ledger.exists():
        return None
    results = _results(ledger)
    found = results.get(cell.run)
    return found and with_bounds(found, results.values())


def remember(cell: Cell, result: Result) -> None:
    """Adds a finished cell to its ledger; several processes may.

    The bounds of a concept are the same in all its cells and as large as a cell, so one cell alone keeps them.
    """
    ledger = ledger_of(cell)
    if ledger is None:
        return
    with locked(ledger.with_name(f".{ledger.name}.lock"), str(ledger)):
        known = _results(ledger) if ledger.exists() else {}
        kept = any(keeps_bounds(other, result) for run, other in known.items() if run != result.run)
        merge_jsonl(ledger, [replace(result, bounds=()) if kept else result])


def _results(ledger: Path) -> dict[str, Result]:
    stat = ledger.stat()
    state = (stat.st_mtime_ns, stat.st_size)
    if ledger not in _read or _read[ledger][0] != state:
        _read[ledger] = (state, {result.run: result for result in read_jsonl(ledger)})
    return _read[ledger][1]

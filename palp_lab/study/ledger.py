"""results.jsonl, the committed memory of a study: one compact line per cell, keyed by the cell's hash.

Lines are in a fixed order and each cell has one, so that two machines that ran different cells differ by whole lines.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from palp_lab.study.fields import read_text
from palp_lab.study.result import Bound, MetricValue, Record, Result, load_result
from palp_lab.study.writing import write_text
from palp_lab.types import UserError

logger = logging.getLogger(__name__)

DIGITS = 6
"""Decimals kept in a line (ours): far below any interval, a third of the size."""


def read_jsonl(path: Path) -> list[Result]:
    """All results of a ledger, in order; a cell that appears twice counts once, the later line wins."""
    path = Path(path)
    found: dict[str, Result] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):  # a prompt may hold other line separators
        if line.strip():
            result = Result.from_json(line, where=f"{path}, line {number}")
            found[result.run] = result
    return sorted(found.values(), key=order)


def merge_jsonl(path: Path, results: Iterable[Result]) -> int:
    """Add results to a ledger and return how many cells are new; a cell that is there already is replaced.

    The file is rewritten whole and renamed into place, so a reader never sees half a line. One writer at a time.
    """
    path = Path(path)
    known = {result.run: result for result in read_jsonl(path)} if path.exists() else {}
    before = len(known)
    known.update({result.run: _rounded(result.compact()) for result in results})
    lines = [_line(result) for result in sorted(known.values(), key=order)]
    write_text(path, "".join(f"{line}\n" for line in lines))
    return len(known) - before


def collect(paths: Iterable[Path]) -> list[Result]:
    """Results from result.json files, results.jsonl files, and folders that are searched for both.

    A cell found in several places is taken once; one with pictures beside it (a result.json) wins over a ledger line.
    Where it is filed under several methods, as a baseline given a method's losses is, the first by name has it,
    whatever the order of `paths`, and a line says so.
    """
    found: dict[str, list[Result]] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; run a study first, or give results=[...]")
        for result in _read(path):
            found.setdefault(result.run, []).append(result)
    named = Counter(labels for some in found.values() if len(labels := _labels(some)) > 1)
    for labels, cells in sorted(named.items()):
        logger.warning("%d cells are filed as %s alike and count as %s", cells, " and ".join(labels), labels[0])
    return sorted((min(some, key=_rank) for some in found.values()), key=order)


def _labels(some: Iterable[Result]) -> tuple[str, ...]:
    return tuple(sorted({str(result.axes["method"]) for result in some}))


def _rank(result: Result) -> tuple[str, bool, str]:
    """Which of a cell's results is taken: lowest first, the first that was found among equals."""
    return str(result.axes["method"]), result.folder is None, repr(sorted(result.axes.items()))


def order(result: Result) -> tuple[str, ...]:
    """The sorting key of results: by axes, then by hash; equal on every machine."""
    axes = result.axes
    seed = str(axes["train_seed"]).rjust(12)
    return (
        *(str(axes.get(key) or "") for key in ("dataset", "model", "concept", "method", "target")),
        seed,
        result.run,
    )


def _read(path: Path) -> list[Result]:
    if path.is_dir():
        ledgers = [result for file in sorted(path.rglob("results.jsonl")) for result in read_jsonl(file)]
        return ledgers + [load_result(file) for file in sorted(path.rglob("result.json"))]
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    return [load_result(path)]


def _line(result: Result) -> str:
    values: dict[str, Any] = json.loads(result.to_json(indent=None))
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _rounded(result: Result) -> Result:
    def metric(value: MetricValue) -> MetricValue:
        per_image = value.per_image and tuple(_digits(one) for one in value.per_image)
        return replace(value, value=_digits(value.value), per_image=per_image)

    def measured(item: Any) -> Any:
        return replace(item, metrics={name: metric(value) for name, value in item.metrics.items()})

    records: tuple[Record, ...] = tuple(map(measured, result.records))
    bounds: tuple[Bound, ...] = tuple(map(measured, result.bounds))
    return replace(result, records=records, bounds=bounds)


def _digits(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)

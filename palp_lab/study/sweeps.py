"""What a sweep leaves on disk, so that its end can be judged from there whatever launcher ran it.

Every job has a folder of its own; in it lies `cell.json`: which cells the job finished and where their results are, or,
for a dry run, which stages they would need.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palp_lab.study.writing import write_text

CELLS = "cells.json"


@dataclass(frozen=True)
class Job:
    """One job of a sweep, or a single run: its folder, what was overridden (key -> text), and the keys of parts that
    its study sets."""

    folder: Path
    overrides: Mapping[str, str] = field(default_factory=dict)
    swept: bool = False
    study: tuple[str, ...] = ()


_jobs: list[Job] = []


def begin(job: Job) -> None:
    """Makes this the job of the process."""
    _jobs[:] = [job]


def current() -> Job | None:
    """The job this process works on; None in a notebook."""
    return _jobs[-1] if _jobs else None


def leave_cells(cells: Iterable[Mapping[str, Any]]) -> None:
    """Writes down what the current job did or would do."""
    if (job := current()) is not None:
        write_text(job.folder / CELLS, json.dumps(list(cells), indent=1) + "\n")


Left = tuple[Path, int, int]
"""A file as it was found: a job that writes it anew makes another one of it."""


def left_by(path: Path) -> Left:
    """A file's mark."""
    about = path.stat()
    return path, about.st_mtime_ns, about.st_ino


def cells_of(sweep: Path, earlier: Collection[Left] = ()) -> list[dict[str, Any]]:
    """What the jobs below a folder left, in their order, each cell once; not what was there `earlier`."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(sweep.glob(f"**/{CELLS}"), key=_number):
        if earlier and left_by(path) in earlier:
            continue
        for cell in json.loads(path.read_text(encoding="utf-8")):
            found.setdefault(cell["run"], cell)
    return list(found.values())


def _number(path: Path) -> tuple[int, str]:
    head = path.parent.name.split("_")[0]
    return (int(head) if head.isdigit() else -1, path.parent.name)

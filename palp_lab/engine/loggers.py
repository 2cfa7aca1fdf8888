"""Where the rows of a training go: a CSV file always, a Weights & Biases run besides where there is one."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from palp_lab.study.writing import write_text

STEP = "step"
"""First column: optimizer steps taken when the row was measured."""


class CsvLog(Logger):
    """A table of the training's numbers, one row per logged step, on disk as soon as it is known. Final.

    A killed run keeps its rows, and a run that continues drops those it will measure again. (Lightning's own CSVLogger
    holds rows back and deletes the file of the run it continues.)
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._rows: dict[int, dict[str, float]] = read_log(self.path) if self.path.exists() else {}
        self._columns = list(dict.fromkeys(name for row in self._rows.values() for name in row))
        self._continued = bool(self._rows)

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return self.path.stem

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the whole configuration lies beside the log."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds the numbers of a step; several calls for one step share its row."""
        step = step or 0
        if self._continued:
            self._rewrite({at: row for at, row in self._rows.items() if at < step})
            self._continued = False
        numbers = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        fresh = step not in self._rows and (not self._rows or step > max(self._rows))
        known = all(name in self._columns for name in numbers) and bool(self._rows)
        self._rows.setdefault(step, {}).update(numbers)
        if fresh and known:
            with self.path.open("a", encoding="utf-8", newline="") as stream:
                stream.write(self._text([step]))
        else:
            self._columns += [name for name in numbers if name not in self._columns]
            self._rewrite(self._rows)

    def _rewrite(self, rows: Mapping[int, dict[str, float]]) -> None:
        self._rows = {step: rows[step] for step in sorted(rows)}
        header = ",".join([STEP, *self._columns]) + "\n"
        write_text(self.path, header + self._text(self._rows))

    def _text(self, steps: Any) -> str:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        for step in steps:
            writer.writerow([step, *(self._rows[step].get(name, "") for name in self._columns)])
        return stream.getvalue()


def read_log(path: Path) -> dict[int, dict[str, float]]:
    """The rows of a log by step. A last row that a killed process left unfinished is passed over."""
    rows: dict[int, dict[str, float]] = {}
    text = Path(path).read_text(encoding="utf-8")
    for row in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])):
        step = row.pop(STEP, None)
        if step:
            rows[int(step)] = {name: float(value) for name, value in row.items() if name and value}
    return rows


def build_loggers(folder: Path, wandb_run: Any = None) -> list[Logger]:
    """The loggers of a training: `log.csv` in its folder, and an open Weights & Biases run if one is given.

    Whoever opened the run finishes it (`palp_lab.study.sinks.open_run` does, whatever happens inside its block).
    """
    loggers: list[Logger] = [CsvLog(Path(folder) / "log.csv")]
    if wandb_run is not None:
        loggers.append(WandbLogger(experiment=wandb_run, log_model=False))
    return loggers

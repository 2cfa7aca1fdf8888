"""A table before it is rendered: numbers with their intervals, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass

from palp_lab.study.intervals import Interval

Cell = str | int | float | Interval | None


@dataclass(frozen=True)
class Table:
    """A table before it is rendered: a short name for files, a caption, column heads, rows, and per column which way is
    better (None: not ranked). The first column names the row."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    better: tuple[bool | None, ...]

    def best(self, column: int) -> float | None:
        """The best mean of a column that is ranked and has at least two values."""
        direction = self.better[column]
        values = [row[column].mean for row in self.rows if isinstance(row[column], Interval)]  # type: ignore[union-attr]
        if direction is None or len(values) < 2:
            return None
        return max(values) if direction else min(values)

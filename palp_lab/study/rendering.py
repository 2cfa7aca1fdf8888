"""Tables as Markdown, LaTeX (booktabs), CSV, and as cells for the page."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from html import escape

from palp_lab.study.intervals import Interval
from palp_lab.study.table import Cell, Table

MISSING = "–"
"""What a reader sees where nothing was measured; files for machines leave the field empty."""


def number(value: float, signed: bool = False) -> str:
    """Three decimals for small numbers, fewer for large ones, thousands apart; a minus that reads as one."""
    sign = "+" if signed else ""
    digits = ",.0f" if abs(value) >= 1000 else ".1f" if abs(value) >= 10 else ".3f"
    text = f"{value:{sign}{digits}}"
    return "0.000" if text in ("-0.000", "+0.000") else text.replace("-", "−")


def p_value(value: float) -> str:
    """A p as papers print it."""
    return "< .001" if value < 0.001 else f"{value:.3f}".lstrip("0") or "0"


def range_of(interval: Interval, signed: bool = False) -> str:
    """The interval in brackets, or nothing where there is none."""
    if interval.low is None or interval.high is None:
        return ""
    return f"[{number(interval.low, signed)}, {number(interval.high, signed)}]"


def plain(table: Table, row: Sequence[Cell], column: int) -> tuple[str, str, bool]:
    """A cell as (mean or text, interval in brackets, whether it is the best of its column)."""
    cell = row[column]
    if cell is None:
        return MISSING, "", False
    if isinstance(cell, Interval):
        signed = table.columns[column].startswith("difference")
        return number(cell.mean, signed), range_of(cell, signed), cell.mean == table.best(column)
    if isinstance(cell, float):
        return (p_value(cell) if table.columns[column].startswith("p (") else number(cell)), "", False
    return (f"{cell:,}" if isinstance(cell, int) else cell), "", False


def markdown(tables: Sequence[Table]) -> str:
    """Tables for a README; the best mean of each ranked column is bold."""
    parts = []
    for table in tables:
        right = ["---" if i == 0 else "---:" for i in range(len(table.columns))]
        lines = [f"**{_inline(table.caption)}**", "", _pipes(table.columns), "|" + "|".join(right) + "|"]
        for row in table.rows:
            cells = []
            for column in range(len(row)):
                mean, interval, best = plain(table, row, column)
                cells.append(" ".join(filter(None, (f"**{mean}**" if best else mean, interval))))
            lines.append(_pipes(cells))
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def latex(tables: Sequence[Table]) -> str:
    """Tables for a paper: needs \\usepackage{booktabs}."""
    parts = []
    for table in tables:
        lines = [
            r"\begin{table}[t]",
            r"\centering\small",
            rf"\caption{{{_tex(table.caption)}}}",
            rf"\label{{tab:{table.name.replace('_', '-')}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            r"\toprule",
            " & ".join(_tex(column) for column in table.columns) + r" \\",
            r"\midrule",
        ]
        for row in table.rows:
            cells = []
            for column in range(len(row)):
                mean, interval, best = plain(table, row, column)
                text = _tex(mean) if mean != MISSING else "--"
                text = rf"\textbf{{{text}}}" if best else text
                cells.append(text + (rf" {{\scriptsize {_tex(interval)}}}" if interval else ""))
            lines.append(" & ".join(cells) + r" \\")
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return "% needs \\usepackage{booktabs}\n" + "\n\n".join(parts) + "\n"


def tidy_csv(tables: Sequence[Table]) -> str:
    """All numbers, one per line and unrounded: table, row, column, value, low, high, n, concepts."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["table", "row", "column", "value", "low", "high", "n", "concepts"])
    for table in tables:
        keys = _text_columns(table)
        for row in table.rows:
            name = " | ".join(str(row[i]) for i in keys)
            for column, cell in enumerate(row):
                if column in keys:
                    continue
                if isinstance(cell, Interval):
                    values: list[Cell] = [cell.mean, cell.low, cell.high, cell.n, cell.concepts]
                else:
                    values = [cell, None, None, None, None]
                writer.writerow([table.name, name, table.columns[column], *("" if v is None else v for v in values)])
    return stream.getvalue()


def _text_columns(table: Table) -> list[int]:
    """The columns that name the row: the first, and those that hold words in every row."""
    return [i for i in range(len(table.columns)) if i == 0 or all(isinstance(row[i], str) for row in table.rows)]


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_inline(cell).replace("|", "\\|") for cell in cells) + " |"


def _inline(text: str) -> str:
    """A name in one line of Markdown that begins no HTML: a `<` stays where no tag can begin, as in `< .001`."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", _one_line(text))


def _one_line(text: str) -> str:
    return re.sub(r"\s*[\r\n]+\s*", " ", text)


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$", "<": r"$<$", ">": r"$>$", "·": r"$\cdot$",
    "–": "--", "−": "$-$",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in _one_line(text))


def html(table: Table) -> str:
    """The table for the page, wrapped so that a wide one scrolls; heads carry their scope for screen readers."""
    wordy = set(_text_columns(table))
    head = "".join(f'<th scope="col"{_class(i in wordy)}>{escape(name)}</th>' for i, name in enumerate(table.columns))
    body = []
    for row in table.rows:
        cells = []
        for column in range(len(row)):
            mean, interval, best = plain(table, row, column)
            text = f"<b>{escape(mean)}</b>" if best else escape(mean)
            if column == 0:
                cells.append(f'<th scope="row">{text}</th>')
            else:
                small = f"<small>{escape(interval)}</small>" if interval else ""
                cells.append(f"<td{_class(column in wordy)}>{text}{small}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(table.caption)}"><table>'
        f"<caption><span>{escape(table.caption)}</span></caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _class(wordy: bool) -> str:
    return ' class="words"' if wordy else ""

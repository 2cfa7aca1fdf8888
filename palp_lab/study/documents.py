"""Tables inside a text that somebody wrote: computed from results, held between marks, compared or written.

A mark is `<!-- table NAME -->` and ends at `<!-- end -->`, each on a line of its own; what lies between is the table's.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from palp_lab.study.directions import nearest
from palp_lab.study.fields import read_text
from palp_lab.study.writing import write_text
from palp_lab.types import UserError

Tables = Mapping[str, Callable[[], str]]
"""By name what makes the table's Markdown."""

_MARKED = re.compile(r"(?P<mark>^<!-- table (?P<name>\S+) -->$)\n.*?^<!-- end -->$", re.DOTALL | re.MULTILINE)


def filled(text: str, tables: Tables, where: str = "the text") -> str:
    """The text with every marked table made anew. A mark no table is made for is an error that names the nearest."""

    def made(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in tables:
            raise UserError(f"{where}: no table '{name}' is made for its mark{nearest(name, list(tables))}")
        return f"{match['mark']}\n{tables[name]()}\n<!-- end -->"

    return _MARKED.sub(made, text)


def in_step(path: Path, tables: Tables, write: bool) -> list[str]:
    """The lines in which a document differs from what its tables give, as a unified diff; empty where it does not.
    With `write` it then says what they give."""
    before = read_text(path)
    after = filled(before, tables, where=str(path))
    if write and after != before:
        write_text(path, after)
    return list(difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", n=0, lineterm=""))


def main(path: Path, tables: Tables, arguments: Sequence[str] | None = None) -> int:
    """The command of a script that keeps a document: writes its tables, or with `--check` compares. Returns the exit
    status: 1 where a comparison found a difference or a mark nothing is made for."""
    parser = argparse.ArgumentParser(description=f"The tables of {path.name}, computed from the results beside it.")
    parser.add_argument("--check", action="store_true", help=f"write nothing; exit with 1 where {path.name} differs")
    check = parser.parse_args(arguments).check
    try:
        changed = in_step(path, tables, write=not check)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(changed) if changed else f"{path.name} says what the results say")
    if changed and not check:
        print(f"{path.name}: tables written; read again what the text around them says")
    return int(bool(changed) and check)


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table whose first `words` columns are words and the others numbers."""
    rule = ["---" if place < words else "---:" for place in range(len(heads))]
    shown = [[cell.replace("|", "\\|") for cell in row] for row in (heads, *rows)]
    lines = ["|" + "".join(f" {cell} |" if cell else " |" for cell in row) for row in shown]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def bare(value: float, digits: int = 3, sign: str = "") -> str:
    """A number without the zero before its point, as p and shares are printed; no sign before zero."""
    shown = f"{abs(value):.{digits}f}"
    before = "" if not float(shown) else "-" if value < 0 else sign
    return before + shown.removeprefix("0")

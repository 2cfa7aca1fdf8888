"""Tables inside a text that somebody wrote: computed from results, held between marks, compared or written.

A mark is `<!-- table NAME -->` and ends at `<!-- end -->`, each on a line of its own; what lies between is the table's.
What people write between the tables goes stale when the results grow: a decimal number there has to stand in a table of
its section, or among those that are given from elsewhere, with their source.
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

Given = Mapping[str, Sequence[str]]
"""Numbers of the text that no table makes, by where they come from."""

_NUMBER = re.compile(r"(?<![\w./])[+-]?(\d*\.\d+)(?![\w/])")
_NOT_SAID = re.compile(
    r"^(`{3,}).*?^\1|`[^`\n]*`|^ {4}.*?$|\]\([^)]*\)|arXiv \d{4}\.\d{4,5}(, \d{4}\.\d{4,5})*", re.DOTALL | re.MULTILINE
)
"""Code, links and the numbers of papers."""

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


def unfounded(text: str, given: Given, beside: Iterable[str] = ()) -> list[str]:
    """The decimal numbers of a text, each with its line, that stand in no marked table of their section (from one
    heading to the next), in none of the texts `beside`, and are not given. Signs do not count, digits do: .05 is not
    .050."""
    elsewhere = {number for numbers in given.values() for word in numbers for number in _NUMBER.findall(word)}
    elsewhere |= {number for other in beside for number in _NUMBER.findall(_tables_of(other))}
    lines, start = [], 1
    for section in re.split(r"^(?=#{2,} )", text, flags=re.MULTILINE):
        known = elsewhere | set(_NUMBER.findall(_tables_of(section)))
        said = section
        for silent in (_MARKED, _NOT_SAID):
            said = silent.sub(lambda match: "\n" * match[0].count("\n"), said)
        for place, line in enumerate(said.split("\n"), start):
            lines += [f"{place}: {match[0]}" for match in _NUMBER.finditer(line) if match[1] not in known]
        start += section.count("\n")
    return lines


def _tables_of(text: str) -> str:
    return "\n".join(match[0] for match in _MARKED.finditer(text))


def main(
    path: Path,
    tables: Tables,
    arguments: Sequence[str] | None = None,
    given: Given | None = None,
    beside: Iterable[Path] = (),
) -> int:
    """The command of a script that keeps a document: writes its tables, or with `--check` compares. Returns the exit
    status: 1 where a comparison found a difference, a mark nothing is made for or, where `given` says which numbers
    come from elsewhere, another one (`unfounded`; the tables `beside`, of other documents, count)."""
    parser = argparse.ArgumentParser(description=f"The tables of {path.name}, computed from the results beside it.")
    parser.add_argument("--check", action="store_true", help=f"write nothing; exit with 1 where {path.name} differs")
    check = parser.parse_args(arguments).check
    try:
        changed = in_step(path, tables, write=not check)
        others = [read_text(other) for other in beside]
        stray = [] if given is None else unfounded(read_text(path), given, others)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for number in stray:
        print(f"{path.name}:{number} stands in no table of its section", file=sys.stderr)
    print("\n".join(changed) if changed else f"{path.name} says what the results say")
    if changed and not check:
        print(f"{path.name}: tables written; read again what the text around them says")
    return int(check and bool(changed or stray))


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

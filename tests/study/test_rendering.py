"""Tables: what is best is bold, what is missing stays missing, and every format can be read back."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from palp_lab.study.intervals import Interval
from palp_lab.study.rendering import html, latex, markdown, number, p_value, tidy_csv
from palp_lab.study.table import Table

TABLE = Table(
    "methods",
    "A & B: 95 % of it_all",
    ("method", "n", "identity", "drift", "p (pairs)"),
    (
        ("PALP", 12, Interval(0.7, 0.6, 0.8, 12, 3), Interval(0.2, None, None, 1, 1), 0.0004),
        ("<TI | DB>", 12000, Interval(0.8, 0.75, 0.85, 12, 3), Interval(0.1, None, None, 1, 1), 0.03),
        ("none", 0, None, None, None),
    ),
    (None, None, True, False, None),
)


def test_the_best_of_each_ranked_column_is_bold() -> None:
    text = markdown([TABLE])
    assert "**0.800** [0.750, 0.850]" in text
    assert "**0.100**" in text and "**0.200**" not in text
    assert "| 0.700 [0.600, 0.800] |" in text
    assert "< .001" in text
    assert "| none | 0 | – | – | – |" in text


def test_markdown_rows_have_one_cell_per_column() -> None:
    rows = [line.replace("\\|", "") for line in markdown([TABLE]).splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {6}


ODD = "a\n\n| b | <b>c</b> <!-- d \r\n< 1"


def test_markdown_of_any_name_is_one_row_without_html() -> None:
    """A folder of another tool may be called anything; its name becomes a method."""
    table = Table("odd", ODD, ("method", ODD), ((ODD, ODD),), (None, None))
    caption, empty, *rows = markdown([table]).splitlines()
    assert caption == "**a | b | &lt;b>c&lt;/b> &lt;!-- d < 1**" and empty == ""
    cell = r"a \| b \| &lt;b>c&lt;/b> &lt;!-- d < 1"
    assert rows == [f"| method | {cell} |", "|---|---:|", f"| {cell} | {cell} |"]


def test_latex_of_any_name_is_text() -> None:
    name = "\\ ~ ^ # $ % & _ { }\n\nb"
    text = latex([Table("odd", name, ("method", name), ((name, name),), (None, None))])
    escaped = r"\textbackslash{} \textasciitilde{} \textasciicircum{} \# \$ \% \& \_ \{ \} b"
    assert rf"\caption{{{escaped}}}" in text and rf"{escaped} & {escaped} \\" in text


def test_latex_escapes_and_balances() -> None:
    text = latex([TABLE])
    assert r"A \& B: 95 \% of it\_all" in text
    assert r"$<$TI | DB$>$" in text
    assert text.count("{") == text.count("}")
    assert text.count(r" & ") == 4 * 4
    assert r"\toprule" in text and r"\bottomrule" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_latex_compiles(tmp_path: Path) -> None:
    head = "\\documentclass{article}\\usepackage[utf8]{inputenc}\\usepackage{booktabs}\\begin{document}"
    (tmp_path / "t.tex").write_text(head + latex([TABLE]) + "\\end{document}")
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_csv_keeps_every_digit_and_leaves_the_missing_empty() -> None:
    rows = list(csv.DictReader(io.StringIO(tidy_csv([TABLE]))))
    found = {(row["row"], row["column"]): row for row in rows}
    assert found["PALP", "p (pairs)"]["value"] == "0.0004"
    assert (found["<TI | DB>", "identity"]["low"], found["<TI | DB>", "identity"]["n"]) == ("0.75", "12")
    assert found["none", "identity"]["value"] == ""


def test_html_escapes_and_names_heads() -> None:
    text = html(TABLE)
    assert "&lt;TI | DB&gt;" in text and "<TI" not in text
    assert text.count('scope="col"') == 5 and text.count('scope="row"') == 3


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.12345, False, "0.123"),
        (-0.5, False, "−0.500"),
        (0.5, True, "+0.500"),
        (-0.0001, True, "0.000"),
        (12.34, False, "12.3"),
        (33000.0, False, "33,000"),
    ],
)
def test_numbers_as_people_read_them(value: float, signed: bool, text: str) -> None:
    assert number(value, signed) == text


def test_p_as_papers_print_it() -> None:
    assert [p_value(p) for p in (0.0001, 0.25, 1.0)] == ["< .001", ".250", "1.000"]

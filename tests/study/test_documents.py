"""Tables between marks: computed, compared, written, and nothing else of the text touched."""

from __future__ import annotations

import pytest

from palp_lab.study.documents import bare, filled, in_step, main, markdown, unfounded
from palp_lab.types import UserError

TABLES = {"one": lambda: "| a |\n|---|\n| 1 |", "two": lambda: "| b |\n|---|\n| \\2 |"}
TEXT = """# Words

Before <!-- table one --> in a sentence, which is no mark.
<!-- table one -->
| a |
|---|
| 1 |
<!-- end -->
Between.
<!-- table two -->
<!-- end -->
After.
"""


def test_marked_tables_are_made_anew_and_the_words_stay():
    text = filled(TEXT, TABLES)
    assert text == TEXT.replace("two -->\n", "two -->\n| b |\n|---|\n| \\2 |\n")
    assert filled(text, TABLES) == text, "a second time changes nothing"


def test_a_document_is_compared_or_written(tmp_path, capsys):
    path = tmp_path / "README.md"
    path.write_text(TEXT.replace("| 1 |", "| 7 |"), encoding="utf-8")
    before = path.read_text(encoding="utf-8")
    changed = in_step(path, TABLES, write=False)
    assert {"-| 7 |", "+| 1 |", "+| \\2 |"} <= set(changed) and path.read_text(encoding="utf-8") == before
    assert main(path, TABLES, ["--check"]) == 1 and path.read_text(encoding="utf-8") == before
    assert main(path, TABLES, []) == 0 and path.read_text(encoding="utf-8") == filled(TEXT, TABLES)
    assert "read again what the text around them says" in capsys.readouterr().out
    assert main(path, TABLES, ["--check"]) == 0 and main(path, TABLES, []) == 0
    assert in_step(path, TABLES, write=True) == []


def test_a_mark_that_no_table_is_made_for_is_named(tmp_path, capsys):
    path = tmp_path / "README.md"
    path.write_text(TEXT.replace("table two", "table twoo"), encoding="utf-8")
    with pytest.raises(UserError, match=r"README.md: no table 'twoo' .*did you mean 'two'"):
        in_step(path, TABLES, write=True)
    assert main(path, TABLES, []) == 1 and "'twoo'" in capsys.readouterr().err
    assert main(tmp_path / "none.md", TABLES, []) == 1 and "no such file" in capsys.readouterr().err


def test_a_number_of_the_prose_that_no_table_of_its_section_makes_is_told(tmp_path, capsys):
    said = """# Title of 2.5, as arXiv 2401.06105, 2208.12242 has it
<!-- table one -->
| .123 | +1.5 [-.07, .9] |
<!-- end -->
At -.123 and .07, `x=.55` and [here](v1.75.md):

    run lr=.66

## Next
Now .123 is 3.0 times .9.
"""
    assert unfounded(said, {}) == ["1: 2.5", "10: .123", "10: 3.0", "10: .9"]
    assert unfounded(said, {"a source": ("2.5", "-3.0")}) == ["10: .123", "10: .9"]
    elsewhere = "<!-- table other -->\n| .123 |\n<!-- end -->\nand .9"
    assert unfounded(said, {"a source": ("2.5", "3.0")}, [elsewhere]) == ["10: .9"], "only tables are a source"
    path = tmp_path / "README.md"
    path.write_text(said, encoding="utf-8")
    tables = {"one": lambda: "| .123 | +1.5 [-.07, .9] |"}
    assert main(path, tables, ["--check"]) == 0, "numbers are asked for only where sources are given"
    assert main(path, tables, ["--check"], given={}) == 1
    assert "README.md:10: 3.0 stands in no table of its section" in capsys.readouterr().err
    assert main(path, tables, [], given={}) == 0, "a study's end does not fail for its words"
    given = {"a source": ("2.5", "3.0", ".123", ".9")}
    assert main(path, tables, ["--check"], given=given, beside=[tmp_path / "none.md"]) == 1
    assert main(path, tables, ["--check"], given=given) == 0


def test_markdown_of_a_table():
    assert markdown(("", "n"), [("a | b", "1"), ("", "2")]) == "| | n |\n|---|---:|\n| a \\| b | 1 |\n| | 2 |"
    assert markdown(("a", "b"), [], words=0) == "| a | b |\n|---:|---:|"


@pytest.mark.parametrize(
    ("value", "digits", "sign", "shown"),
    [
        (0.1234, 3, "", ".123"),
        (0.1234, 3, "+", "+.123"),
        (-0.05, 2, "+", "-.05"),
        (-0.0001, 3, "+", ".000"),
        (1.25, 2, "", "1.25"),
        (-10.5, 1, "+", "-10.5"),
        (0.9996, 3, "+", "+1.000"),
    ],
)
def test_bare_numbers(value, digits, sign, shown):
    assert bare(value, digits, sign) == shown

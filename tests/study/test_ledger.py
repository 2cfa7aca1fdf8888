"""results.jsonl: one line per cell, merged without duplicates, in an order that does not depend on who ran first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from palp_lab.study.ledger import collect, merge_jsonl, read_jsonl
from palp_lab.study.result import Cost, Result, save_result
from palp_lab.types import UserError


def test_merging_twice_adds_nothing(study: list[Result], tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert merge_jsonl(path, study[:5]) == 5
    before = path.read_bytes()
    assert merge_jsonl(path, study[:5]) == 0
    assert path.read_bytes() == before


def test_order_does_not_depend_on_who_came_first(study: list[Result], tmp_path: Path) -> None:
    forwards, backwards = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    merge_jsonl(forwards, study[:6])
    for result in reversed(study[:6]):
        merge_jsonl(backwards, [result])
    assert forwards.read_bytes() == backwards.read_bytes()


def test_a_cell_run_again_replaces_its_line(study: list[Result], tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    merge_jsonl(path, study[:3])
    assert merge_jsonl(path, [replace(study[1], cost=Cost(seconds=1.0))]) == 0
    found = {result.run: result for result in read_jsonl(path)}
    assert len(found) == 3
    assert found[study[1].run].cost.seconds == 1.0


def test_values_per_image_are_kept_and_paths_are_not(study: list[Result], tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    pictured = replace(study[0], records=(replace(study[0].records[0], images=("images/secret.png",)),))
    merge_jsonl(path, [pictured])
    assert "secret" not in path.read_text()
    (again,) = read_jsonl(path)
    kept = again.records[0].metrics["identity"].per_image
    assert kept == pytest.approx(pictured.records[0].metrics["identity"].per_image, abs=1e-6)


def test_a_half_written_line_is_named(study: list[Result], tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    merge_jsonl(path, study[:2])
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match=r"results.jsonl, line 2: not valid JSON"):
        read_jsonl(path)


def test_a_prompt_may_hold_any_separator_of_lines(study: list[Result], tmp_path: Path) -> None:
    """One that JSON leaves as it is made the whole ledger unreadable."""
    path = tmp_path / "results.jsonl"
    prompt = "a photo of {}\u2028in the snow\u2029at night\x85alone\x1con\x0bthe\x0cmoon\nagain"
    odd = replace(study[0], records=(replace(study[0].records[0], prompt=prompt),))
    merge_jsonl(path, [odd, study[1]])
    found = {result.run: result for result in read_jsonl(path)}
    assert len(found) == 2 and found[odd.run].records[0].prompt == prompt
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert {result.run: result for result in read_jsonl(path)} == found, "as an editor on Windows saves it"


def test_collecting_prefers_the_result_with_pictures(study: list[Result], tmp_path: Path) -> None:
    merge_jsonl(tmp_path / "results.jsonl", study[:3])
    save_result(study[1], tmp_path / "cells" / "one" / "result.json")
    found = {result.run: result for result in collect([tmp_path])}
    assert len(found) == 3
    assert found[study[1].run].folder == tmp_path / "cells" / "one"
    assert found[study[0].run].folder is None


def test_collecting_from_nowhere_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        collect([tmp_path / "nowhere"])


def test_a_cell_under_two_methods_is_the_same_one_in_any_order(
    study: list[Result], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A baseline given PALP's losses is PALP: one training, one hash, two labels."""
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    relabelled = [replace(one, axes={**one.axes, "method": "ti_db"}) for one in study[:2]]
    merge_jsonl(paths[0], study[:3])
    merge_jsonl(paths[1], relabelled)
    with caplog.at_level("WARNING"):
        forwards, backwards = collect(paths), collect(reversed(paths))
    assert forwards == backwards
    assert [one.axes["method"] for one in forwards] == ["palp"] * 3
    said = "2 cells are filed as palp and ti_db alike and count as palp"
    assert [record.getMessage() for record in caplog.records] == [said] * 2

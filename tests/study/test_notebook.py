"""A study grows over days: its page in the notebook shows what is there, with its n."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from palp_lab.study.ledger import merge_jsonl
from palp_lab.study.notebook import note, results_so_far
from palp_lab.study.result import Result, save_result
from palp_lab.study.study import Question


def test_the_page_grows_with_the_ledger(study: list[Result], tmp_path: Path) -> None:
    ledger = tmp_path / "results.jsonl"
    palp = [r for r in study if r.axes["method"] == "palp" and r.axes["concept"] == "cat 11"]
    baseline = [r for r in study if r.axes["method"] == "ti_db" and r.axes["concept"] == "cat 11"]
    foreign = replace(study[-1], axes={**study[-1].axes, "study": "another"})
    merge_jsonl(ledger, [palp[0], foreign])
    just = save_result(baseline[0], tmp_path / "cell" / "result.json")
    results = results_so_far(ledger, "synthetic", [just])
    assert {result.run for result in results} == {palp[0].run, baseline[0].run}
    page = note(results, Question(resamples=20), "PALP against TI + DB", tmp_path, "part_a")
    text = page.read_text(encoding="utf-8")
    assert "n: 2 cells (PALP 1, TI + DB 1) of 1 concept." in text
    assert "**Nothing is settled: PALP has" in text and "over 1 pair from 1 concept" in text
    assert all((tmp_path / name).stat().st_size > 500 for name in ("part_a.png", "part_a_exposure.png"))
    merge_jsonl(ledger, [*palp, *baseline])
    grown = note(results_so_far(ledger, "synthetic", []), Question(resamples=20), "PALP", tmp_path, "part_a")
    assert "n: 10 cells (PALP 8, TI + DB 2)" in grown.read_text(encoding="utf-8")


def test_one_method_alone_is_a_page_too(study: list[Result], tmp_path: Path) -> None:
    some = [r for r in study if r.axes["method"] == "ti_db"][:1]
    text = note(some, Question(resamples=20), "Where does it begin?", tmp_path, "part_0").read_text(encoding="utf-8")
    assert (tmp_path / "part_0_exposure.png").exists() and "part_0_exposure.png" in text
    last = max(record.step for record in some[0].records)
    short = [replace(some[0], records=[record for record in some[0].records if record.step == last])]
    (tmp_path / "once_exposure.png").write_bytes(b"of an earlier page")
    once = note(short, Question(resamples=20), "Where does it begin?", tmp_path, "once").read_text(encoding="utf-8")
    assert not (tmp_path / "once_exposure.png").exists() and "once.png" in once and "exposure" not in once
    assert "One method: there is nothing to compare it with." in text and "n: 1 cells (TI + DB 1) of 1 concept" in text


def test_bounds_that_another_part_keeps_are_this_parts_too(study: list[Result], tmp_path: Path) -> None:
    ledger = tmp_path / "results.jsonl"
    first, second = [r for r in study if r.axes["method"] == "ti_db" and r.axes["concept"] == "cat 11"][:2]
    assert first.bounds
    elsewhere = replace(first, axes={**first.axes, "study": "another"})
    merge_jsonl(ledger, [elsewhere, replace(second, bounds=())])
    [found] = results_so_far(ledger, "synthetic", [])
    assert found.run == second.run and len(found.bounds) == len(elsewhere.bounds)
    other_photos = replace(elsewhere, axes={**elsewhere.axes, "shots": 99})
    merge_jsonl(ledger, [other_photos])
    [alone] = results_so_far(ledger, "synthetic", [])
    assert not alone.bounds

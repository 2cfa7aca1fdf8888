"""What is missing is named."""

from __future__ import annotations

from dataclasses import replace

from palp_lab.study.gaps import gaps
from palp_lab.study.result import MetricValue, Protocol, Result


def test_a_complete_study_has_all_its_cells(study: list[Result]) -> None:
    found = gaps(study)
    assert (found.cells, found.expected) == (36, 36)
    assert found.sentences == ("Asked for and measured nowhere: drift_without_class_word.",)


def test_missing_cells_are_counted_and_named(study: list[Result]) -> None:
    kept = [r for r in study if (r.axes["method"], r.axes["concept"], r.axes["train_seed"]) != ("ti_db", "robot 12", 1)]
    found = gaps(kept)
    assert (found.cells, found.expected) == (35, 36)
    assert any("1 of 36 cells are missing" in one and "TI + DB, robot 12, seed 1" in one for one in found.sentences)


def test_a_method_beside_the_comparison_may_be_smaller(study: list[Result]) -> None:
    kept = [r for r in study if r.axes["method"] != "textual_inversion" or r.run == textual_inversion(study).run]
    found = gaps(kept, ["palp", "ti_db"])
    assert (found.cells, found.expected) == (30, 30)
    assert "Textual Inversion was run on 1 × 1 concepts × seeds, the comparison on 3 × 2." in found.sentences


def test_a_cell_that_was_run_twice_is_said(study: list[Result]) -> None:
    again = replace(textual_inversion(study), run="another")
    assert any(one.startswith("1 cells repeat the axes of another") for one in gaps([*study, again]).sentences)


def test_a_training_measured_on_one_prompt_at_a_time_is_not_run_twice(study: list[Result]) -> None:
    one = textual_inversion(study)
    first, second = sorted({record.prompt for record in one.records})[:2]
    parts = [
        replace(one, run=name, records=tuple(record for record in one.records if record.prompt == prompt))
        for name, prompt in (("a", first), ("b", second))
    ]
    rest = [result for result in study if result is not one]
    assert not any("repeat the axes" in sentence for sentence in gaps([*rest, *parts]).sentences)


def textual_inversion(study: list[Result]) -> Result:
    return next(result for result in study if result.axes["method"] == "textual_inversion")


def test_a_target_that_one_concept_lacks_is_missing(study: list[Result]) -> None:
    first = next(result for result in study if result.axes["target"])
    found = gaps([result for result in study if result is not first])
    assert found.expected - found.cells == 1
    assert any(str(first.axes["target"]) in one for one in found.sentences)


def test_subjects_may_have_targets_of_their_own(study: list[Result]) -> None:
    first, second, third, fourth = sorted({str(r.axes["target"]) for r in study if r.axes["target"]})
    own = {"cat 11": (None, first, second), "robot 12": (None, third, fourth)}
    some = [r for r in study if r.axes["target"] in own.get(str(r.axes["concept"]), ())]
    found = gaps(some, ["palp", "ti_db"])
    assert (found.cells, found.expected) == (12, 12)
    assert any("Not every subject has the same targets (2 of 4)" in one for one in found.sentences)
    lost = next(r for r in some if r.axes["target"] == third)
    said = " ".join(gaps([r for r in some if r is not lost], ["palp", "ti_db"]).sentences)
    assert "1 of 12 cells are missing" in said and third in said
    teapot = [r for r in study if r.axes["concept"] == "teapot 13" and r.axes["method"] == "ti_db"]
    said = " ".join(gaps([*some, *teapot], ["palp", "ti_db"]).sentences)
    assert "2 of 16 cells are missing, so this is a partial result: PALP, teapot 13, seed 0; PALP, teapot 13" in said


def test_metrics_bounds_seeds_and_protocols_are_looked_at(study: list[Result]) -> None:
    def without_text(result: Result) -> Result:
        lost = {"text_alignment": MetricValue("image", None, None, 0)}
        records = tuple(replace(record, metrics={**record.metrics, **lost}) for record in result.records)
        return replace(result, records=records, protocol=Protocol("tiny", "2"))

    some = [without_text(r) if r.axes["method"] == "ti_db" else r for r in study if r.axes["train_seed"] == 0]
    some = [replace(r, bounds=tuple(b for b in r.bounds if b.name != "described")) for r in some]
    said = " ".join(gaps(some).sentences)
    assert "text_alignment was not measured for TI + DB." in said
    assert "Bounds not measured: described." in said
    assert "One training seed only" in said
    assert "different protocols (tiny 1, tiny 2)" in said


def test_other_networks_and_other_weights_are_said(study: list[Result]) -> None:
    first, *rest = study
    other = replace(first, protocol=Protocol("tiny", "1", {"clip": "another"}))
    assert any("different networks of one protocol" in one for one in gaps([other, *rest]).sentences)
    bases = [replace(result, data={"hashes": {"model": str(i < 3)}}) for i, result in enumerate(study)]
    assert any("Cells of tiny stand on different weights" in one for one in gaps(bases).sentences)
    same = [replace(result, data={"hashes": {"model": "one"}}) for result in study]
    assert not any("weights" in one for one in gaps(same).sentences)

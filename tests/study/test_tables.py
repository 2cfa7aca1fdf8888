"""What the tables hold, checked against the results they were made from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palp_lab.study.intervals import Interval
from palp_lab.study.rendering import markdown
from palp_lab.study.result import MetricValue, Result
from palp_lab.study.study import Question, Study, study_of
from palp_lab.study.table import Table
from palp_lab.study.tables import comparison_table

FAST = Question(resamples=30)


@pytest.fixture(scope="module")
def answered(study: list[Result]) -> Study:
    return study_of(study, FAST)


def table(answered: Study, name: str) -> Table:
    return next(one for one in answered.tables if one.name == name)


def cell(found: Table, row: str, column: str) -> object:
    line = next(line for line in found.rows if line[0] == row)
    return line[found.columns.index(column)]


def test_n_counts_the_units_that_the_intervals_rest_on(answered: Study) -> None:
    """Drift has prompts of its own, which are no units of text alignment."""
    found = table(study_of(answered.results, Question(resamples=30, scope="all")), "methods_all")
    for line in found.rows:
        counted = [one.n for one in line if isinstance(one, Interval)]
        assert line[found.columns.index("n")] == max(counted)


def test_the_mean_of_a_method_is_the_mean_of_its_records(answered: Study, study: list[Result]) -> None:
    values = [
        record.metrics["identity"].value
        for result in study
        if result.axes["method"] == "ti_db"
        for record in result.records
        if record.step == 500
    ]
    found = cell(table(answered, "methods_own"), "TI + DB", "identity")
    assert isinstance(found, Interval)
    assert found.mean == pytest.approx(np.mean([value for value in values if value is not None]))


def test_a_method_with_targets_counts_its_own_prompts_only(answered: Study, study: list[Result]) -> None:
    values = [
        record.metrics["text_alignment"].value
        for result in study
        for record in result.records
        if record.step == 500 and record.own_target
    ]
    found = cell(table(answered, "methods_own"), "PALP", "text alignment")
    assert isinstance(found, Interval)
    assert found.mean == pytest.approx(np.mean([value for value in values if value is not None]))
    assert found.n == len(values) == 24


def test_every_prompt_has_a_row_with_its_kind(answered: Study) -> None:
    found = table(answered, "prompts_text_alignment")
    assert sorted(str(row[1]) for row in found.rows) == ["new style", "new style", "same style", "same style"]
    assert all(isinstance(value, Interval) and value.n == 6 for row in found.rows for value in row[2:])


def test_a_prompt_the_metric_was_not_measured_on_has_no_row(study: list[Result]) -> None:
    """Drift's prompts have no text alignment; a line of dashes for each would say nothing."""
    silent = [
        replace(
            result,
            records=tuple(
                replace(one, metrics={name: m for name, m in one.metrics.items() if name != "text_alignment"})
                if one.prompt == study[0].records[0].prompt
                else one
                for one in result.records
            ),
        )
        for result in study
    ]
    untargeted = [result for result in silent if result.axes["target"] is None]
    found = table(study_of(untargeted, FAST), "prompts_text_alignment")
    prompts = {str(row[0]) for row in found.rows}
    assert prompts and study[0].records[0].prompt not in prompts


def test_drift_is_shown_whatever_the_scope(study: list[Result]) -> None:
    """Its prompts are without the subject, so that no method is tuned for them."""
    name = "drift_with_class_word"

    def drifted(result: Result) -> Result:
        last = next(one for one in reversed(result.records))
        value = MetricValue("image", 0.1 if result.axes["method"] == "palp" else 0.2, None, 4)
        plain = replace(last, prompt="a photo of a cat", prompt_group="drift", own_target=False, metrics={name: value})
        earlier = replace(plain, step=100, metrics={name: replace(value, value=0.9)})
        return replace(result, records=(*result.records, earlier, plain))

    answered = study_of(list(map(drifted, study)), FAST)
    found = table(answered, "methods_own")
    for row, mean in (("PALP", 0.1), ("TI + DB", 0.2)):
        value = cell(found, row, "drift with class word")
        assert isinstance(value, Interval) and value.mean == pytest.approx(mean) and value.n == 6
        assert cell(found, row, "n") == 24, "as of the prompts of the scope"
    assert found.better[found.columns.index("drift with class word")] is False
    assert "On prompts without the subject: drift with class word." in found.caption


def test_a_prompt_that_other_tools_tell_no_kind_of_has_one_row(study: list[Result]) -> None:
    foreign = [
        replace(
            r,
            run=f"{r.run} foreign",
            axes={**r.axes, "method": "another tool"},
            records=tuple(replace(one, prompt_group=None) for one in r.records),
        )
        for r in study
        if r.axes["method"] == "ti_db"
    ]
    found = table(study_of([*foreign, *study], FAST), "prompts_identity")
    assert sorted(str(row[1]) for row in found.rows) == ["new style", "new style", "same style", "same style"]
    assert all(isinstance(value, Interval) for row in found.rows for value in row[2:])


def test_own_target_is_told_from_other_prompts(answered: Study) -> None:
    found = table(answered, "transfer")
    column = found.columns.index("text alignment")
    palp = {str(row[1]): row[column] for row in found.rows if row[0] == "PALP"}
    own, other = palp["the prompt tuned for"], palp["other prompts"]
    assert isinstance(own, Interval) and isinstance(other, Interval)
    assert own.mean > other.mean + 0.03


def test_without_targets_there_is_no_transfer(study: list[Result]) -> None:
    plain = [result for result in study if result.axes["target"] is None]
    assert "transfer" not in {one.name for one in study_of(plain, FAST).tables}


def test_cost_and_volume_share_a_row(answered: Study) -> None:
    found = table(answered, "cost")
    assert cell(found, "PALP", "cells") == 24
    assert cell(found, "PALP", "minutes") == pytest.approx(100.5 / 60)
    volume = cell(found, "PALP", "hypervolume")
    assert isinstance(volume, Interval) and volume.mean > 0


def test_the_bounds_have_rows(answered: Study) -> None:
    found = table(answered, "bounds")
    assert [row[0] for row in found.rows][:2] == ["class word", "described"]


def test_the_comparison_says_who_against_whom(answered: Study) -> None:
    found = comparison_table(answered.comparisons)
    assert found.caption.startswith("PALP minus TI + DB")
    assert {str(row[1]) for row in found.rows} >= {"step 100", "step 500", "equal identity"}
    assert "saturation" not in {str(row[0]) for row in found.rows}, "a metric without a better end is not compared"


def test_every_pair_of_methods_has_a_row(answered: Study) -> None:
    """Three methods, three pairs; the baseline of the claim is taken from the others, and they from the challenger."""
    found = table(answered, "pairs")
    names = sorted({str(result.axes["method"]) for result in answered.results})
    assert len(names) == 3 and len(found.rows) == 3
    row = next(line for line in found.rows if line[0] == "PALP minus TI + DB")
    by_step = {(one.metric, one.at): one for one in answered.comparisons}
    wanted = [by_step["text_alignment", "step 500"], by_step["identity", "step 500"]]
    assert list(row[1:3]) == [one.difference for one in wanted] and row[3] == wanted[0].p_concepts
    level = by_step["text_alignment", "equal identity"]
    assert (row[4], row[5]) == (level.difference, level.p_concepts)
    assert (row[6], row[7]) == tuple(f"{one.pairs} of {one.possible}" for one in (wanted[0], level))
    assert all(isinstance(line[1], Interval) and line[8] == 3 for line in found.rows)
    assert sum(str(line[0]).endswith("minus TI + DB") for line in found.rows) == 2
    assert "| +0." in markdown([found]) and "| ." in markdown([found])


def test_two_methods_need_no_table_of_pairs(study: list[Result]) -> None:
    two = [result for result in study if result.axes["method"] in ("ti_db", "palp")]
    assert "pairs" not in {one.name for one in study_of(two, FAST).tables}

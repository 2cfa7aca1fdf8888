"""What is averaged with what: nothing that differs in more than chance, and a claim over the same units throughout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from palp_lab.study.curves import curves_over_knobs, volumes_per_concept
from palp_lab.study.dreambench_plus import lay_out
from palp_lab.study.ledger import collect
from palp_lab.study.observations import bound_observations, bounds_beside, observations, scoped
from palp_lab.study.questionnaire import choose, last_pictures
from palp_lab.study.result import MetricValue, Result
from palp_lab.study.statistics import compare_at_step, sign_flip_p
from palp_lab.study.study import Question, study_of
from palp_lab.study.tiles import tiles
from palp_lab.types import UserError
from tests.study.test_headline import difference

AXES = ("identity", "text_alignment")


def drawn_at(result: Result, guidance: float, run: str, bounds: float = 0.0) -> Result:
    """The same training, drawn with another guidance, by which its bounds are moved."""

    def moved(metrics: dict[str, MetricValue]) -> dict[str, MetricValue]:
        return {k: replace(v, value=None if v.value is None else v.value + bounds) for k, v in metrics.items()}

    records = tuple(replace(r, knobs={**r.knobs, "guidance": guidance}) for r in result.records)
    rivals = tuple(replace(b, metrics=moved(dict(b.metrics))) for b in result.bounds)
    return replace(result, run=run, records=records, bounds=rivals)


def test_the_p_of_a_difference_is_that_of_the_mean_which_is_shown() -> None:
    """Where some prompts have more seeds than others, plain means over pairs are another quantity."""
    rows, rare = [], (-0.09, -0.02, -0.05, 0.01, -0.08, 0.002)
    for concept in range(6):
        for prompt, seeds, gain in (("p", 4, 0.01), ("q", 1, rare[concept])):
            for seed in range(seeds):
                for series, value in (("ti_db", 0.3), ("palp", 0.3 + gain)):
                    rows.append({
                        "run": f"{concept}{seed}{series}", "method": series, "dataset": "d", "model": "m",
                        "concept": f"c{concept}", "prompt": prompt, "train_seed": seed, "target": None,
                        "prompt_group": None, "own_target": False, "step": 1, "knobs": (), "series": series,
                        "text_alignment": value,
                    })  # fmt: skip
    one = compare_at_step(pd.DataFrame(rows), "ti_db", "palp", "text_alignment", 1, resamples=50)
    assert one is not None
    shown, plain = ([(seeds * 0.01 + gain) / (seeds + 1) for gain in rare] for seeds in (1, 4))
    assert one.difference.mean == pytest.approx(np.mean(shown))
    assert one.p_concepts == sign_flip_p(shown) != sign_flip_p(plain)


def test_a_tile_claims_no_more_than_the_answer_does(study: list[Result]) -> None:
    """The interval over pairs excludes 0, the exact test over concepts does not agree: nothing is better."""
    answered = study_of(study, Question(resamples=20))
    for p, kind in ((0.031, "better"), (0.062, "open")):
        found = [replace(difference(axis, "step 500", 0.02, 0.01), p_concepts=p) for axis in AXES]
        shown = tiles(replace(answered, comparisons=tuple(found)))
        assert {tile["kind"] for tile in shown} == {kind}
        assert all(("the test over concepts does not agree" in tile["words"]) == (kind == "open") for tile in shown)


def test_a_subject_on_two_base_models_is_one_subject(study: list[Result]) -> None:
    other = [replace(result, run=f"{result.run} b", axes={**result.axes, "model": "sd15"}) for result in study]
    frame = observations([*study, *other])
    assert {"palp · model sd15", "palp · model tiny"} <= set(frame["series"])
    answered = study_of([*study, *other], Question(compare=("ti_db · model tiny", "palp · model tiny"), resamples=20))
    assert {one.difference.concepts for one in answered.comparisons} == {3}
    bounds = bound_observations([*study, *other])
    rows = scoped(frame, "own")
    alone = volumes_per_concept(rows[rows["series"] == "palp · model tiny"], bounds, AXES)
    assert alone == volumes_per_concept(scoped(observations(study), "own").query("series == 'palp'"), bounds, AXES)


def test_costs_are_those_of_a_setting(study: list[Result]) -> None:
    """A LoRA and all weights of one method have no mean size that any training had."""
    full = [
        replace(
            result,
            run=f"{result.run} full",
            axes={**result.axes, "edits": "full"},
            cost=replace(result.cost, trainable_parameters=5e6),
        )
        for result in study
        if result.axes["method"] == "ti_db"
    ]
    found = next(t for t in study_of([*study, *full], Question(resamples=20)).tables if t.name == "cost")
    sizes = {str(row[0]): row[4] for row in found.rows}
    assert sizes["TI + DB · edits full"] == 5_000_000 and sizes["TI + DB"] == 33_000
    assert all(row[-1] is not None for row in found.rows), "each has its own volume"


def test_bounds_are_those_that_were_drawn_as_the_pictures_are(study: list[Result]) -> None:
    strange = [drawn_at(result, 12.0, f"{result.run} 12", bounds=-0.2) for result in study if "cat" in str(result.axes)]
    usual, both = study_of(study, Question(resamples=20)), study_of([*study, *strange], Question(resamples=20))
    assert both.reference == usual.reference
    assert [(a.name, a.x and a.x.mean) for a in both.anchors] == [(a.name, a.x and a.x.mean) for a in usual.anchors]
    only = bound_observations(strange)
    assert len(bounds_beside(only, observations(study))) == len(only), (
        "a subject without such a bound keeps what it has"
    )


def test_values_of_a_knob_are_compared_over_the_same_subjects(study: list[Result]) -> None:
    """Guidance does nothing here; it was drawn for one subject more, which must not show as an effect."""
    trained = [result for result in study if result.axes["method"] == "ti_db"]
    some = [drawn_at(result, 3.0, f"{result.run} 3") for result in trained if "cat" not in str(result.axes["concept"])]
    (curve,) = curves_over_knobs(observations([*trained, *some]), AXES, resamples=20)
    assert curve.knob == "guidance" and {point.x.n for point in curve.points} == {2 * 4 * 2}
    assert len({round(point.x.mean, 9) for point in curve.points}) == 1


def pictured(study_folder: Path) -> list[Result]:
    return [result for result in collect([study_folder]) if result.axes["train_seed"] == 0]


def test_raters_see_settings_of_a_method_apart_and_no_odd_knobs(study_folder: Path) -> None:
    results = pictured(study_folder)
    fast = [
        replace(result, run=f"{result.run} fast", axes={**result.axes, "optimizer.lr": 0.01})
        for result in results
        if result.axes["method"] == "ti_db"
    ]
    odd = [drawn_at(result, 1.0, f"{result.run} 1") for result in results if result.axes["method"] == "ti_db"]
    assert odd[0].run not in {result.run for result, _ in last_pictures([*results, *odd[:1]])}
    items = choose([*results, *fast, *odd[:1]], forms=1, seed=0)
    assert {item.method for item in items} == {"palp", "textual_inversion", "ti_db", "ti_db · optimizer.lr 0.01"}


def test_raters_compare_within_one_base_model(study_folder: Path) -> None:
    results = pictured(study_folder)
    other = [replace(result, run=f"{result.run} b", axes={**result.axes, "model": "sd15"}) for result in results]
    items = choose([*results, *other], forms=1, seed=0)
    places: dict[tuple[str, str], set[str]] = {}
    for item in items:
        places.setdefault((item.concept, item.prompt), set()).add(f"{item.method} on {item.model}")
    assert {len(found) for found in places.values()} == {6}, "three methods on each of two models"


def test_no_picture_of_a_layout_lies_where_another_was_written(study_folder: Path, tmp_path: Path) -> None:
    results = [result for result in pictured(study_folder) if result.axes["method"] == "ti_db"]
    fast = [replace(result, run=f"{result.run} f", axes={**result.axes, "optimizer.lr": 0.01}) for result in results]
    counts = lay_out([*results, *fast], tmp_path / "apart")
    assert set(counts) == {"ti_db", "ti_db_optimizer_lr_0_01"} and len(set(counts.values())) == 1
    written = len(list((tmp_path / "apart" / "samples" / "ti_db" / "tgt_image").rglob("*.jpg")))
    assert written == counts["ti_db"]
    twice: list[Result] = [*results, *(replace(result, run=f"{result.run} again") for result in results)]
    with pytest.raises(UserError, match="one place"):
        lay_out(twice, tmp_path / "twice")

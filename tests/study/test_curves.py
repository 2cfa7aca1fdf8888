"""Curves, their front, their volume, and the bounds beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from palp_lab.study.curves import anchors, curves_over_knobs, curves_over_steps, reference_point, volumes_per_concept
from palp_lab.study.observations import bound_observations, observations, scoped
from palp_lab.study.pareto import hypervolume, on_front
from palp_lab.study.result import MetricValue, Result
from palp_lab.study.study import Question, study_of

AXES = ("identity", "text_alignment")
REFERENCE = (0.4, 0.2)


def test_a_curve_per_method_with_every_step_and_n(study: list[Result]) -> None:
    curves = curves_over_steps(scoped(observations(study), "own"), AXES, REFERENCE, resamples=50)
    assert [curve.series for curve in curves] == ["palp", "textual_inversion", "ti_db"]
    for curve in curves:
        assert [point.label for point in curve.points] == ["0", "100", "200", "350", "500"]
        assert {point.x.n for point in curve.points} == {3 * 4 * 2}
        assert {point.x.concepts for point in curve.points} == {3}


def test_the_marked_front_is_the_front_of_the_cloud(study: list[Result]) -> None:
    curves = curves_over_steps(scoped(observations(study), "own"), AXES, REFERENCE, resamples=50)
    points = [point for curve in curves for point in curve.points]
    expected = on_front([(point.x.mean, point.y.mean) for point in points], (True, True)).tolist()
    assert [point.on_front for point in points] == expected
    assert any(expected) and not all(expected)


def test_the_method_that_keeps_text_dominates_more_volume(study: list[Result]) -> None:
    curves = curves_over_steps(scoped(observations(study), "own"), AXES, REFERENCE, resamples=50)
    volume = {curve.series: curve.volume for curve in curves}
    palp, ti_db = volume["palp"], volume["ti_db"]
    assert palp is not None and ti_db is not None
    assert palp.mean > ti_db.mean
    assert palp.low is not None and palp.high is not None and palp.low < palp.mean < palp.high


def test_volumes_per_concept_are_those_of_the_concept_alone(study: list[Result]) -> None:
    frame, bounds = scoped(observations(study), "own"), bound_observations(study)
    axes = ("identity", "text_alignment")
    palp, alone = (volumes_per_concept(frame[frame["series"] == name], bounds, axes) for name in ("palp", "ti_db"))
    assert list(palp) == list(alone) == sorted(frame["concept"].unique())
    assert all(palp[concept] > alone[concept] > 0 for concept in palp), "palp keeps text, concept by concept"
    one = frame[(frame["series"] == "palp") & (frame["concept"] == "cat 11")]
    own = bounds[bounds["concept"] == "cat 11"]
    corner = [
        own[(own["name"] == name) & own["prompt"].isin(one["prompt"])][axis].mean()
        for name, axis in (("class_word", axes[0]), ("training_photos", axes[1]))
    ]
    marks = one.groupby("step")[list(axes)].mean().to_numpy()
    assert palp["cat 11"] == pytest.approx(hypervolume(marks, corner, (True, True)))


def test_a_missing_step_of_a_cell_lowers_n_there_only(study: list[Result]) -> None:
    cells = [result for result in study if result.axes["method"] == "ti_db"]
    short = replace(cells[0], records=tuple(record for record in cells[0].records if record.step < 500))
    (curve,) = curves_over_steps(observations([short, *cells[1:]]), AXES, REFERENCE, resamples=50)
    assert [point.x.n for point in curve.points] == [24, 24, 24, 24, 20]
    assert curve.volume is not None and curve.volume.n == 20


def test_a_swept_knob_is_a_curve_of_its_own(study: list[Result]) -> None:
    cells = []
    for result in (result for result in study if result.axes["method"] == "ti_db"):
        last = [record for record in result.records if record.step == 500]
        swept = tuple(replace(record, knobs={**record.knobs, "guidance": g}) for record in last for g in (3.0, 9.0))
        cells.append(replace(result, records=(*result.records, *swept)))
    (curve,) = curves_over_knobs(observations(cells), AXES, resamples=50)
    assert (curve.series, curve.knob) == ("ti_db", "guidance")
    assert [point.label for point in curve.points] == ["3", "5", "9"]


def test_a_curve_over_steps_holds_the_usual_knobs_alone(study: list[Result]) -> None:
    cells = []
    for result in (result for result in study if result.axes["method"] == "ti_db"):
        last = [record for record in result.records if record.step == 500]
        swept = tuple(replace(record, knobs={**record.knobs, "guidance": 9.0}, metrics={}) for record in last)
        cells.append(replace(result, records=(*result.records, *swept)))
    for record in (record for cell in cells for record in cell.records if record.knobs["guidance"] == 9.0):
        record.metrics.update({axis: MetricValue("image", 5.0, None, 1) for axis in AXES})  # type: ignore[attr-defined]
    usual, whole = (
        curves_over_steps(observations(some), AXES, REFERENCE, resamples=20)
        for some in ([r for r in study if r.axes["method"] == "ti_db"], cells)
    )
    assert [p.x.mean for p in whole[0].points] == [p.x.mean for p in usual[0].points]
    assert max(p.x.mean for p in whole[0].points) < 1


def test_the_interval_of_a_volume_covers_95_percent_of_its_draws(study: list[Result]) -> None:
    """A single step's volume over the corner is a product of two gains, whose interval is known from theirs."""
    rows = scoped(observations(study), "own")
    rows = rows[(rows["method"] == "palp") & (rows["step"] == 500)].assign(text_alignment=1.0)
    (curve,) = curves_over_steps(rows, AXES, (0.0, 0.0), resamples=2000)
    x, volume = curve.points[0].x, curve.volume
    assert volume is not None and volume.low is not None and volume.high is not None
    assert x.low is not None and x.high is not None
    assert volume.mean == pytest.approx(x.mean)
    assert volume.high - volume.low == pytest.approx(x.high - x.low, rel=0.01)


def test_a_volume_lies_in_its_interval_where_a_concept_lacks_the_last_step(study: list[Result]) -> None:
    """Of a study under way both are over the units that have all steps."""
    rows = scoped(observations(study), "own")
    rows = rows[rows["method"] == "palp"]
    lifted = rows["concept"] == "cat 11"
    rows = rows.assign(identity=rows["identity"] + 0.3 * lifted)[~(lifted & (rows["step"] == 500))]
    (curve,) = curves_over_steps(rows, AXES, (0.0, 0.0), resamples=500)
    (alone,) = curves_over_steps(rows[~lifted.reindex(rows.index)], AXES, (0.0, 0.0), resamples=500)
    assert curve.volume is not None and alone.volume is not None
    assert curve.volume.low is not None and curve.volume.high is not None
    assert curve.volume.mean == pytest.approx(alone.volume.mean)
    assert curve.volume.low <= curve.volume.mean <= curve.volume.high


def test_pictures_without_knobs_are_on_no_knobs_curve(study: list[Result]) -> None:
    """Pictures of other tools say nothing of how they were drawn; beside ours with a single knob they once crashed."""
    ours, others = [], []
    for result in (result for result in study if result.axes["method"] in ("ti_db", "palp")):
        bare = result.axes["method"] == "palp"
        records = tuple(replace(r, knobs={} if bare else {"guidance": 5.0}) for r in result.records)
        (others if bare else ours).append(replace(result, records=records))
    assert curves_over_knobs(observations([*ours, *others[:2]]), AXES, resamples=20) == []


def test_a_swept_knob_can_beat_a_trained_mark(study: list[Result]) -> None:
    cells = []
    for result in (result for result in study if result.axes["method"] == "ti_db"):
        last = [record for record in result.records if record.step == 500]
        better = {
            name: replace(metric, value=None if metric.value is None else metric.value + 1.0)
            for name, metric in last[0].metrics.items()
        }
        swept = tuple(replace(record, knobs={**record.knobs, "guidance": 9.0}, metrics=better) for record in last)
        cells.append(replace(result, records=(*result.records, *swept)))
    found = study_of(cells, Question(resamples=20))
    assert not any(point.on_front for curve in found.curves for point in curve.points)
    assert [point.on_front for point in found.knob_curves[0].points] == [False, True]


def test_no_knob_swept_no_curve(study: list[Result]) -> None:
    assert curves_over_knobs(observations(study), AXES, resamples=50) == []


def test_anchors_sit_where_the_bounds_are(study: list[Result]) -> None:
    found = {anchor.name: anchor for anchor in anchors(bound_observations(study), AXES, None, resamples=50)}
    assert set(found) == {"class_word", "described", "held_out_photos", "training_photos", "true_renders"}
    word = found["class_word"]
    assert word.x is not None and word.x.mean == pytest.approx(0.41, abs=0.01)
    assert word.y is not None and word.y.n == 12


def test_anchors_of_some_prompts_are_those_prompts_alone(study: list[Result]) -> None:
    """The bounds beside aligned methods are those of the prompts that were tuned for; photos count for every prompt."""
    bounds = bound_observations(study)
    prompts = sorted(bounds["prompt"].dropna().unique())
    bounds.loc[bounds["prompt"] == prompts[0], "identity"] += 3.0
    bounds.loc[bounds["name"] == "training_photos", "prompt"] = None
    some = {anchor.name: anchor for anchor in anchors(bounds, AXES, prompts[1:], resamples=20)}
    word, photos = some["class_word"], some["training_photos"]
    assert word.x is not None and word.x.mean == pytest.approx(0.41, abs=0.01) and word.x.n == 9
    assert photos.x is not None and photos.x.mean > 1


def test_the_reference_is_the_corner_of_two_trivial_rivals(study: list[Result]) -> None:
    found = anchors(bound_observations(study), AXES, None, resamples=50)
    x, y = reference_point(found, AXES)
    assert (x, y) == (pytest.approx(0.41, abs=0.01), pytest.approx(0.21, abs=0.01))
    assert reference_point([], AXES) == (0.0, 0.0)


def test_a_bound_without_one_axis_keeps_the_other(study: list[Result]) -> None:
    bounds = bound_observations(study)
    bounds.loc[bounds["name"] == "held_out_photos", "text_alignment"] = float("nan")
    photos = next(anchor for anchor in anchors(bounds, AXES, None, resamples=50) if anchor.name == "held_out_photos")
    assert photos.y is None and photos.x is not None

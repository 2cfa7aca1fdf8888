"""The figures: every curve, mark and bound is drawn where its number says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from palp_lab.study.curves import Anchor, Curve, CurvePoint
from palp_lab.study.figure import front_figure, legend_columns, literal, png
from palp_lab.study.intervals import Interval
from palp_lab.study.observations import observations
from palp_lab.study.palette import COLOURS, MARKS, styles, words
from palp_lab.study.progress_figure import exposure_figure, kind_of, progress_metrics, training_figure
from palp_lab.study.result import Result
from palp_lab.study.scale import scale_over
from palp_lab.study.study import Question, study_of
from palp_lab.study.svg import front_svg, mark_svg, whisker_svg

AXES = ("identity", "text_alignment")


def interval(mean: float, half: float | None = 0.02) -> Interval:
    return Interval(mean, None if half is None else mean - half, None if half is None else mean + half, 8, 2)


def curve(series: str, points: list[tuple[float, float]], front: bool = True, knob: str | None = None) -> Curve:
    marks = tuple(CurvePoint(str(100 * i), interval(x), interval(y), front) for i, (x, y) in enumerate(points))
    return Curve(series, marks, knob)


CURVES = [curve("palp", [(0.4, 0.33), (0.6, 0.32), (0.75, 0.3)]), curve("ti_db", [(0.4, 0.33), (0.7, 0.25)], False)]
BOUNDS = [
    Anchor("class_word", interval(0.4), interval(0.34)),
    Anchor("training_photos", interval(1.0), None),
    Anchor("held_out_photos", None, interval(0.2)),
]


def test_marks_lie_where_their_means_are() -> None:
    (plane,) = front_figure(CURVES, BOUNDS, AXES).axes
    lines = {str(line.get_label()).split(" (")[0]: line for line in plane.lines}
    assert list(lines["PALP"].get_xydata()[:, 0]) == [0.4, 0.6, 0.75]  # type: ignore[index,call-overload]
    assert list(lines["TI + DB"].get_xydata()[:, 1]) == [0.33, 0.25]  # type: ignore[index,call-overload]
    written = " ".join(text.get_text() for text in plane.texts)
    for said in ("PALP", "TI + DB", "class word", "copies of training photos", "held-out photos"):
        assert said in written


def test_the_front_is_drawn_through_the_marks_that_are_on_it() -> None:
    (plane,) = front_figure(CURVES, BOUNDS, AXES).axes
    drawn = next(line for line in plane.lines if line.get_label() == "Pareto front")
    assert sorted(drawn.get_xdata(orig=True)) == [0.4, 0.6, 0.75]  # type: ignore[arg-type]


def test_far_bounds_give_the_curves_a_plane_of_their_own() -> None:
    far = [Anchor("true_renders", interval(9.0), interval(4.0))]
    assert len(front_figure(CURVES, far, AXES).axes) == 2
    assert len(front_figure(CURVES, BOUNDS, AXES).axes) == 1


def test_a_loss_has_the_same_dashes_whoever_trains_with_it() -> None:
    """And steps are whole: a training of three has no tick at 1.5."""
    steps = [1.0, 2.0, 3.0]
    own = {"step": steps, "reconstruction/value": steps}
    figure = training_figure({"ti_db": [own], "palp": [{**own, "prompt_alignment/value": steps}]})
    assert figure is not None
    (plane,) = figure.axes
    dashes = {str(line.get_label()): line.get_linestyle() for line in plane.lines}
    assert dashes["PALP: reconstruction"] == dashes["TI + DB: reconstruction"] != dashes["PALP: prompt alignment"]
    assert all(float(tick).is_integer() for tick in plane.get_xticks())
    logs = {f"{loss}/value": steps for loss in ("reconstruction", "prompt_alignment")}
    both = training_figure({"palp": [{"step": steps, **logs, "cosine/reconstruction~prompt_alignment": steps}]})
    assert both is not None
    keys = [line for line in both.legends[0].get_lines() if line.get_label() != "PALP"]
    assert len(both.axes) == 2 and len(keys) == 3 == len({line.get_linestyle() for line in keys}), "and a pair its own"


def test_a_crowd_of_curves_has_names_and_no_numbers() -> None:
    """Numbers of steps beside fifty marks belong to nobody; a setting's name is in the legend."""
    many = [curve(name, [(0.4 + i / 30, 0.33), (0.5 + i / 30, 0.3 - i / 90)]) for i, name in enumerate("abcdefgh")]
    for curves, crowded in (
        (many, False),
        ([*many, curve("ti_db · optimizer.lr 0.1", [(0.4, 0.2), (0.5, 0.1)])], True),
    ):
        (plane,) = front_figure(curves, [], AXES).axes
        written = [text.get_text() for text in plane.texts]
        assert ("0" in written) is not crowded and ("a" in written) is crowded
        assert not any("lr 0.1" in text for text in written)
        assert len([line for line in plane.lines if line.get_marker() not in ("None", "", None)]) >= len(curves)


def test_every_curve_says_of_how_many_it_is() -> None:
    """A swept knob may have been drawn for fewer subjects than the trainings it stands beside."""
    path = [(0.4, 0.3), (0.5, 0.2)]
    (plane,) = front_figure([curve("palp", path), curve("palp", path, knob="guidance")], [], AXES).axes
    labels = [str(line.get_label()) for line in plane.lines if line.get_marker() not in ("None", "", None)]
    assert [label.split(" (n = ")[0] for label in labels] == ["PALP", "PALP, guidance swept"]
    assert all(label.endswith(f"(n = {curve('palp', path).points[0].x.n})") for label in labels)


ODD = (r"$\x$", "5$", "$a$ and $b$", r"\$", "_mine", "_$")


@pytest.mark.parametrize("name", ODD)
def test_a_user_s_text_is_drawn_letter_for_letter(name: str, study: list[Result]) -> None:
    """A dollar is no formula, and a folder that begins with an underscore is in the legend like any other."""
    front = front_figure([curve(name, [(0.4, 0.3), (0.5, 0.2)]), curve(name, [(0.4, 0.2)], knob=name)], [], AXES, name)
    cells = [replace(cell, axes={**cell.axes, "method": name}) for cell in study if cell.axes["method"] == "ti_db"]
    exposure = exposure_figure(observations(cells).rename(columns={"elements": name}), [name], resamples=20)
    training = training_figure({name: [{"step": [0, 1], f"{name}/value": [1.0, 0.5]}]})
    assert training is not None
    for figure in (front, exposure, training):
        assert png(figure).startswith(b"\x89PNG")
        shown = [text.get_text() for text in figure.legends[0].get_texts()]
        assert any(text.startswith(literal(name)) for text in shown)
    assert len(front.legends[0].get_texts()) == 3, "two curves and the front"
    (plane,) = front.axes
    drawn, plain = plane.text(0.4, 0.3, literal(name)), plane.text(0.4, 0.3, name, parse_math=False)
    assert drawn.get_window_extent().bounds == plain.get_window_extent().bounds


def test_the_same_numbers_are_the_same_bytes() -> None:
    assert png(front_figure(CURVES, BOUNDS, AXES)) == png(front_figure(CURVES, BOUNDS, AXES))


def test_a_single_mark_without_interval_is_a_figure_too() -> None:
    lone = Curve("palp", (CurvePoint("10", interval(0.5, None), interval(0.3, None), True),))
    assert png(front_figure([lone], [], AXES)).startswith(b"\x89PNG")
    assert "NaN" not in front_svg([lone], [], AXES) and "nan" not in front_svg([lone], [], AXES)


def test_the_svg_holds_the_same_marks() -> None:
    svg = front_svg([*CURVES, curve("ti_db", [(0.5, 0.3), (0.6, 0.29)], False, "guidance")], BOUNDS, AXES)
    assert svg.count('class="mark') == 7 and svg.count("onfront") == 3
    assert 'data-series="ti_db, guidance"' in svg
    assert (
        "PALP, 200 steps | identity 0.750 [0.730, 0.770] | text alignment 0.300 [0.280, 0.320] | n = 8, 2 concepts"
        in svg
    )


def test_the_svg_tells_series_by_their_shapes_too() -> None:
    """As front.png does: whoever sees no colours, or more curves than there are colours, still tells them apart."""
    names = [f"method_{i}" for i in range(10)]
    svg = front_svg([curve(name, [(0.5, 0.3)]) for name in names], [], AXES)
    for name, drawn in zip(names, svg.split('class="series"')[1:], strict=True):
        look = styles(names)[name]
        assert f"--c:{look.colour}" in drawn
        kind, points = ("circle", "") if look.mark == "o" else ("polygon", mark_svg(look.mark, 0, 0, 7))
        assert drawn.count(f'<{kind} class="dot"') == 1
        assert drawn.split('points="')[-1].count(",") == (points.count(",") or 1)
    assert len({mark_svg(mark, 0, 0, 5) for mark in MARKS}) == len(MARKS)


@pytest.mark.parametrize("mark", [mark for mark in MARKS if mark != "o"])
def test_every_mark_covers_what_the_circle_covers(mark: str) -> None:
    corners = [tuple(map(float, pair.split(","))) for pair in mark_svg(mark, 40, 60, 10).split('"')[3].split()]
    around = [*corners[1:], corners[0]]
    area = sum(a * d - b * c for (a, b), (c, d) in zip(corners, around, strict=True)) / 2
    assert abs(area) == pytest.approx(math.pi * 100, rel=0.02)
    assert all(math.dist(corner, (40, 60)) < 18 for corner in corners)


def test_a_whisker_is_symmetric_about_zero() -> None:
    assert 'cx="100.0"' in whisker_svg(interval(0.0), 1.0)
    assert 'cx="148.0"' in whisker_svg(interval(0.5), 1.0)


def test_ticks_are_round_and_within() -> None:
    for low, high in ((0.2, 0.35), (0.0, 1.0), (-3.0, 170.0), (0.31, 0.312)):
        scale = scale_over([(low, high)], 0.0, 100.0)
        ticks = scale.ticks()
        assert 3 <= len(ticks) <= 10
        assert all(scale.low <= tick <= scale.high for tick in ticks)
        assert len({scale.words(tick) for tick in ticks}) == len(ticks)
    assert scale_over([(0.5, 0.5)], 0.0, 100.0)(0.5) == pytest.approx(50.0)


def test_the_claim_s_methods_keep_their_colours() -> None:
    assert styles(["ti_db", "p_plus"])["ti_db"] == styles(["palp", "ti_db"])["ti_db"]
    assert styles(["ti_db · edits full", "p_plus"])["ti_db · edits full"] == styles(["ti_db"])["ti_db"]
    twice = styles(["ti_db · shots 1", "ti_db · shots 3", "palp"])
    assert len({(look.colour, look.mark) for look in twice.values()}) == 3
    many = styles([f"method {i:02d}" for i in range(12)] + ["palp"])
    assert many["palp"].colour == COLOURS[0] and len(many) == 13
    crowd = styles(f"method {i:02d}" for i in range(62))
    assert len({(look.colour, look.mark) for look in crowd.values()}) == 62, "no two look alike"
    assert words("ti_db · shots 3") == "TI + DB · shots 3"


def test_exposure_draws_a_line_per_series_and_metric(study: list[Result]) -> None:
    cells = [r for r in study if r.axes["method"] == "ti_db"]
    shots = [replace(r, axes={**r.axes, "shots": n}) for n, r in zip((1, 3) * 3, cells, strict=True)]
    figure = exposure_figure(observations(shots, ["shots"]), ["text_alignment", "elements"], resamples=20)
    assert figure is not None
    for plane in figure.axes:
        assert [line.get_label() for line in plane.lines] == ["TI + DB · shots 1", "TI + DB · shots 3"]
        assert {line.get_color() for line in plane.lines} == {COLOURS[1]}
        assert len({line.get_linestyle() for line in plane.lines}) == 2


def test_six_settings_of_one_method_have_dashes_of_their_own_and_a_legend_that_fits(study: list[Result]) -> None:
    cells = [r for r in study if r.axes["method"] == "ti_db"]
    shots = [replace(r, axes={**r.axes, "photos of the subject": n}) for n, r in enumerate(cells)]
    rows = observations(shots, ["photos of the subject"])
    figure = exposure_figure(rows, ["text_alignment", "elements"], resamples=20)
    assert figure is not None and len(cells) == 6
    dashes = {str(line._unscaled_dash_pattern) for line in figure.axes[0].lines}  # type: ignore[attr-defined]
    assert len(dashes) == 6
    figure.canvas.draw()
    (legend,) = figure.legends
    assert legend.get_window_extent().x0 >= 0 and legend.get_window_extent().x1 <= figure.bbox.width


def test_more_settings_than_dashes_look_as_on_the_front(study: list[Result]) -> None:
    cells = [replace(r, axes={**r.axes, "method": "ti_db", "shots": i}) for i, r in enumerate(study[:7])]
    figure = exposure_figure(observations(cells, ["shots"]), ["elements"], resamples=20)
    assert figure is not None
    looks = {line.get_label(): (line.get_color(), line.get_marker()) for line in figure.axes[0].lines}
    front = styles(f"ti_db · shots {i}" for i in range(7))
    assert looks == {words(name): (look.colour, look.mark) for name, look in front.items()} and len(front) == 7
    assert {line.get_linestyle() for line in figure.axes[0].lines} == {"-"}


def test_one_step_is_no_exposure(study: list[Result]) -> None:
    rows = observations(study)
    last = rows[rows["step"] == rows["step"].max()]
    assert exposure_figure(last, ["elements"], resamples=20) is None
    names = progress_metrics(rows, ("identity", "text_alignment")), progress_metrics(rows, ("elements", "identity"))
    assert names == (["text_alignment", "elements", "identity"], ["identity", "elements"])


@pytest.mark.parametrize(("value", "beyond"), [(1.0, False), (0.999, False), (1.2, True)])
def test_an_axis_of_shares_ends_at_one(study: list[Result], value: float, beyond: bool) -> None:
    rows = observations(study).assign(elements=value)
    figure = exposure_figure(rows, ["elements"], resamples=20)
    assert figure is not None
    top = figure.axes[0].get_ylim()[1]
    assert top > 1.05 if beyond else value < top < 1.01


def test_training_curves_are_sorted_by_what_they_are() -> None:
    kinds = {
        "reconstruction/value": "loss",
        "prompt_alignment/at_prediction": "at_prediction",
        "reconstruction/gradient": "gradient",
        "cosine/reconstruction~prompt_alignment": "cosine",
        "reconstruction/share": None,
        "loss": None,
        "step": None,
    }
    assert {name: kind_of(name) for name in kinds} == kinds
    log = {"step": [0, 10, 20], "reconstruction/value": [1.0, None, 0.5], "cosine/a~b": [None, -0.2, 0.1]}
    figure = training_figure({"palp": [log, log]})
    assert figure is not None and len(figure.axes) == 2
    assert training_figure({"palp": [{"step": [0, 1], "learning_rate": [1.0, 1.0]}]}) is None


def test_a_long_legend_leaves_the_curves_their_place() -> None:
    log = {"step": [0, 10], "reconstruction/value": [1.0, 0.5], "prior_preservation/value": [1.0, 0.5]}
    name = "custom_diffusion · losses [reconstruction,prior_preservation,prompt_alignment]"
    figure = training_figure({name: [log]})
    assert figure is not None
    figure.canvas.draw()
    (plane,) = figure.axes
    assert plane.get_position().width > 0.6
    label = plane.get_legend_handles_labels()[1][0]
    assert label.replace("\n", " ") == (
        "Custom Diffusion · reconstruction + prior preservation + prompt alignment: prior preservation"
    )


def test_long_names_get_fewer_columns_and_stay_in_the_picture(study: list[Result]) -> None:
    assert legend_columns(["PALP (n = 24)"] * 3, 10) == 3 and legend_columns(["TI + DB (n = 6)"] * 9, 14.5) == 4
    knobs = {"losses.prompt_alignment.weight": 0.3, "losses.prompt_alignment.alpha": 7.5, "shots": 3}
    some = [replace(r, axes={**r.axes, **knobs, "shots": 1 + i % 3}) for i, r in enumerate(study)]
    answered = study_of(some, Question(series=tuple(knobs), resamples=20))
    figure = front_figure([*answered.curves], answered.anchors, answered.axes, "title")
    (legend,) = figure.legends
    assert legend.get_window_extent().x0 >= 0 and legend.get_window_extent().x1 <= figure.bbox.width

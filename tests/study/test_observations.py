"""The long table: what may be compared with what."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from palp_lab.study.curves import curves_over_knobs
from palp_lab.study.observations import (
    at_usual_knobs,
    bound_observations,
    filed_alike,
    metric_names,
    mixed_axes,
    observations,
    per_unit,
    require_metric,
    scoped,
    usual_knobs,
)
from palp_lab.study.palette import words
from palp_lab.study.result import Result
from palp_lab.study.study import Question, compared, study_of
from palp_lab.types import UserError


def test_a_row_per_record_and_a_column_per_measured_metric(study: list[Result]) -> None:
    frame = observations(study)
    assert len(frame) == sum(len(result.records) for result in study)
    assert "identity" in metric_names(frame)
    assert "drift_without_class_word" not in metric_names(frame), "null everywhere is not measured"


def test_a_replaced_part_is_in_the_name_of_the_curve_where_it_is_alone_too(study: list[Result]) -> None:
    """PALP with other losses is not PALP, and a study that asks for a method finds its one curve all the same."""
    own = {"losses": "[reconstruction,mine]", "optimizer.lr": 0.1}
    changed = [
        replace(result, axes={**result.axes, **own}) if result.axes["method"] == "palp" else result for result in study
    ]
    name = "palp · losses [reconstruction,mine]"
    frame = observations(changed)
    assert (
        set(frame["series"]) == {name, "ti_db", "textual_inversion"} and words(name) == "PALP · reconstruction + mine"
    )
    found = study_of(changed, Question(compare=("ti_db", "palp"), resamples=20))
    assert {pair.challenger for pair in found.comparisons} == {name}
    alike = [replace(result, axes={**result.axes, "edits": "full"}) for result in study]
    pair = compared(observations(alike), Question())
    assert pair == ("ti_db · edits full", "palp · edits full"), "the claim's pair, where both have the part"
    assert compared(frame, Question()) is None, "three curves, and no PALP"
    both = compared(observations([*changed, *study]), Question(compare=("ti_db", "palp")))
    assert both == ("ti_db", "palp"), "the method itself, where it is there"


def test_an_unmeasured_metric_names_the_nearest(study: list[Result]) -> None:
    with pytest.raises(UserError, match="'identiti' was not measured in these results; did you mean 'identity'"):
        require_metric(observations(study), "identiti")


def test_own_scope_pairs_targets_with_the_same_prompts_of_untargeted_methods(study: list[Result]) -> None:
    two_targets = [result for result in study if result.axes["target"] in (None, *sorted_targets(study)[:2])]
    own = scoped(observations(two_targets), "own")
    assert set(own["prompt"]) == set(sorted_targets(study)[:2])
    assert own.loc[own["method"] == "palp", "own_target"].all()
    assert set(own["method"]) == {"palp", "ti_db", "textual_inversion"}


def test_other_scope_excludes_the_own_target_only_where_there_is_one(study: list[Result]) -> None:
    other = scoped(observations(study), "other")
    assert not other["own_target"].any()
    assert set(other.loc[other["method"] == "ti_db", "prompt"]) == set(sorted_targets(study))


def test_without_targets_every_scope_is_everything(study: list[Result]) -> None:
    frame = observations([result for result in study if result.axes["target"] is None])
    assert len(scoped(frame, "own")) == len(scoped(frame, "other")) == len(frame)


def test_an_unknown_scope_is_named(study: list[Result]) -> None:
    with pytest.raises(UserError, match="scope 'owm' is unknown; did you mean 'own'"):
        scoped(observations(study), "owm")


def test_knob_sweeps_do_not_leak_into_the_usual_rows(study: list[Result]) -> None:
    records = study[0].records
    swept = replace(records[-1], knobs={**records[-1].knobs, "guidance": 9.0})
    frame = observations([replace(study[0], records=(*records, swept))])
    assert len(at_usual_knobs(frame)) == len(records)
    assert dict(usual_knobs(frame))["guidance"] == 5.0


def test_a_swept_knob_is_one_curve_of_a_method_and_not_several_methods(study: list[Result]) -> None:
    one = next(result for result in study if result.axes["method"] == "ti_db")
    settings = [
        replace(
            one,
            run=f"guidance {value}",
            axes={**one.axes, "generate.guidance": value},
            records=tuple(replace(record, knobs={**record.knobs, "guidance": value}) for record in one.records),
        )
        for value in (3.0, 5.0, 7.5)
    ]
    frame = observations(settings)
    assert set(frame["series"]) == {"ti_db"}
    assert len(curves_over_knobs(frame, ("identity", "text_alignment"), resamples=10, seed=0)) == 1


def test_other_tools_pictures_stand_beside_ours_though_nobody_told_their_knobs(study: list[Result]) -> None:
    one = next(result for result in study if result.axes["method"] == "ti_db")
    foreign = [
        replace(
            one,
            run=f"foreign {seed}",
            axes={**one.axes, "method": "another tool", "train_seed": seed},
            records=tuple(replace(record, knobs={}) for record in one.records),
        )
        for seed in range(40)
    ]
    usual = at_usual_knobs(observations([*study, *foreign]))
    assert {"another tool", "palp", "ti_db"} <= set(usual["method"]), "whoever is the majority"


def test_several_targets_of_one_unit_are_averaged(study: list[Result]) -> None:
    frame = scoped(observations(study), "other")
    rows = frame[(frame["method"] == "palp") & (frame["step"] == 500)]
    units = per_unit(rows, ["identity"])
    unit = units.index[0]
    mine = rows[(rows["concept"] == unit[2]) & (rows["prompt"] == unit[3]) & (rows["train_seed"] == unit[4])]
    assert len(mine) == 3
    assert units.iloc[0, 0] == pytest.approx(mine["identity"].mean())


def test_a_bound_that_every_cell_repeats_counts_once(study: list[Result]) -> None:
    bounds = bound_observations(study)
    assert len(bounds) == 5 * 3 * 4
    assert bounds.groupby(["name", "concept", "prompt"]).size().max() == 1


def test_an_axis_can_split_a_method(study: list[Result]) -> None:
    result = replace(study[0], axes={**study[0].axes, "shots": 3})
    assert observations([result], series=["shots"])["series"].unique().tolist() == ["palp · shots 3"]


def test_a_swept_setting_splits_its_method_by_itself(study: list[Result]) -> None:
    weight = "losses.prompt_alignment.weight"
    swept = [replace(study[0], run=f"w{w}", axes={**study[0].axes, weight: w}) for w in (0.5, 2.0)]
    untouched = next(result for result in study if result.axes["method"] == "ti_db")
    names = set(observations([study[0], *swept, untouched])["series"])
    assert names == {"palp", f"palp · {weight} 0.5", f"palp · {weight} 2.0", "ti_db"}
    assert set(observations([study[0], untouched])["series"]) == {"palp", "ti_db"}
    twice = [replace(study[0], run=f"s{n}", axes={**study[0].axes, "shots": n, "dataset.shots": n}) for n in (1, 3)]
    assert set(observations(twice)["series"]) == {"palp · shots 1", "palp · shots 3"}


def sorted_targets(study: list[Result]) -> list[str]:
    return sorted({str(result.axes["target"]) for result in study if result.axes["target"]})


@pytest.mark.parametrize(
    ("settings", "usual"),
    [
        ([(3.0, 1.0), (5.0, 0.4), (5.0, 1.0), (9.0, 1.0), (5.0, 0.6)], (5.0, 1.0)),  # one knob at a time: the middle
        ([(g, s) for g in (3.0, 7.5, 12.0) for s in (0.4, 1.0)], (7.5, 1.0)),  # a whole grid: as people draw
        ([(3.0, 1.0), (3.0, 1.0), (7.5, 1.0)], (3.0, 1.0)),  # what most share
    ],
)
def test_of_settings_that_as_many_share_the_usual_one_is_no_accident(
    settings: list[tuple[float, float]], usual: tuple[float, float]
) -> None:
    for order in (settings, settings[::-1]):
        rows = [(("guidance", guidance), ("strength", strength)) for guidance, strength in order]
        found = dict(usual_knobs(pd.DataFrame({"knobs": rows})))
        assert (found["guidance"], found["strength"]) == usual


def test_cells_that_no_axis_tells_apart_are_averaged_and_said(study: list[Result]) -> None:
    """Numbers of two settings under one name would pass for one method."""
    assert filed_alike(observations(study)) == {}
    assert not any("averaged" in line for line in study_of(study, Question(resamples=20)).headline.sentences)
    first = next(result for result in study if result.axes["method"] == "ti_db")
    twin = replace(first, run="00twin")
    both = sorted([first.run, "00twin"])
    assert filed_alike(observations([*study, twin])) == {"ti_db": both}
    told = [line for line in study_of([*study, twin], Question(resamples=20)).headline.sentences if "averaged" in line]
    assert len(told) == 1 and told[0].startswith("2 cells of TI + DB (") and all(run[:8] in told[0] for run in both)
    other = replace(twin, axes={**twin.axes, "edits.targets": "[attn]"})
    assert filed_alike(observations([*study, other])) == {}, "an axis tells them apart"
    later = replace(twin, records=tuple(replace(one, step=one.step + 1) for one in twin.records))
    assert filed_alike(observations([*study, later])) == {}, "nothing is measured twice"


def test_axes_that_differ_between_subjects_are_mixed_and_knobs_are_not(study: list[Result]) -> None:
    steps = {"cat 11": 350, "robot 12": 500, "teapot 13": 500}
    some = [
        replace(r, axes={**r.axes, "max_steps": steps[str(r.axes["concept"])], "generate.guidance": r.axes["concept"]})
        for r in study
        if r.axes["method"] == "ti_db"
    ]
    assert mixed_axes(some) == {"ti_db": {"max_steps": [350, 500]}}
    assert mixed_axes(some, ["max_steps"]) == mixed_axes(study) == {}

"""The words must follow from the numbers, above all where the numbers say little."""

from __future__ import annotations

from dataclasses import replace

import pytest

from palp_lab.study.headline import headline, unasked
from palp_lab.study.intervals import Interval
from palp_lab.study.result import Result
from palp_lab.study.statistics import STOPPED, Comparison
from palp_lab.study.study import Question, study_of

X, Y = "identity", "text_alignment"


def difference(metric: str, at: str, mean: float, half: float | None, concepts: int = 6, pairs: int = 24) -> Comparison:
    ends = (None, None) if half is None else (mean - half, mean + half)
    interval = Interval(mean, *ends, pairs, concepts)
    return Comparison("ti_db", "palp", metric, at, interval, pairs, 24, 0.03, 2 / 2**concepts, 0.01)


def verdict(text: float, image: float, level: float, half: float = 0.01) -> str:
    found = [
        difference(Y, "step 500", text, half),
        difference(X, "step 500", image, half),
        difference(Y, f"equal {X}", level, half),
    ]
    return headline(found, X, Y).verdict


@pytest.mark.parametrize(
    ("text", "image", "level", "starts"),
    [
        (
            0.05,
            0.0,
            0.03,
            "Yes: at equal identity, PALP has better text alignment than TI + DB; at equal steps the",
        ),
        (
            0.05,
            0.02,
            0.03,
            "Yes: at equal identity, PALP has better text alignment than TI + DB, and at equal steps",
        ),
        (0.05, -0.05, 0.03, "Yes: at equal identity, PALP has better text alignment than TI + DB, though"),
        (0.05, -0.05, 0.005, "A trade: PALP gains text alignment"),
        (0.05, 0.0, 0.005, "Partly: at equal steps"),
        (0.05, -0.05, -0.03, "No: at equal identity, PALP has worse"),
        (-0.05, 0.0, 0.0, "No: at equal steps PALP has worse"),
        (0.005, 0.0, 0.0, "Not separated:"),
    ],
)
def test_the_verdict_follows_from_the_intervals(text: float, image: float, level: float, starts: str) -> None:
    assert verdict(text, image, level).startswith(starts)


def test_an_interval_that_holds_zero_is_said_to() -> None:
    said = headline([difference(Y, "step 500", 0.004, 0.01)], X, Y)
    assert any("the interval holds 0, so no difference is shown" in sentence for sentence in said.sentences)
    assert any("no pair do the two curves reach a common identity" in sentence for sentence in said.sentences)


@pytest.mark.parametrize(("pairs", "concepts"), [(1, 1), (2, 1), (24, 2), (24, 5), (7, 6)])
def test_few_pairs_or_concepts_claim_nothing(pairs: int, concepts: int) -> None:
    half = None if pairs == 1 else 0.01
    found = [
        difference(Y, "step 500", 0.2, half, concepts, pairs),
        difference(X, "step 500", -0.2, half, concepts, pairs),
        difference(Y, f"equal {X}", 0.2, half, concepts, pairs),
    ]
    said = headline(found, X, Y).verdict
    assert said.startswith("Nothing is settled: PALP has 0.200 higher text alignment and 0.200 lower identity than TI")
    counted = f"{pairs} pair{'' if pairs == 1 else 's'} from {concepts} concept{'' if concepts == 1 else 's'}"
    assert f"over {counted}; a claim takes at least 8 pairs from 6 concepts" in said
    assert not any(word in said for word in ("trade", "Yes", "Partly", "better", "worse"))


def test_enough_pairs_make_a_claim() -> None:
    found = [difference(Y, "step 500", 0.2, 0.01, 6, 8)]
    assert headline(found, X, Y).verdict.startswith("Partly: ")


def test_an_interval_without_0_is_no_claim_where_the_test_over_concepts_disagrees() -> None:
    found = [replace(difference(Y, "step 500", 0.2, 0.01), p_concepts=0.0625)]
    assert headline(found, X, Y).verdict.startswith("Not separated")


def test_each_exact_p_says_what_it_is_of() -> None:
    """The verdict may rest on equal identity; the p of equal steps alone would seem to deny it."""
    found = [
        replace(difference(Y, "step 350", 0.02, 0.05), p_concepts=0.219),
        replace(difference(X, "step 350", 0.2, 0.05), p_concepts=0.0625),
        replace(difference(Y, f"equal {X}", 0.03, 0.01, concepts=5), p_concepts=0.0625),
    ]
    assert (
        "Taking each concept as one observation, the exact p is .219 for text alignment at equal steps, .062 for "
        "identity at equal steps, .062 for text alignment at equal identity (5 concepts, at least .062); with 6 "
        "concepts it cannot fall below .031."
    ) in headline(found, X, Y).sentences


def test_a_cost_that_too_few_pairs_measured_is_not_called_none() -> None:
    found = [
        difference(Y, "step 500", 0.05, 0.01),
        difference(X, "step 500", -0.2, 0.1, pairs=6),
        difference(Y, f"equal {X}", 0.05, 0.01),
    ]
    assert headline(found, X, Y).verdict.endswith("; at equal steps too few pairs can be compared in identity.")


def test_without_a_common_step_equal_identity_decides() -> None:
    said = headline([difference(Y, f"equal {X}", 0.05, 0.01)], X, Y)
    assert said.verdict == "At equal identity, PALP has better text alignment than TI + DB."
    assert "no training step in common" in said.sentences[1]
    few = headline([difference(Y, f"equal {X}", 0.05, 0.01, concepts=2)], X, Y).verdict
    assert few.startswith("Nothing is settled") and "at equal identity, over 24 pairs from 2 concepts" in few


def test_few_pairs_that_overlap_do_not_decide_at_equal_identity() -> None:
    found = [
        difference(Y, "step 500", 0.05, 0.01),
        difference(X, "step 500", -0.05, 0.01),
        difference(Y, f"equal {X}", 0.05, 0.01, concepts=2, pairs=5),
    ]
    said = headline(found, X, Y).verdict
    assert said.startswith("A trade: ") and "at equal identity too few pairs can be compared" in said


def test_a_single_pair_has_no_interval() -> None:
    said = headline([difference(Y, "step 500", 0.2, None, concepts=1, pairs=1)], X, Y)
    assert any("too few pairs for an interval" in sentence for sentence in said.sentences)


def test_one_concept_is_said_to_be_one() -> None:
    said = headline([difference(Y, "step 500", 0.05, 0.01, concepts=1)], X, Y)
    assert any("One concept only" in sentence for sentence in said.sentences)


def test_the_last_step_is_the_one_that_counts() -> None:
    found = [difference(Y, "step 100", 0.0, 0.01), difference(Y, "step 500", 0.05, 0.01)]
    said = headline(found, X, Y)
    assert said.verdict.startswith("Partly")
    assert "equal steps (500)" in said.sentences[0]
    assert (
        "0.050 higher than that of TI + DB (95\u00a0% interval [+0.040, +0.060]; 24 pairs from 6 concepts)"
        in said.sentences[0]
    )


def test_a_baseline_that_was_stopped_earlier_is_told_after_the_answer() -> None:
    asked = [difference(Y, "step 500", 0.05, 0.01), difference(X, "step 500", -0.05, 0.01)]
    early = [difference(Y, f"{STOPPED}200", -0.004, 0.01), difference(X, f"{STOPPED}200", 0.0, 0.01)]
    said = headline([*asked, *early], X, Y)
    assert said.verdict == headline(asked, X, Y).verdict
    assert said.sentences[2].startswith(
        "With TI + DB stopped after 200 steps, text alignment of PALP is 0.004 lower than that of TI + DB"
    )
    assert said.sentences[3].startswith("With TI + DB stopped after 200 steps, identity of PALP")


def test_lower_can_be_better() -> None:
    drift = "drift_with_class_word"
    found = [difference(drift, "step 500", -0.05, 0.01), difference(X, "step 500", 0.0, 0.01)]
    assert headline(found, X, drift).verdict.startswith("Partly: at equal steps PALP has better drift")


def test_nothing_to_compare_is_said() -> None:
    assert headline([], X, Y).verdict == "No paired comparison"
    assert unasked(1, tabled=False).verdict == "One method: there is nothing to compare it with."
    seven = unasked(7, tabled=True)
    assert seven.verdict == "7 methods on one front."
    assert seven.sentences[0].startswith("Every pair is compared in a table below; compare=[")
    assert "too many" in unasked(9, tabled=False).sentences[0]


def test_the_only_two_settings_are_compared_and_the_plainer_one_is_the_baseline(study: list[Result]) -> None:
    with_term = {"palp": "[reconstruction,prompt_alignment]", "ti_db": "[reconstruction]"}
    cells = [
        replace(cell, axes={**cell.axes, "method": "p_plus", "losses": with_term[str(cell.axes["method"])]})
        for cell in study
        if cell.axes["method"] in with_term
    ]
    weight = {"losses.prompt_alignment.weight": 0.1}  # comes with the term, so that the losses say it
    cells = [replace(c, axes={**c.axes, **(weight if c.axes["target"] else {})}) for c in cells]
    found = study_of(cells, Question(resamples=20))
    one = found.comparisons[0]
    assert one.baseline == "p_plus · losses [reconstruction]"
    assert one.challenger == "p_plus · losses [reconstruction,prompt_alignment]"
    assert not found.headline.verdict.startswith("2 methods")
    assert study_of(study, Question(resamples=20)).comparisons[0].challenger == "palp"


def test_methods_drawn_otherwise_are_not_compared_unasked(study: list[Result]) -> None:
    """PALP with two steps of the sampler beside TI + DB with three once left no page at all."""
    cells = []
    for cell in (cell for cell in study if cell.axes["method"] in ("palp", "ti_db")):
        steps = 2 if cell.axes["method"] == "palp" else 3
        records = tuple(replace(record, knobs={**record.knobs, "steps": steps}) for record in cell.records)
        cells.append(replace(cell, records=records))
    found = study_of(cells, Question(resamples=20))
    assert not found.comparisons and "not drawn alike" in found.headline.sentences[0]
    third = [
        replace(c, axes={**c.axes, "method": "p_plus"}, run=f"{c.run}x") for c in cells if c.axes["method"] == "ti_db"
    ]
    assert study_of([*cells, *third], Question(resamples=20)).headline.sentences


def test_both_axes_are_read_at_one_step() -> None:
    """Identity was not measured after the last step: text there and identity before it are no trade."""
    found = [
        difference(Y, "step 350", 0.0, 0.01),
        difference(X, "step 350", -0.2, 0.01),
        difference(Y, "step 500", 0.2, 0.01),
    ]
    said = headline(found, X, Y)
    assert not said.verdict.startswith("A trade")
    assert all("equal steps (350)" in sentence for sentence in said.sentences[:2])
    assert said.sentences[-1].endswith("step 500 has fewer pairs, 0 instead of 24 in identity.")


def test_axes_are_called_by_their_labels() -> None:
    x = "image_alignment"
    asked = [difference(Y, "step 500", 0.05, 0.01), difference(x, "step 500", 0.0, 0.01)]
    level = difference(Y, f"equal {x}", 0.02, 0.01)
    assert level.where == "equal image alignment" and asked[0].where == "step 500"
    said = [*headline([*asked, level], x, Y).sentences, *headline([level], x, Y).sentences]
    assert any(sentence.startswith("At equal image alignment, text alignment of PALP") for sentence in said)
    few = headline([difference(Y, f"equal {x}", 0.02, 0.01, concepts=2)], x, Y).verdict
    said += [few, *headline(asked, x, Y).sentences]
    assert any("reach a common image alignment" in sentence for sentence in said)
    assert not any(x in sentence or "identity" in sentence for sentence in said)


def test_no_difference_is_not_called_lower() -> None:
    for mean, words in ((0.0, "is the same as that of TI + DB"), (0.0003, "differs by 0.000 from that of TI + DB")):
        said = headline([difference(Y, "step 500", 0.05, 0.01), difference(X, "step 500", mean, 0.01)], X, Y)
        assert f"identity of PALP {words} (" in said.sentences[1]

    def few(text: float, image: float) -> str:
        found = [difference(Y, "step 500", text, 0.01, 2), difference(X, "step 500", image, 0.01, 2)]
        return headline(found, X, Y).verdict

    assert "PALP has 0.200 higher text alignment than TI + DB and the same identity to three decimals at" in few(0.2, 0)
    assert "PALP has the same text alignment and identity as TI + DB to three decimals at equal steps (500)" in few(
        0, 0
    )

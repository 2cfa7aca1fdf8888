"""What tables and verdict stand on is said beside them: over which pairs, and at which setting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from palp_lab.study.fields import Scalar
from palp_lab.study.notebook import note
from palp_lab.study.page import Words
from palp_lab.study.publishing import publish
from palp_lab.study.rendering import markdown
from palp_lab.study.result import Record, Result
from palp_lab.study.statistics import STOPPED
from palp_lab.study.study import Question, study_of
from palp_lab.study.tiles import tiles
from tests.study.conftest import PROMPTS

FAST = Question(resamples=20)
WORDS = Words("Title", "Question?", "palp-lab report")
LOUD = (
    "Rows are over different pairs (prompts × subjects × seeds: PALP 2 × 1 × 1; TI + DB 1 × 1 × 1); "
    "only paired differences are over shared ones."
)


@pytest.fixture
def uneven(study: list[Result]) -> list[Result]:
    """PALP under two prompts, its baseline under one of them."""
    first, second = list(PROMPTS)[:2]
    here = [r for r in study if r.axes["concept"] == "cat 11" and r.axes["train_seed"] == 0]
    palp = [r for r in here if r.axes["method"] == "palp" and r.axes["target"] in (first, second)]
    [baseline] = [r for r in here if r.axes["method"] == "ti_db"]
    return [*palp, replace(baseline, records=tuple(one for one in baseline.records if one.prompt == first))]


def test_rows_over_different_pairs_are_said_wherever_they_stand_side_by_side(
    uneven: list[Result], tmp_path: Path
) -> None:
    study = study_of(uneven, FAST)
    assert study.uneven == LOUD
    written = publish(study, WORDS, tmp_path)
    assert written["report.html"].read_text(encoding="utf-8").count(f"<strong>{LOUD}</strong>") == 3
    page = note(uneven, FAST, "Title", tmp_path, "part").read_text(encoding="utf-8")
    assert page.index(study.headline.verdict) < page.index(f"**{LOUD}**") < page.index("\n- ")


def test_nothing_is_best_of_rows_over_different_pairs(uneven: list[Result]) -> None:
    study = study_of(uneven, FAST)
    for name in ("methods_own", "cost"):
        [table] = [one for one in study.tables if one.name == name]
        assert not any(table.better)
        assert "| **" not in markdown([table])
    assert "none is marked best" in study.tables[0].caption


def test_a_column_measured_on_other_pairs_is_not_ranked(study: list[Result]) -> None:
    def without(record: Record) -> Record:
        return replace(record, metrics={name: m for name, m in record.metrics.items() if name != "elements"})

    first = next(r for r in study if r.axes["method"] == "ti_db")
    some = [replace(r, records=tuple(map(without, r.records))) if r is first else r for r in study]
    found = study_of(some, FAST)
    ranked = dict(zip(found.tables[0].columns, found.tables[0].better, strict=True))
    assert found.uneven == "" and ranked["identity"] is True and ranked["elements"] is None


def test_rows_over_the_same_pairs_are_marked_as_before(study: list[Result]) -> None:
    found = study_of(study, FAST)
    assert found.uneven == "" and "none is marked best" not in found.tables[0].caption
    assert "**0." in markdown(found.tables[:1])


def drawn(result: Result, *settings: dict[str, Scalar]) -> Result:
    """The result with its records once per setting of the knobs."""
    return replace(result, records=tuple(replace(one, knobs=knobs) for knobs in settings for one in result.records))


def test_how_the_compared_pictures_were_drawn_is_said(study: list[Result], tmp_path: Path) -> None:
    usual: dict[str, Scalar] = {"guidance": 7.5, "strength": 1.0, "scheduler": "ddim", "steps": 25}
    some = [r for r in study if r.axes["method"] == "ti_db"][:2]
    said = "Tables and verdict: guidance 7.5, adapter scale 1, DDIM, 25 steps"
    alone = [drawn(result, usual) for result in some]
    assert study_of(alone, FAST).drawn == f"{said}."
    more = [drawn(some[0], usual, {**usual, "strength": 0.5}), drawn(some[1], usual, {**usual, "strength": 0.5})]
    found = study_of(more, FAST)
    assert found.drawn == f"{said}; other settings drawn are marks on the front."
    written = publish(found, WORDS, tmp_path)
    assert f"<li>{found.drawn}</li>" in written["report.html"].read_text(encoding="utf-8")
    assert f"- {found.drawn}\n" in note(more, FAST, "Title", tmp_path, "part").read_text(encoding="utf-8")


def test_settings_that_nobody_told_are_not_made_up(study: list[Result]) -> None:
    some = [r for r in study if r.axes["method"] == "ti_db"][:2]
    assert study_of(some, FAST).drawn == "Tables and verdict: guidance 5, adapter scale 1."
    assert study_of([drawn(result, {}) for result in some], FAST).drawn == ""


def test_a_method_drawn_at_another_setting_only_is_named(study: list[Result], tmp_path: Path) -> None:
    """Custom Diffusion's paper draws with guidance 6, where the others are drawn with 5 here."""
    other = [
        replace(drawn(r, {"guidance": 6.0, "strength": 1.0}), axes={**r.axes, "method": "custom_diffusion"})
        for r in study
        if r.axes["method"] == "textual_inversion"
    ]
    some = [*(r for r in study if r.axes["method"] != "textual_inversion"), *other]
    found = study_of(some, FAST)
    said = "Custom Diffusion was drawn with guidance 6 only, so it is in no comparison, on no curve over steps"
    assert said in found.drawn and not any(said in one for one in (found.uneven, *found.headline.sentences))
    assert publish(found, WORDS, tmp_path)["report.html"].read_text(encoding="utf-8").count(said) == 2
    assert said in note(some, FAST, "Title", tmp_path, "part").read_text(encoding="utf-8")
    assert "only" not in study_of(study, FAST).drawn


def test_settings_that_differ_between_subjects_are_said(study: list[Result]) -> None:
    assert study_of(study, FAST).limits == ()

    def trained(result: Result) -> Result:
        rate = {"cat 11": {"optimizer.lr": 0.001}, "robot 12": {"optimizer.lr": 0.0001}}
        own = rate.get(str(result.axes["concept"]), {}) if result.axes["method"] == "ti_db" else {}
        return replace(result, axes={**result.axes, **own})

    mixed = [trained(result) for result in study]
    [said] = study_of(mixed, FAST).limits
    assert said == (
        "Subjects or seeds of TI + DB were trained with different settings, which its curve averages (optimizer.lr "
        "0.0001 or 0.001 or unset); 'series=[optimizer.lr]' tells them apart."
    )
    assert study_of(mixed, replace(FAST, series=("optimizer.lr",), compare=("ti_db", "palp"))).limits == ()


def trained_briefly(study: list[Result]) -> list[Result]:
    """The study, in which two of three subjects were trained to step 350 and one to 500."""

    def stopped(result: Result) -> Result:
        last = 500 if result.axes["concept"] == "cat 11" else 350
        return replace(result, records=tuple(one for one in result.records if one.step <= last))

    return list(map(stopped, study))


def test_a_last_step_that_lacks_pairs_is_said(study: list[Result], tmp_path: Path) -> None:
    some = trained_briefly(study)
    found = study_of(some, FAST)
    said = (
        "Last steps lack pairs of earlier ones (prompt × subject × seed: PALP 8 of 24 at step 500; Textual Inversion 8 "
        "of 24 at step 500; TI + DB 8 of 24 at step 500); means there are over fewer."
    )
    assert found.uneven == said and found.limits == (said,)
    assert said in note(some, FAST, "Title", tmp_path, "part").read_text(encoding="utf-8")


def test_the_end_of_training_is_where_most_pairs_are(study: list[Result]) -> None:
    some = trained_briefly(study)
    found = study_of(some, FAST)
    assert "equal steps (350), text alignment" in found.headline.sentences[0]
    assert "24 pairs from 3 concepts" in found.headline.sentences[0]
    assert found.headline.sentences[-1] == (
        "Step 350 stands for the end of training: step 500 has fewer pairs, 8 instead of 24 in text alignment and "
        "8 instead of 24 in identity."
    )
    assert [tile["at"] for tile in tiles(found)][:2] == ["at step 350"] * 2
    assert {one.at for one in found.comparisons if one.metric == "diversity"} == {"step 350", "equal identity"}
    slow = study_of(some, replace(FAST, compare=("ti_db", "textual_inversion"))).comparisons
    assert {one.pairs for one in slow if one.at.startswith(STOPPED)} == {24}
    [pairs] = [one for one in found.tables if one.name == "pairs"]
    assert {row[-1] for row in pairs.rows} == {350} and {row[6] for row in pairs.rows} == {"24 of 24"}


def test_pairs_are_compared_at_the_step_they_share(study: list[Result]) -> None:
    """After the last step of both, 500, no subject has both methods."""
    lacking = {"ti_db": ("cat 11", "robot 12"), "palp": ("teapot 13",), "textual_inversion": ()}

    def cut(result: Result) -> Result:
        short = result.axes["concept"] in lacking[str(result.axes["method"])]
        return replace(result, records=tuple(one for one in result.records if not short or one.step <= 200))

    [pairs] = [one for one in study_of(list(map(cut, study)), FAST).tables if one.name == "pairs"]
    [row] = [one for one in pairs.rows if one[0] == "PALP minus TI + DB"]
    assert row[-1] == 200 and row[6] == "24 of 24" and row[1] is not None

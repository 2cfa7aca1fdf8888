"""The answers of a human study, unblinded with its key and scored: shares, ratings, preferences, agreement."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from palp_lab.study.agreement import krippendorff_alpha
from palp_lab.study.fields import Fields, parse, read_text
from palp_lab.study.intervals import RESAMPLES, Interval, intervals_of
from palp_lab.study.palette import words
from palp_lab.study.questionnaire import KEY_SCHEMA
from palp_lab.study.table import Cell, Table
from palp_lab.types import UserError

ANSWERS_SCHEMA = "palp_lab.answers/1"
RATINGS = (1, 5)
"""Ends of the similarity scale. Source: arXiv 2401.06105, appendix D."""
COLUMNS = ("kit", "form", "rater", "id", "place", "elements", "similarity")
MEASURES = ("elements", "similarity")


@dataclass(frozen=True)
class Key:
    """What the questions of a study were: its digest, which its pages and their answers carry, and the items."""

    path: Path
    digest: str
    items: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Key:
        """Raises UserError for a file that is no key."""
        if not path.is_file():
            raise UserError(f"{path}: no key of a study; write one with study_kit=true, or give folder=...")
        text = read_text(path)
        fields = parse(text, str(path))
        if fields.text("schema") != KEY_SCHEMA:
            fields.fail("schema", f"is '{fields.values['schema']}', this version reads {KEY_SCHEMA}")
        return cls(path, hashlib.sha256(text.encode()).hexdigest(), fields.child("items").values)


def read_answers(paths: Iterable[Path], key: Key) -> pd.DataFrame:
    """One row per rater and question that was answered, unblinded.

    Columns: dataset, model, concept, prompt, method, rater, item, `elements` (share seen, 0 to 1) and `similarity`
    (1 to 5), NaN where one of the two was left out.

    Raises UserError, naming file and place, for a file of another study, an unknown question, a number outside its
    scale, a rater without a name, or one who answered a question twice.
    """
    rows: list[dict[str, Any]] = []
    seen: dict[tuple[str, str], Path] = {}
    for path in paths:
        for where, given in _given(path):
            if given["kit"] != key.digest:
                raise UserError(f"{where}: answers to another study than {key.path}")
            item = key.items.get(given["id"])
            if item is None:
                raise UserError(f"{where}: question '{given['id']}' is not in {key.path}")
            if not given["rater"]:
                raise UserError(f"{where}: the rater has no name; write one into the file")
            if (one := (given["rater"], given["id"])) in seen:
                raise UserError(f"{where}: {one[0]} answered question {one[1]} in {seen[one]} already")
            seen[one] = path
            count = len(item["elements"])
            elements = _on_scale(given["elements"], 0, count, where, "elements")
            similarity = _on_scale(given["similarity"], *RATINGS, where, "similarity")
            if elements is None and similarity is None:
                continue
            kept = {name: item[name] for name in ("dataset", "model", "concept", "prompt", "method")}
            share = None if elements is None else elements / count
            rows.append({**kept, "rater": one[0], "item": one[1], "elements": share, "similarity": similarity})
    if not rows:
        raise UserError("study_kit_answers: no question was answered in these files")
    return pd.DataFrame(rows).astype({"elements": float, "similarity": float})


def _given(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """Every answer of a file with where it stands, as JSON or CSV says it."""
    if not path.is_file():
        raise UserError(f"{path}: no such file of answers")
    text = read_text(path)
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text))
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise UserError(f"{path}: has no column {missing[0]}; its first line must be {','.join(COLUMNS)}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            numbers = {name: _number(row[name], where, name) for name in MEASURES}
            yield where, {**{n: (row[n] or "").strip() for n in ("kit", "rater", "id")}, **numbers}
        return
    fields = parse(text, str(path))
    if fields.values.get("schema") != ANSWERS_SCHEMA:
        raise UserError(f"{path}: no file of answers (schema {ANSWERS_SCHEMA}); give what the page saved")
    for number, answer in enumerate(fields.children("answers")):
        values = answer.values
        where = f"{path}: answers[{number}]"
        numbers = {name: _number(values.get(name), where, name) for name in MEASURES}
        yield where, {"kit": fields.text("kit"), "rater": _name(fields), "id": answer.text("id"), **numbers}


def _name(fields: Fields) -> str:
    return str(fields.values.get("rater") or "").strip()


def _number(value: Any, where: str, name: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {name} is {value!r}, which is no number")
    return number


def _on_scale(value: float | None, low: int, high: int, where: str, name: str) -> int | None:
    if value is None:
        return None
    if value != int(value) or not low <= value <= high:
        raise UserError(f"{where}: {name} is {value:g}; it must be a whole number from {low} to {high}")
    return int(value)


def score_answers(answers: pd.DataFrame, resamples: int = RESAMPLES, seed: int = 0) -> list[Table]:
    """Tables of a study: per method, per pair of methods, and how far the raters agree.

    Intervals resample concepts, prompts within them and raters within those. Ratings are shown as given and as
    (rating − 1) / 4 (ours: the paper normalises and does not say how).
    """
    units = answers.assign(
        train_seed=answers["rater"], normalised=(answers["similarity"] - RATINGS[0]) / (RATINGS[1] - RATINGS[0])
    )
    methods = sorted(units["method"].unique())
    rows: list[tuple[Cell, ...]] = []
    for method in methods:
        mine = units[units["method"] == method]
        cells = [_interval(mine, name, resamples, seed) for name in ("elements", "similarity", "normalised")]
        rows.append((words(method), *cells, len(mine), mine["rater"].nunique()))
    means = Table(
        "human_study",
        "What people saw: share of the prompt's elements, likeness to the subject (1 to 5, and from 0 to 1), with 95 % "
        "intervals over concept × prompt × rater.",
        ("method", "elements seen", "likeness", "likeness, 0 to 1", "answers", "raters"),
        tuple(rows),
        (None, True, True, True, None, None),
    )
    return [means, _preferences(units, methods, resamples, seed), _agreement(units)]


def _preferences(units: pd.DataFrame, methods: Sequence[str], resamples: int, seed: int) -> Table:
    """Whom the same rater gave more on the same subject and prompt; a tie counts half."""
    place = ["dataset", "model", "concept", "prompt", "train_seed"]
    rows: list[tuple[Cell, ...]] = []
    for one, other in itertools.combinations(methods, 2):
        for name in MEASURES:
            sides = [units[units["method"] == method].set_index(place)[name].dropna() for method in (one, other)]
            both = pd.concat(sides, axis=1, join="inner", keys=["one", "other"])
            if both.empty:
                continue
            gap = both["one"] - both["other"]
            won = ((gap > 0) + 0.5 * (gap == 0)).rename("won").reset_index()
            asked = {"elements": "elements seen", "similarity": "likeness"}[name]
            counts = (int((gap > 0).sum()), int((gap == 0).sum()), int((gap < 0).sum()))
            rows.append((f"{words(one)} over {words(other)}", asked, _interval(won, "won", resamples, seed), *counts))
    return Table(
        "human_preference",
        "Paired preference: how often the same person gave the first more than the second on the same subject and "
        "prompt, a tie counting half. .5 is no preference.",
        ("pair", "asked", "preferred", "more", "equal", "less"),
        tuple(rows),
        (None,) * 6,
    )


def _agreement(units: pd.DataFrame) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, asked in (("elements", "elements seen"), ("similarity", "likeness")):
        items = [group.dropna().tolist() for _, group in units.groupby("item")[name]]
        shared = sum(len(item) > 1 for item in items)
        alpha = krippendorff_alpha(items)
        rows.append((asked, f"{alpha:.3f}" if alpha is not None else None, shared, units["rater"].nunique()))
    return Table(
        "human_agreement",
        "Agreement between raters: Krippendorff's alpha, interval scale (1: all agree; 0: as by chance).",
        ("asked", "alpha", "questions with two or more answers", "raters"),
        tuple(rows),
        (None,) * 4,
    )


def _interval(rows: pd.DataFrame, name: str, resamples: int, seed: int) -> Interval | None:
    found = intervals_of(rows, [name], resamples, seed)
    return found[0] if found else None


def summary(answers: pd.DataFrame, key: Key) -> str:
    """The answers unblinded, as JSON: for other programs."""
    rows = json.loads(answers.to_json(orient="records"))
    return json.dumps({"schema": "palp_lab.human_study/1", "kit": key.digest, "answers": rows}, indent=1) + "\n"

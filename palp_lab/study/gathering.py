"""Which pictures go where: rows of the contact sheet, rows of the strip, and logs of the trainings."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from palp_lab.study.contact_sheet import Block, Row
from palp_lab.study.fields import Scalar, parse, read_text
from palp_lab.study.observations import frozen, observations, series_names, usual_knobs
from palp_lab.study.palette import BOUND_WORDS, styles, words
from palp_lab.study.progress_figure import Log
from palp_lab.study.result import Record, Result

STRIP_ORDER = ("base", "ti_db", "palp")
Knobs = tuple[tuple[str, Scalar], ...]


def sheet_prompts(results: Sequence[Result], most: int = 4) -> list[str]:
    """The columns: prompts that some adapter was tuned for, else the first with a slot, as the records order them."""
    own = dict.fromkeys(r.prompt for result in results for r in result.records if r.own_target)
    every = dict.fromkeys(r.prompt for result in results for r in result.records if "{}" in r.prompt)
    return list(own or every)[:most]


def sheet_blocks(
    results: Sequence[Result], prompts: Sequence[str], series: Sequence[str] = (), concepts: int = 3
) -> list[Block]:
    """A block per concept of a dataset: base with the class word, each method at its last step (own target where there
    is one, lowest seed), base with the description, true renders. Concepts and rows without any picture are left out.
    What has a curve of its own, by `series` or by itself (`observations`), has a row. The heading names the dataset
    where another one has a concept of that name. Pictures are drawn as the tables hold them; a method that has none
    such is shown as most of its own are, and its note says how."""
    pictured = [result for result in results if result.folder is not None]
    places = sorted({place_of(result) for result in pictured})
    shared = Counter(concept for concept, _ in places)
    names = series_names(results, series)
    looks = styles(names[result.run] for result in results)
    usual = usual_knobs(observations(results))
    blocks = []
    for concept, dataset in places:
        cells = [result for result in pictured if place_of(result) == (concept, dataset)]
        cells.sort(key=lambda cell: _sampler(cell) != [item for item in usual if item[0] != "strength"])  # for bounds
        rows = [_bound_row(cells, "class_word", prompts)]
        for name, look in looks.items():
            mine = [cell for cell in cells if names[cell.run] == name]
            rows.append(_method_row(mine, name, prompts, look.colour, usual))
        rows += [_bound_row(cells, name, prompts) for name in ("described", "true_renders")]
        kept = tuple(row for row in rows if any(row.pictures))
        if kept:
            heading = f"{concept} ({dataset})" if shared[concept] > 1 else concept
            blocks.append(Block(heading, _bound_pictures(cells, "training_photos", None), kept))
    return blocks[:concepts]


Strip = dict[str, dict[int, Path]]
"""Method -> step -> the picture of its one-step estimate."""


def strip_rows(results: Sequence[Result]) -> tuple[list[tuple[str, dict[int, Path], str]], str, list[str]] | None:
    """Rows for the strip, its caption, and the methods it lacks, since they were read elsewhere; None without any
    strip.json (here or in `strip/`) beside the results.

    Of all concepts and sentences that were probed, the one most methods have; the first by name where several have.
    `strip.json`: {"caption": words, "sentence": prompt, "pictures": {method: {step: path relative to strip.json}}}.
    """
    found: dict[tuple[str, str, str], tuple[Strip, str]] = {}
    for result in results:
        if result.folder is not None:
            for place in (result.folder / "strip.json", result.folder / "strip" / "strip.json"):
                if place.exists():
                    _read_strip(place, place_of(result), found)
    if not found:
        return None
    pictures, caption = found[min(found, key=lambda key: (-len(found[key][0]), key))]
    order = sorted(pictures, key=lambda m: (STRIP_ORDER.index(m) if m in STRIP_ORDER else len(STRIP_ORDER), m))
    looks = styles(method for method in order if method != "base")
    rows = [
        (words(m) if m != "base" else "base model", pictures[m], looks[m].colour if m in looks else "#4d4d4d")
        for m in order
    ]
    return rows, caption, [words(m) for m in sorted({m for one, _ in found.values() for m in one} - set(pictures))]


def place_of(result: Result) -> tuple[str, str]:
    """Concept and dataset: two datasets may each have a "cat"."""
    return str(result.axes["concept"]), str(result.axes["dataset"])


def training_logs(results: Sequence[Result], series: Sequence[str] = ()) -> dict[str, list[Log]]:
    """The training logs per method, or per curve where a method has several: inline columns, or the CSV file that
    `training_log.csv` names."""
    logs: dict[str, list[Log]] = {}
    names = series_names(results, series)
    for result in results:
        said = result.training_log or {}
        log = said.get("columns")
        if log is None and said.get("csv") and result.folder is not None:
            path = result.folder / str(said["csv"])
            log = read_log(path) if path.exists() else None
        if log:
            logs.setdefault(names[result.run], []).append(log)
    return logs


def read_log(path: Path) -> Log:
    """The columns of a CSV of numbers; an empty field is None."""
    rows = list(csv.reader(io.StringIO(read_text(path))))
    if not rows:
        return {}
    return {name: [_float(row[i]) if i < len(row) else None for row in rows[1:]] for i, name in enumerate(rows[0])}


def _method_row(cells: Sequence[Result], name: str, prompts: Sequence[str], accent: str, usual: Knobs) -> Row:
    drawn = [(cell, record) for cell in cells for record in _drawn_with(cell, usual)]
    setting = ""
    if not drawn:
        own = usual_knobs(observations(cells))
        drawn = [(cell, record) for cell in cells for record in _drawn_with(cell, own)]
        shown = {key: f"{value:g}" if isinstance(value, float) else value for key, value in own}
        setting = "".join(f", {key} {value}" for key, value in shown.items())
    last = max((record.step for _, record in drawn), default=0)
    pictures = []
    for prompt in prompts:
        choices = [
            (not record.own_target, str(cell.axes["train_seed"]).rjust(9), str(cell.axes["target"]), cell, record)
            for cell, record in drawn
            if record.prompt == prompt and record.step == last
        ]
        chosen = min(choices, key=lambda choice: choice[:3], default=None)
        pictures.append(_paths(chosen[3], chosen[4].images) if chosen else ())
    tuned = any(_own(cell.records) for cell in cells)
    note = f"step {last}" + (", tuned for each prompt" if tuned else "") + setting
    return Row(words(name), note, tuple(pictures), accent)


def _drawn_with(cell: Result, knobs: Knobs) -> list[Record]:
    """The records at a setting of the knobs, and those of other tools' pictures, whose setting nobody told."""
    return [record for record in cell.records if not record.knobs or frozen(record.knobs) == knobs]


def _sampler(cell: Result) -> list[tuple[str, Scalar]]:
    """How a cell's bounds were drawn: as its first record, but the untuned model has no adapter to scale."""
    return [item for record in cell.records[:1] for item in frozen(record.knobs) if item[0] != "strength"]


def _own(records: Sequence[Record]) -> bool:
    return any(record.own_target for record in records)


def _bound_row(cells: Sequence[Result], name: str, prompts: Sequence[str]) -> Row:
    note = {"class_word": "untuned model", "described": "untuned model, full description"}.get(name, "ground truth")
    return Row(BOUND_WORDS[name], note, tuple(_bound_pictures(cells, name, prompt) for prompt in prompts))


def _bound_pictures(cells: Sequence[Result], name: str, prompt: str | None) -> tuple[Path, ...]:
    """Pictures of a bound for one prompt, or for any prompt (None)."""
    for cell in cells:
        for bound in cell.bounds:
            if bound.name == name and bound.images and (prompt is None or bound.prompt == prompt):
                return _paths(cell, bound.images)
    return ()


def _paths(cell: Result, images: Sequence[str]) -> tuple[Path, ...]:
    assert cell.folder is not None
    return tuple(cell.folder / image for image in images)


def _read_strip(path: Path, place: tuple[str, str], found: dict[tuple[str, str, str], tuple[Strip, str]]) -> None:
    """Add one strip.json; of several trainings of a method the first stays, so that a row is one training."""
    fields = parse(read_text(path), str(path))
    key = (*place, fields.text_or_null("sentence") or fields.text("caption"))
    strip, _ = found.setdefault(key, ({}, fields.text("caption")))
    pictures = fields.child("pictures")
    for method in pictures.values:
        steps = pictures.child(method)
        for step in steps.values:
            if not step.isdigit():
                steps.fail(step, "must be a training step, a whole number")
        strip.setdefault(method, {int(step): path.parent / steps.text(step) for step in steps.values})


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

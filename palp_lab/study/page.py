"""The page: one self-contained HTML file with the answer, the front, the pictures and the tables."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from palp_lab.study.directions import higher_is_better, label_of
from palp_lab.study.figure import axis_words, is_squeezed
from palp_lab.study.gaps import Gaps
from palp_lab.study.palette import BOUND_SENTENCES, BOUND_WORDS, styles, words
from palp_lab.study.rendering import html, number, range_of
from palp_lab.study.statistics import at_the_end
from palp_lab.study.study import Study
from palp_lab.study.svg import front_svg, mark_svg
from palp_lab.study.table import Table
from palp_lab.study.tables import comparison_table
from palp_lab.study.tiles import tiles


@dataclass(frozen=True)
class Words:
    """What a person says about the study: title, question, and the command that makes it again."""

    title: str
    question: str
    command: str
    eyebrow: str = "PALP Lab report"


def page(study: Study, gaps: Gaps, words_of: Words, images: Mapping[str, bytes], strip_caption: str = "") -> str:
    """The HTML. `images` are PNGs by name: front, and optionally exposure, contact_sheet, strip, training."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    template = files("palp_lab.study").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    names = ("front", "exposure", "contact_sheet", "strip", "training")
    uris = {name: data_uri(images[name]) if name in images else "" for name in names}
    shown = _tables(study)
    values: dict[str, Any] = {
        "title": words_of.title,
        "eyebrow": words_of.eyebrow,
        "question": words_of.question,
        "command": words_of.command,
        "headline": study.headline,
        "uneven": study.uneven,
        "drawn": study.drawn,
        "gaps": gaps,
        "photos": any(bound.images and bound.name == "training_photos" for r in study.results for bound in r.bounds),
        "tiles": [{**tile, "whisker": Markup(tile["whisker"])} for tile in tiles(study)],
        "versus": _versus(study),
        "contents": _contents(uris, bool(_bounds(study) or shown["bounds"])),
        "scope_words": _SCOPES[study.question.scope] if study.frame["own_target"].any() else "",
        "plane_words": _plane(study.axes),
        "chips": [{**chip, "mark": Markup(chip["mark"])} for chip in _chips(study)],
        "fronts": [(title, Markup(drawing)) for title, drawing in _fronts(study)],
        "front_alt": f"{axis_words(study.axes[0])} against {axis_words(study.axes[1])}. {study.headline.verdict}",
        "sheet_alt": "Contact sheet: training photos, then pictures of every method for every prompt",
        "sheet_width": png_width(images["contact_sheet"]) if "contact_sheet" in images else 0,
        "exposure_alt": "Metrics over training steps, a line per method with its interval",
        "resamples": study.question.resamples,
        "reference": ", ".join(f"{label_of(a)} {number(r)}" for a, r in zip(study.axes, study.reference, strict=True)),
        "volumes": "; ".join(_volumes(study)),
        "bound_words": [(BOUND_WORDS[name], BOUND_SENTENCES[name]) for name in BOUND_WORDS if name in _bounds(study)],
        "tables": {k: [Markup(t) for t in v] if isinstance(v, list) else Markup(v) for k, v in shown.items()},
        "x_name": label_of(study.axes[0]),
        "sizing": _sizing(study),
        "images": uris,
        "strip_caption": strip_caption,
        **_provenance(study),
    }  # fmt: skip
    return environment.from_string(template).render(values)


def data_uri(content: bytes) -> str:
    """A PNG inside the page."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def png_width(content: bytes) -> int:
    """The width a PNG states in its header, in pixels."""
    return int.from_bytes(content[16:20], "big")


def _versus(study: Study) -> str:
    if not study.comparisons:
        return ""
    return f"{words(study.comparisons[0].challenger)} minus {words(study.comparisons[0].baseline)}"


def _fronts(study: Study) -> list[tuple[str, str]]:
    """The front with its bounds; where they lie far off, the curves once more alone. Each with its title, if any."""
    curves = [*study.curves, *study.knob_curves]
    whole = front_svg(curves, study.anchors, study.axes)
    if not is_squeezed(curves, study.anchors):
        return [("", whole)]
    return [("With the bounds", whole), ("The curves alone", front_svg(curves, (), study.axes))]


def _contents(uris: Mapping[str, str], bounds: bool) -> list[tuple[str, str]]:
    names = {"front": "The front", "bounds": "Bounds", "pictures": "Pictures", "strip": "One-step estimates",
             "numbers": "Numbers", "training": "Training", "gaps": "Not measured",
             "reproduce": "Reproduce"}  # fmt: skip
    absent = {"bounds": not bounds, "pictures": not uris["contact_sheet"], "strip": not uris["strip"],
              "training": not uris["exposure"] and not uris["training"]}  # fmt: skip
    return [(anchor, name) for anchor, name in names.items() if not absent.get(anchor)]


def _chips(study: Study) -> list[dict[str, str]]:
    looks = styles(curve.series for curve in study.curves)
    return [
        {"series": curve.name, "name": words(curve.series) + (f", {curve.knob}" if curve.knob else ""),
         "colour": looks[curve.series].colour, "mark": mark_svg(looks[curve.series].mark, 7, 7, 5)}
        for curve in (*study.curves, *study.knob_curves)
    ]  # fmt: skip


def _volumes(study: Study) -> list[str]:
    return [f"{words(c.series)} {number(c.volume.mean)} {range_of(c.volume)}".strip() for c in study.curves if c.volume]


def _plane(axes: tuple[str, str]) -> str:
    x, y = (f"{label_of(axis)} ({'more' if higher_is_better(axis) else 'less'} is better)" for axis in axes)
    return f"further right is more {x}, further up more {y}."


def _bounds(study: Study) -> set[str]:
    return {anchor.name for anchor in study.anchors}


def _tables(study: Study) -> dict[str, Any]:
    by_name: dict[str, Table] = {table.name: table for table in study.tables}

    def one(name: str) -> str:
        return html(by_name[name]) if name in by_name else ""

    end = at_the_end(study.comparisons, study.axes).values()
    last = [one for one in study.comparisons if one.step is None or one in end]
    others = [one for one in study.comparisons if one not in last]
    return {
        "methods": one(f"methods_{study.question.scope}"),
        "prompts": [html(table) for name, table in by_name.items() if name.startswith("prompts_")],
        "transfer": one("transfer"),
        "bounds": one("bounds"),
        "pairs": one("pairs"),
        "cost": one("cost"),
        "comparison": html(comparison_table(last)) if last else "",
        "comparison_steps": html(comparison_table(others, "comparison_steps")) if others else "",
    }


def _sizing(study: Study) -> str:
    found = [one for one in study.sizings if one.concepts is not None]
    if not found:
        return ""
    plans = ", ".join(f"{one.concepts} concepts with {one.seeds} seed{'s' if one.seeds > 1 else ''}" for one in found)
    prompts = f"{found[0].prompts} prompt{'s' if found[0].prompts > 1 else ''}"
    return (
        f"How large a study has to be: to find a difference of {number(found[0].difference)} in "
        f"{label_of(study.axes[1])} with 80 % power, given the spread seen and {prompts} per concept: {plans}."
    )


def _provenance(study: Study) -> dict[str, Any]:
    protocols = {(p.name, p.version, *(f"{k} {str(v)[:12]}" for k, v in sorted(p.hashes.items())))
                 for p in (result.protocol for result in study.results) if p is not None}  # fmt: skip
    versions: dict[str, set[str]] = {}
    for result in study.results:
        for name, value in result.versions.items():
            versions.setdefault(name, set()).add(str(value))
    axes = list(dict.fromkeys(axis for result in study.results for axis in result.axes))
    return {
        "protocol": "; ".join(" ".join(protocol) for protocol in sorted(protocols)) or "not stated",
        "versions": ", ".join(f"{name} {' or '.join(sorted(found))}" for name, found in versions.items())
        or "not stated",
        "cell_columns": ["cell", *axes],
        "cells": [[r.run, *("" if r.axes.get(a) is None else r.axes[a] for a in axes)] for r in study.results],
    }


_SCOPES = {
    "own": "Shown are the prompts that a method was tuned for, and the same prompts for methods that have no target.",
    "other": "Shown are prompts other than the one a method was tuned for.",
    "all": "Shown are all prompts, tuned for or not.",
}

"""From a study to files: pictures, tables, summary and page, each written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from palp_lab.study.contact_sheet import contact_sheet, strip
from palp_lab.study.drawing import png_of
from palp_lab.study.figure import front_figure, png
from palp_lab.study.gaps import Gaps, gaps
from palp_lab.study.gathering import sheet_blocks, sheet_prompts, strip_rows, training_logs
from palp_lab.study.page import Words, page
from palp_lab.study.palette import words
from palp_lab.study.progress_figure import exposure_figure, progress_metrics, training_figure
from palp_lab.study.rendering import latex, markdown, tidy_csv
from palp_lab.study.study import Study
from palp_lab.study.tables import comparison_table
from palp_lab.study.writing import write_bytes, write_text

SUMMARY_SCHEMA = "palp_lab.summary/1"


def publish(study: Study, words_of: Words, folder: Path) -> dict[str, Path]:
    """Write everything a study has to show into `folder` and return the files by name.

    front.png, tables.{md,tex,csv}, summary.json and report.html always; exposure.png where a series has two steps;
    comparison.{md,tex,csv} where two methods were compared; contact_sheet.png, strip.png and training.png where their
    material lies beside the results.
    """
    images, caption = draw(study, words_of.title)
    compared = {name.split(" · ")[0] for one in study.comparisons[:1] for name in (one.baseline, one.challenger)}
    open_ends = gaps(study.results, sorted(compared), study.limits)
    written = {f"{name}.png": write_bytes(folder / f"{name}.png", content) for name, content in images.items()}
    for name in {"exposure", "contact_sheet", "strip", "training"} - images.keys():
        (folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier report, whose material is not here any more
    groups = {"tables": list(study.tables)}
    if study.comparisons:
        groups["comparison"] = [comparison_table(study.comparisons)]
    renderers: dict[str, Callable[..., str]] = {"md": markdown, "tex": latex, "csv": tidy_csv}
    for name, tables in groups.items():
        for ending, render in renderers.items():
            written[f"{name}.{ending}"] = write_text(folder / f"{name}.{ending}", render(tables))
    text = json.dumps(summary(study, open_ends), indent=1, ensure_ascii=False, allow_nan=False)
    written["summary.json"] = write_text(folder / "summary.json", text + "\n")
    written["report.html"] = write_text(folder / "report.html", page(study, open_ends, words_of, images, caption))
    return written


def draw(study: Study, title: str) -> tuple[dict[str, bytes], str]:
    """All pictures as PNG by name, and the caption of the strip (empty where there is no strip)."""
    curves = [*study.curves, *study.knob_curves]
    images = {"front": png(front_figure(curves, study.anchors, study.axes, title))}
    if (exposure := exposure_figure(study.scope, progress_metrics(study.scope, study.axes))) is not None:
        images["exposure"] = png(exposure)
    prompts = sheet_prompts(study.results)
    blocks = sheet_blocks(study.results, prompts, study.question.series)
    if blocks:
        images["contact_sheet"] = png_of(contact_sheet(prompts, blocks))
    said = ""
    if (found := strip_rows(study.results)) is not None:
        rows, caption, missing = found
        images["strip"] = png_of(strip(rows, caption))
        said = caption + (f". Not here, since read at another sentence: {', '.join(missing)}." if missing else "")
    training = training_figure(training_logs(study.results, study.question.series))
    if training is not None:
        images["training"] = png(training)
    return images, said


def summary(study: Study, open_ends: Gaps) -> dict[str, Any]:
    """The study's answer as plain data, for other programs: what summary.json holds."""
    return {
        "schema": SUMMARY_SCHEMA,
        "axes": {"x": study.question.x, "y": study.question.y},
        "scope": study.question.scope,
        "cells": {"found": open_ends.cells, "expected": open_ends.expected, "runs": [r.run for r in study.results]},
        "verdict": study.headline.verdict,
        "sentences": list(filter(None, (study.uneven, *study.headline.sentences, study.drawn))),
        "reference": list(study.reference),
        "hypervolume": {curve.name: asdict(curve.volume) for curve in study.curves if curve.volume is not None},
        "curves": [
            {
                "series": curve.series,
                "label": words(curve.series),
                "knob": curve.knob,
                "points": [asdict(point) for point in curve.points],
            }
            for curve in (*study.curves, *study.knob_curves)
        ],
        "bounds": [asdict(anchor) for anchor in study.anchors],
        "comparisons": [asdict(comparison) for comparison in study.comparisons],
        "sizing": [asdict(one) for one in study.sizings],
        "not_measured": list(open_ends.sentences),
    }

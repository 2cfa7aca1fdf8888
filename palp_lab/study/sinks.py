"""Where a finished report is sent besides the disk: Weights & Biases. Files are the truth, this is a copy of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from palp_lab.study.curves import Curve
from palp_lab.study.gathering import sheet_prompts
from palp_lab.study.palette import words
from palp_lab.study.study import Study
from palp_lab.study.tracking import STEP, Project, open_run, run_id, send_summary

MOST_PICTURES = 200
"""Rows of the table of pictures (ours): enough to browse, small enough to load."""
PICTURES = ("front.png", "contact_sheet.png", "strip.png", "exposure.png", "training.png")


def report_id(study: Study, group: str) -> str:
    """The id of the report's run: equal for the same cells and the same question, so that sending twice is one run."""
    cells = sorted(result.run for result in study.results)
    return run_id(group, "report", *study.axes, study.question.scope, *cells)


def send_to_wandb(study: Study, written: Mapping[str, Path], folder: Path, project: Project) -> str:
    """Send front (figure and table), pictures, page and summary as one run with job_type "report"; returns its id.

    Offline runs are written below `folder`/wandb and can be sent later by `wandb sync`. Raises UserError where Weights
    & Biases cannot be reached or nobody is logged in; the run is finished whatever happens.
    """
    group = project.group or "adhoc"
    id = report_id(study, group)
    said = {"axes": list(study.axes), "scope": study.question.scope, "cells": len(study.results)}
    with open_run(project, id, f"report of {group}", "report", said, folder) as run:
        run.log({**_contents(study, written), STEP: study.last_step})
        send_summary(run, _summary(study))
        run.summary["verdict"] = study.headline.verdict
    return id


def _contents(study: Study, written: Mapping[str, Path]) -> dict[str, Any]:
    import wandb

    logged: dict[str, Any] = {
        name.removesuffix(".png"): wandb.Image(str(written[name])) for name in PICTURES if name in written
    }
    logged["front_table"] = wandb.Table(
        columns=list(FRONT_COLUMNS), data=front_rows([*study.curves, *study.knob_curves])
    )
    rows = picture_rows(study)
    if rows:
        table = wandb.Table(columns=list(PICTURE_COLUMNS))
        for *said, path in rows:
            table.add_data(*said, wandb.Image(str(path)))
        logged["pictures_table"] = table
        logged["pictures"] = [
            wandb.Image(str(path), caption=f"{said[0]}, {said[1]}, {said[3]}") for *said, path in rows[:24]
        ]
    if "report.html" in written:
        logged["report"] = wandb.Html(str(written["report.html"]), inject=False)
    return logged


FRONT_COLUMNS = ("method", "knob", "at", "x", "x_low", "x_high", "y", "y_low", "y_high", "n", "concepts", "on_front")


def front_rows(curves: Sequence[Curve]) -> list[list[Any]]:
    """The front as rows of `FRONT_COLUMNS`: one per mark."""
    return [
        [curve.series, curve.knob, point.label, point.x.mean, point.x.low, point.x.high,
         point.y.mean, point.y.low, point.y.high, point.x.n, point.x.concepts, point.on_front]
        for curve in curves
        for point in curve.points
    ]  # fmt: skip


PICTURE_COLUMNS = ("method", "concept", "train_seed", "prompt", "step", "tuned_for_it", "x", "y", "picture")


def picture_rows(study: Study) -> list[list[Any]]:
    """Rows of `PICTURE_COLUMNS`: the first picture of each record of the contact sheet's prompts at the last step."""
    prompts = set(sheet_prompts(study.results))
    rows: list[list[Any]] = []
    for result in study.results:
        if result.folder is None:
            continue
        last = max((record.step for record in result.records), default=0)
        for record in result.records:
            shown = record.step == last and record.images and record.prompt in prompts
            if not shown or not (result.folder / record.images[0]).exists():
                continue
            values = [record.metrics[axis].value if axis in record.metrics else None for axis in study.axes]
            said = [words(str(result.axes["method"])), str(result.axes["concept"]), result.axes["train_seed"]]
            rows.append(
                [*said, record.prompt, record.step, record.own_target, *values, result.folder / record.images[0]]
            )
    return rows[:MOST_PICTURES]


def _summary(study: Study) -> dict[str, float | None]:
    volumes = {f"hypervolume/{c.series}": c.volume.mean for c in study.curves if c.volume is not None}
    differences = {
        f"difference/{one.metric}/{one.at.replace(' ', '_')}": one.difference.mean for one in study.comparisons
    }
    x, y = study.reference
    return {"reference/x": x, "reference/y": y, **volumes, **differences}

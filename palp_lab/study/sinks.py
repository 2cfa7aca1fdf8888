"""Where a finished report is sent besides the disk: Weights & Biases. Files are the truth, this is a copy of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palp_lab.study.curves import Curve
from palp_lab.study.gathering import sheet_prompts
from palp_lab.study.palette import words
from palp_lab.study.study import Study
from palp_lab.types import UserError

MOST_PICTURES = 200
"""Rows of the table of pictures (ours): enough to browse, small enough to load."""
PICTURES = ("front.png", "contact_sheet.png", "strip.png", "exposure.png", "training.png")


@dataclass(frozen=True)
class Destination:
    """Where in Weights & Biases: the study's name is the group; mode is online, offline or disabled."""

    group: str
    project: str = "palp-lab"
    entity: str | None = None
    mode: str = "online"
    tags: tuple[str, ...] = ()


def report_id(study: Study, group: str) -> str:
    """The id of the report's run: equal for the same cells and the same question, so that sending twice is one run."""
    said = [group, sorted(result.run for result in study.results), list(study.axes), study.question.scope]
    return "report-" + hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def send_to_wandb(study: Study, written: Mapping[str, Path], folder: Path, to: Destination) -> str:
    """Send front (figure and table), pictures, page and summary as one run with job_type "report"; returns its id.

    Offline runs are written below `folder`/wandb and can be sent later by `wandb sync`. Raises UserError where online
    Weights & Biases cannot be reached or nobody is logged in.
    """
    import wandb

    run_id = report_id(study, to.group)
    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(x_disable_stats=True, console="off", silent=True)
    try:
        run = wandb.init(
            project=to.project, entity=to.entity, mode=to.mode, group=to.group, job_type="report", id=run_id,  # type: ignore[arg-type]
            name=f"report of {to.group}", tags=list(to.tags), dir=str(folder), resume="allow", reinit="create_new",
            config={"axes": list(study.axes), "scope": study.question.scope, "cells": len(study.results)},
            settings=settings,
        )  # fmt: skip
    except (wandb.errors.Error, OSError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"logger=wandb: {line}; log in by 'wandb login', or give logger.mode=offline") from None
    try:
        run.log(_contents(wandb, study, written))
        run.summary.update(_summary(study))
    finally:
        run.finish()
    return run_id


def _contents(wandb: Any, study: Study, written: Mapping[str, Path]) -> dict[str, Any]:
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


def _summary(study: Study) -> dict[str, Any]:
    volumes = {f"hypervolume/{c.series}": c.volume.mean for c in study.curves if c.volume is not None}
    differences = {
        f"difference/{one.metric}/{one.at.replace(' ', '_')}": one.difference.mean for one in study.comparisons
    }
    x, y = study.reference
    return {"verdict": study.headline.verdict, "reference/x": x, "reference/y": y, **volumes, **differences}

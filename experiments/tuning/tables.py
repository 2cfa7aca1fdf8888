"""The tables of README.md, computed from results.jsonl.

python experiments/tuning/tables.py           # writes them into README.md, between their marks
python experiments/tuning/tables.py --check   # compares, and exits with 1 where README.md says otherwise
"""

from __future__ import annotations

import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from palp_lab.study.curves import anchors, reference_point
from palp_lab.study.documents import bare, main, markdown
from palp_lab.study.ledger import read_jsonl
from palp_lab.study.observations import bound_observations, observations
from palp_lab.study.palette import words
from palp_lab.study.pareto import hypervolume
from palp_lab.study.result import Result

HERE = Path(__file__).resolve().parent
AXES = ("identity", "text_alignment")
SUBJECTS = ("dog_5", "rabbit_5", "turtle_5")
PARTS = {"lora": "optimizer.lr", "full": "optimizer.lr", "tokens": "optimizer.token_lr"}
"""What each part turns."""


@cache
def ledger() -> tuple[Result, ...]:
    return tuple(read_jsonl(HERE / "results.jsonl"))


@cache
def references() -> dict[str, tuple[float, float]]:
    """Per subject what a point must beat to have volume: the untuned class word, and copies of the photos."""
    bounds = bound_observations(ledger())
    own = {subject: bounds[bounds["concept"] == subject] for subject in SUBJECTS}
    return {subject: reference_point(anchors(rows, AXES, None), AXES) for subject, rows in own.items()}


def part(name: str) -> str:
    """A row per recipe and value: the hypervolume of its curve per subject, their mean, and where the curve ends."""
    key = PARTS[name]
    cells = [result for result in ledger() if result.axes["study"] == f"tuning_{name}"]
    if not cells:
        return "Not run yet."
    frame = observations(cells, series=[key])
    value = {result.run: float(str(result.axes[key])) for result in cells}
    frame = frame.assign(value=frame["run"].map(value)).dropna(subset=list(AXES))
    rows = []
    for method, tried in frame.groupby("method", sort=True):
        found = {at: volumes(curve) for at, curve in tried.groupby("value", sort=True)}
        complete = {at: np.mean(list(own.values())) for at, own in found.items() if len(own) == len(SUBJECTS)}
        best = max(complete, key=lambda at: complete[at]) if len(complete) == tried["value"].nunique() else None
        for at, own in found.items():
            end = tried[(tried["value"] == at) & (tried["step"] == tried["step"].max())]
            mean = bare(float(complete[at]), 4) if at in complete else "–"
            each = [bare(own[subject], 4) if subject in own else "–" for subject in SUBJECTS]
            ends = [bare(float(end[axis].mean())) for axis in reversed(AXES)]
            rows.append(
                [words(str(method)), bare(at, 5).rstrip("0"), f"**{mean}**" if at == best else mean, *each, *ends]
            )
    heads = ("", key.rpartition(".")[2], "volume", *(subject.partition("_")[0] for subject in SUBJECTS))
    return markdown((*heads, "text alignment at the end", "identity at the end"), rows)


def volumes(rows: pd.DataFrame) -> dict[str, float]:
    """Per subject the hypervolume of the curve over steps, each point a mean over the prompts."""
    found = {}
    for subject, own in rows.groupby("concept"):
        points = own.groupby("step")[list(AXES)].mean().to_numpy()
        found[str(subject)] = hypervolume(points, references()[str(subject)], (True, True))
    return found


if __name__ == "__main__":
    sys.exit(main(HERE / "README.md", {name: partial(part, name) for name in PARTS}))

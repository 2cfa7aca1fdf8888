"""The tables of README.md, computed from results.jsonl.

python experiments/tuning/tables.py           # writes them into README.md, between their marks
python experiments/tuning/tables.py --check   # compares, and exits with 1 where README.md says otherwise
"""

from __future__ import annotations

import sys
from functools import cache, partial
from pathlib import Path

import numpy as np

from palp_lab.study.curves import volumes_per_concept
from palp_lab.study.documents import bare, main, markdown
from palp_lab.study.ledger import read_jsonl
from palp_lab.study.observations import bound_observations, observations
from palp_lab.study.palette import words
from palp_lab.study.result import Result

HERE = Path(__file__).resolve().parent
AXES = ("identity", "text_alignment")
SUBJECTS = ("dog_5", "rabbit_5", "turtle_5")
PARTS = {"lora": "optimizer.lr", "full": "optimizer.lr", "tokens": "optimizer.token_lr"}
"""What each part turns."""


@cache
def ledger() -> tuple[Result, ...]:
    return tuple(read_jsonl(HERE / "results.jsonl"))


def part(name: str) -> str:
    """A row per recipe and value: the hypervolume of its curve per subject, their mean, and where the curve ends."""
    key = PARTS[name]
    cells = [result for result in ledger() if result.axes["study"] == f"tuning_{name}"]
    if not cells:
        return "Not run yet."
    frame = observations(cells, series=[key])
    bounds = bound_observations(ledger())
    value = {result.run: float(str(result.axes[key])) for result in cells}
    frame = frame.assign(value=frame["run"].map(value)).dropna(subset=list(AXES))
    rows = []
    for method, tried in frame.groupby("method", sort=True):
        found = {at: volumes_per_concept(curve, bounds, AXES) for at, curve in tried.groupby("value", sort=True)}
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


if __name__ == "__main__":
    sys.exit(main(HERE / "README.md", {name: partial(part, name) for name in PARTS}))

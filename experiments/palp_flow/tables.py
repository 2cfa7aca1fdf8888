"""The tables of README.md, computed from results.jsonl.

python experiments/palp_flow/tables.py           # writes them into README.md, between their marks
python experiments/palp_flow/tables.py --check   # compares, and exits with 1 where README.md says otherwise
"""

from __future__ import annotations

import statistics
import sys
from functools import cache
from pathlib import Path

import pandas as pd

from palp_lab.study.curves import volumes_per_concept
from palp_lab.study.documents import bare, main, markdown
from palp_lab.study.ledger import read_jsonl
from palp_lab.study.observations import bound_observations, observations, scoped
from palp_lab.study.statistics import Comparison, compare_at_equal, compare_at_step

HERE = Path(__file__).resolve().parent
METHODS = {"PALP": "palp", "control": "palp_control"}
METRICS = {
    "text alignment": "text_alignment",
    "elements found": "elements",
    "place": "place_found",
    "accessory in its colour": "accessories_found",
    "identity": "identity",
}


@cache
def frame() -> pd.DataFrame:
    return scoped(observations(read_jsonl(HERE / "results.jsonl")), "own")


def shown(one: Comparison | None) -> list[str]:
    if one is None or one.p_concepts is None:
        return ["–", "–"]
    middle, low, high = (bare(x, sign="+") for x in (one.difference.mean, one.difference.low, one.difference.high))
    return [f"{middle} [{low}, {high}]", bare(one.p_concepts)]


def versus() -> str:
    """PALP and its control minus TI + DB: after as many steps, at equal identity, and against TI + DB stopped early."""
    rows = []
    for name, metric in METRICS.items():
        cells = [
            cell
            for method in METHODS.values()
            for cell in shown(compare_at_step(frame(), "ti_db", method, metric, 350))
        ]
        rows.append([f"{name} after 350 steps", *cells])
    for name, metric in METRICS.items():
        if metric != "identity":
            level = [compare_at_equal(frame(), "ti_db", method, metric, "identity") for method in METHODS.values()]
            rows.append([f"{name} at equal identity", *(cell for one in level for cell in shown(one))])
    for name in ("text alignment", "identity"):
        cells = [cell for method in METHODS.values() for cell in shown(early(method, METRICS[name]))]
        rows.append([f"{name}, TI + DB stopped after 200", *cells])
    return markdown(("", *(head for name in METHODS for head in (f"{name} minus TI + DB", "p"))), rows)


def curves() -> str:
    """Whole curves in one number, where they end, and where the base begins."""
    results = read_jsonl(HERE / "results.jsonl")
    bounds, plane, rows = bound_observations(results), ("text_alignment", "identity"), []
    for name, method in {"TI + DB": "ti_db", **METHODS}.items():
        own = frame()[frame()["series"] == method]
        volume = statistics.mean(volumes_per_concept(own, bounds, ("identity", "text_alignment")).values())
        end = own[own["step"] == 350]
        rows.append([name, bare(volume), *(bare(float(end[axis].mean())) for axis in plane)])
    word = bounds[bounds["name"].eq("class_word") & bounds["prompt"].isin(frame()["prompt"])]
    rows.append(["the class word, untuned", "", *(bare(float(word[axis].mean())) for axis in plane)])
    return markdown(("", "hypervolume", "text alignment after 350 steps", "identity after 350 steps"), rows)


def target() -> str:
    """What the target adds to the control."""
    rows = []
    for name, metric in METRICS.items():
        if metric != "identity":
            level = compare_at_equal(frame(), "palp_control", "palp", metric, "identity")
            rows.append([f"{name} at equal identity", *shown(level)])
    return markdown(("", "PALP minus control", "p"), rows)


def early(method: str, metric: str) -> Comparison | None:
    rows = frame()
    kept = rows[rows["step"] == rows["series"].map({method: 350, "ti_db": 200})].assign(step=350)
    return compare_at_step(kept, "ti_db", method, metric, 350)


if __name__ == "__main__":
    sys.exit(main(HERE / "README.md", {"versus": versus, "curves": curves, "target": target}, given={}))

"""The tables of README.md, computed from results.jsonl.

python experiments/tuning/tables.py           # writes them into README.md, between their marks
python experiments/tuning/tables.py --check   # compares, and exits with 1 where README.md says otherwise
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
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
OTHER = (
    ("ti_db", "edits.rank", "rank", 16),
    ("ti_db", "optimizer.token_lr", "token_lr", 0.003),
    ("custom_diffusion", "augment.variants", "variants of a photo", 8),
    ("dreambooth_lora", "losses.prior_preservation.count", "class images", 32),
    ("rare_adjective", "stages", "steps of the first stage", 50),
)
"""What the last part turns, of which recipe, and what each has by itself."""
GIVEN = {"rates that were tried": (".001", ".003", ".03", ".01")}
"""Numbers of README.md that no table of its has to make."""
CHOSEN = {"ti_db": 0.001, "custom_diffusion": 0.001, "dreambooth_lora": 0.003, "rare_adjective": 0.001}
"""The rates that part was run at."""


@cache
def ledger() -> tuple[Result, ...]:
    return tuple(read_jsonl(HERE / "results.jsonl"))


def rows_of(name: str, tried: Mapping[float, Sequence[Result]]) -> list[list[str]]:
    """A row per value: the hypervolume of its curve per subject, their mean, and where the curve ends. The largest mean
    is in bold once every value has its three subjects."""
    bounds, volumes, ends = bound_observations(ledger()), {}, {}
    for value, cells in tried.items():
        frame = observations(cells).dropna(subset=list(AXES))
        volumes[value] = volumes_per_concept(frame, bounds, AXES)
        ends[value] = [bare(float(frame[frame["step"] == frame["step"].max()][axis].mean())) for axis in reversed(AXES)]
    means = {value: float(np.mean(list(own.values()))) for value, own in volumes.items() if len(own) == len(SUBJECTS)}
    best = max(means, key=lambda value: means[value]) if means and len(means) == len(volumes) else None
    rows = []
    for value, own in volumes.items():
        mean = bare(means[value], 4) if value in means else "–"
        each = [bare(own[subject], 4) if subject in own else "–" for subject in SUBJECTS]
        told = str(int(value)) if float(value).is_integer() else bare(value, 5).rstrip("0")
        rows.append([name, told, f"**{mean}**" if value == best else mean, *each, *ends[value]])
    return rows


def table(key: str, rows: Sequence[Sequence[str]]) -> str:
    heads = ("", key, "volume", *(subject.partition("_")[0] for subject in SUBJECTS))
    return markdown((*heads, "text alignment at the end", "identity at the end"), rows) if rows else "Not run yet."


def by(key: str, cells: Sequence[Result]) -> dict[float, list[Result]]:
    found: dict[float, list[Result]] = {}
    for cell in cells:
        (number,) = re.findall(r"[\d.]+(?:e-?\d+)?", str(cell.axes[key]))  # of stages: how long the first one is
        found.setdefault(float(number), []).append(cell)
    return dict(sorted(found.items()))


def rates(name: str) -> str:
    cells = [result for result in ledger() if result.axes["study"] == f"tuning_{name}"]
    methods = sorted({str(cell.axes["method"]) for cell in cells})
    rows = []
    for method in methods:
        rows += rows_of(words(method), by(PARTS[name], [cell for cell in cells if cell.axes["method"] == method]))
    word = bound_observations(ledger()).query("name == 'class_word'").drop_duplicates(["concept", "prompt"])
    levels = [bare(float(word[axis].mean())) for axis in reversed(AXES)]
    rows.append(["the class word, untuned", "", "", *("" for _ in SUBJECTS), *levels])
    return table(PARTS[name].rpartition(".")[2], rows)


def other() -> str:
    rows = []
    for method, key, name, usual in OTHER:
        own = [cell for cell in ledger() if cell.axes["method"] == method]
        turned = by(key, [cell for cell in own if cell.axes["study"] == "tuning_other" and key in cell.axes])
        base = [cell for cell in own if cell.axes.get("optimizer.lr") == CHOSEN[method]]
        if turned:
            rows += rows_of(f"{words(method)}, {name}", dict(sorted({**turned, float(usual): base}.items())))
    return table("", rows)


if __name__ == "__main__":
    sys.exit(main(HERE / "README.md", {**{name: partial(rates, name) for name in PARTS}, "other": other}, given=GIVEN))

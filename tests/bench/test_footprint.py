"""What every recipe would take on the true architectures, counted from the shapes of all tensors of a step: also on a
machine that could not run one. Weights are at random; of a step nothing is computed.

PALP_LAB_BENCH_SMALL=1 tries the counting on narrow parts.
"""

from __future__ import annotations

import gc
import json
import os
from dataclasses import replace
from typing import Any

import pytest

from palp_lab.cli_help import groups
from palp_lab.composition import conf_folder
from tests.bench.measuring import FOLDER, SCHEMA, SMALL
from tests.bench.test_true_size import free_memory
from tests.bench.true_size import GIGABYTE, Case, configure, count, open_case

pytestmark = [pytest.mark.bench, pytest.mark.timeout(2 * 3600)]

NEEDED = {"sd14": 7e9, "sdxl": 19e9}
"""Free bytes for opening an architecture with random weights, made in float32, and for the copy an edit of all
weights makes (ours)."""
AIMED = ("palp", "ti_db")


def cases(architecture: str) -> list[Case]:
    """Every recipe in bfloat16; more rows and recomputing for two of them."""
    methods = sorted(groups(conf_folder())["method"], key=lambda name: (name not in AIMED, name))
    plain = [Case(architecture, method, "bfloat16", small=SMALL) for method in methods]
    more = [replace(case, batch=4) for case in plain[:2]] + [replace(case, checkpointing=True) for case in plain[:2]]
    return plain[:2] + more + plain[2:]


def line(case: Case, found: dict[str, int]) -> str:
    """A case in Markdown."""
    aim = f"{case.target:.0f} GB" if case.target else ""
    words = [case.architecture, f"`{case.method}`", str(case.batch), "yes" if case.checkpointing else "no"]
    numbers = f"{found['trainable']:,}" if found else ""
    size = f"{found['counted'] / GIGABYTE:.1f} GB" if found else "not counted (too little memory to open the model)"
    return f"| {' | '.join([*words, numbers, size, aim])} |"


@pytest.mark.parametrize("architecture", ["sd14", "sdxl"])
def test_footprint(architecture: str) -> None:
    only = os.environ.get("PALP_LAB_BENCH_ONLY", "").split(",")
    wanted = [one for one in cases(architecture) if only == [""] or f"{architecture}/{one.method}" in only]
    if not wanted:
        pytest.skip(f"PALP_LAB_BENCH_ONLY names nothing of {architecture}")
    enough = SMALL or free_memory() >= NEEDED[architecture]
    rows: list[tuple[Case, dict[str, int]]] = []
    model: Any = None
    for case in wanted:
        if enough and model is None:
            model = open_case(case)[1]
        rows.append((case, count(configure(case), model) if enough else {}))
        print(line(*rows[-1]), flush=True)
    del model
    gc.collect()
    head = [
        "| architecture | recipe | batch | recomputing | trained numbers | all tensors at the peak | aim |",
        "|---|" + "---|" * 6,
    ]
    text = "\n".join([*head, *(line(case, found) for case, found in rows)])
    name = f"footprint_{architecture}{'_small' if SMALL else ''}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    content = {"schema": SCHEMA, "name": name, "rows": [{**vars(case), **found} for case, found in rows]}
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (FOLDER / f"{name}.md").write_text(f"bfloat16, counted from shapes\n\n{text}\n", encoding="utf-8")
    print(f"\nWhat would a step take? (bfloat16, counted from shapes)\n\n{text}")
    assert not enough or all(found["counted"] > 0 for _, found in rows)

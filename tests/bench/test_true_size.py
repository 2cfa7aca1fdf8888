"""What the recipes take on Stable Diffusion 1.4 at 512 px and SDXL at 1024 px: memory at the peak, steps a second.

On a CUDA device every recipe on both; on a CPU one step of LoRA (`ti_db`) and of PALP on SD 1.4, and the rest says that
it was not measured. PALP_LAB_BENCH_SMALL=1 tries the measuring itself on narrow parts, on any device.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from palp_lab.cli_help import groups
from palp_lab.composition import conf_folder
from tests.bench.measuring import FOLDER, SCHEMA, SMALL
from tests.bench.true_size import GIGABYTE, WARM, Case, Measured, measure

pytestmark = [pytest.mark.bench, pytest.mark.timeout(6 * 3600)]

NEEDED = 14e9
"""Free bytes a float32 step of SD 1.4 needs on a CPU (ours: 4.3 GB of weights, the rest activations and libraries)."""
ON_CPU = ("palp", "ti_db")


def cases(device: torch.device, small: bool) -> list[Case]:
    """All that the tables should hold, measured here or not."""
    methods = groups(conf_folder())["method"]
    steps = WARM + 8 if device.type == "cuda" else 1
    fast = device.type == "cuda"
    found = [
        Case(architecture, method, "bfloat16" if fast else "float32", False, device.type, steps, small)
        for architecture in ("sd14", "sdxl")
        for method in sorted(methods, key=lambda name: (name not in ON_CPU, name))
    ]
    if fast:  # what precision and recomputing are worth
        found += [Case("sd14", method, "float32", False, "cuda", steps, small) for method in ON_CPU]
        found += [Case("sdxl", method, "bfloat16", True, "cuda", steps, small) for method in ON_CPU]
    return found


def reason(case: Case) -> str:
    """Why a case is not measured here; empty where it is."""
    if case.device == "cuda" or case.small:
        return ""
    if case.architecture != "sd14" or case.method not in ON_CPU:
        return "not measured (no CUDA device)"
    free = free_memory()
    return "" if free >= NEEDED else f"not measured ({NEEDED / GIGABYTE:.0f} GB needed, {free / GIGABYTE:.0f} free)"


def free_memory() -> float:
    """Bytes that can still be taken."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def table(rows: Sequence[Measured]) -> str:
    """The rows in Markdown."""
    lines = [
        "| architecture | recipe | weights | recomputing | trained numbers | peak memory | counted | aim | steps/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        case, why = row.case, row.why or "not measured"
        peak = f"{row.peak / GIGABYTE:.2f} GB" if row.peak else why
        speed = f"{1 / row.seconds:.3g}" if row.seconds else (why if row.peak else "")
        counted = f"{row.counted / GIGABYTE:.2f} GB" if row.counted else ""
        aim = f"{case.target:.0f} GB" if case.target else ""
        numbers = f"{row.trainable:,}" if row.trainable else ""
        recomputing = "yes" if case.checkpointing else "no"
        words = [case.architecture, f"`{case.method}`", case.dtype, recomputing, numbers, peak, counted, aim, speed]
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines)


def test_true_size(device: torch.device) -> None:
    only = os.environ.get("PALP_LAB_BENCH_ONLY", "").split(",")  # e.g. sd14/palp,sd14/ti_db
    rows = []
    for case in cases(device, SMALL):
        left_out = only != [""] and f"{case.architecture}/{case.method}" not in only
        why = "not measured (left out)" if left_out else reason(case)
        rows.append(Measured(case, why=why) if why else measure(case))
        print(rows[-1].row())
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU, one thread"
    names = ("torch", "diffusers", "transformers", "peft", "lightning")
    versions = {name: __import__("importlib.metadata").metadata.version(name) for name in names}
    content = {
        "schema": SCHEMA, "name": "true_size", "small": SMALL, "device": where, "batch": 1,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {"python": platform.python_version(), **versions}, "rows": [row.row() for row in rows],
    }  # fmt: skip
    FOLDER.mkdir(parents=True, exist_ok=True)
    name = "true_size_small" if SMALL else "true_size"
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    text = table(rows)
    (FOLDER / f"{name}.md").write_text(f"{where}; {versions}\n\n{text}\n", encoding="utf-8")
    print(f"\nWhat do the recipes take on the true architectures?\n  {where}, batch 1\n\n{text}")
    assert any(row.peak for row in rows), "nothing could be measured here"

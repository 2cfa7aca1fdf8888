"""Measuring by ratios: variants run in turns and each round is compared with its own baseline, so that a busy machine
slows both sides of a ratio alike."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from palp_lab.model import synchronize

SCHEMA = "palp_lab.bench/1"
FOLDER = Path(os.environ.get("PALP_LAB_OUTPUT") or Path(__file__).resolve().parents[2] / "outputs") / "bench"

SMALL = bool(os.environ.get("PALP_LAB_BENCH_SMALL"))
"""Whether only the measuring itself is tried: one round, fewest steps and pictures, numbers that mean nothing."""

Once = Callable[[], float]
"""Runs a variant once; seconds per unit (step, picture, call)."""


@dataclass(frozen=True)
class Row:
    """A variant: median `seconds` per unit, `ratio` to the baseline (median over rounds, with the lowest and highest
    round), `peak_memory` in bytes (None: not measured)."""

    name: str
    seconds: float
    ratio: float
    low: float
    high: float
    peak_memory: int | None = None


def stopwatch(work: Callable[[], object], device: torch.device, units: int = 1) -> Once:
    """Seconds of `work` per unit of it."""

    def once() -> float:
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        return (time.perf_counter() - began) / units

    return once


def compare(variants: Mapping[str, Once], device: torch.device, rounds: int = 3, warm: int = 1) -> list[Row]:
    """Runs all variants in turns, `rounds` times after `warm` rounds that do not count; the first is the baseline."""
    rounds, warm = (1, 0) if SMALL else (rounds, warm)
    found: dict[str, list[float]] = {name: [] for name in variants}
    memory: dict[str, int] = {}
    for number in range(warm + rounds):
        for name, once in variants.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            seconds = once()
            if number >= warm:
                found[name].append(seconds)
            if device.type == "cuda":
                memory[name] = max(memory.get(name, 0), torch.cuda.max_memory_allocated(device))
    base = found[next(iter(variants))]
    rows = []
    for name, seconds in found.items():
        ratios = [mine / other for mine, other in zip(seconds, base, strict=True)]
        middle, ratio = statistics.median(seconds), statistics.median(ratios)
        rows.append(Row(name, middle, ratio, min(ratios), max(ratios), memory.get(name)))
    return rows


def report(name: str, question: str, unit: str, rows: list[Row], device: torch.device, about: str) -> Path:
    """Prints a table and writes bench/<name>.json below `outputs` or PALP_LAB_OUTPUT."""
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type}, {torch.get_num_threads()} thread(s)"
    )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if SMALL:
        name, about = f"{name}_small", f"{about}; ONE ROUND, TO TRY THE MEASURING: THE NUMBERS MEAN NOTHING"
    print(f"\n{question}\n  {about}; {where}; load {load if load is None else round(load, 1)}")
    width = max(len(row.name) for row in rows)
    print(f"  {'':{width}}  {f'ms per {unit}':>16}  {'ratio':>6}  {'range over rounds':>17}  {'peak memory':>13}")
    for row in rows:
        memory = "not measured" if row.peak_memory is None else f"{row.peak_memory / 2**20:.0f} MiB"
        span = f"{row.low:.2f} to {row.high:.2f}"
        print(f"  {row.name:{width}}  {1e3 * row.seconds:16.2f}  {row.ratio:6.2f}  {span:>17}  {memory:>13}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    content = {
        "schema": SCHEMA, "name": name, "question": question, "unit": unit, "about": about, "device": where,
        "load": load, "versions": versions, "baseline": rows[0].name, "rows": [asdict(row) for row in rows],
    }  # fmt: skip
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path

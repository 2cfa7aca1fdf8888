"""A step on Stable Diffusion 1.4's true architecture at 512 px, random weights: LoRA alone, and with PALP's term."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from palp_lab.dataset.concept import AbstractDataset, Concept
from tests.architectures.skeletons import Skeleton, concept
from tests.bench.lab import Lab
from tests.bench.measuring import compare, report

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

NEEDED = 12 * 2**30
"""Bytes of a float32 step of one picture (ours: 4 GB of weights, 1 of gradients and moments, 5 of activations)."""


@dataclass
class Photos(AbstractDataset):
    """Four random photos of 512 px."""

    def concept(self) -> Concept:
        return concept(side=512)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_step(palp_lab_data: Path, device: torch.device, tmp_path: Path) -> None:
    free = free_memory(device)
    if free < NEEDED:
        pytest.skip(
            f"NOT MEASURED: a step of SD 1.4 needs {NEEDED >> 30} GB of {device.type} memory, {free >> 30} are free"
        )
    model = Skeleton("sd14", palp_lab_data / "skeletons" / "sd14").true_size(device.type)
    lab = Lab(model, Photos(), "SD 1.4's architecture, random weights, 512 px")
    fast = device.type == "cuda"
    batch, steps = (4, 8) if fast else (1, 1)
    same = ("model=sd14", f"trainer.batch_size={batch}", "edits.rank=32", "augment.variants=1")
    rows = compare(
        {
            "ti_db": lambda: lab.training(tmp_path, "method=ti_db", *same, steps=steps),
            "palp": lambda: lab.training(tmp_path, "method=palp", *same, steps=steps),
            "palp, beta 1": lambda: lab.training(
                tmp_path, "method=palp", "losses.prompt_alignment.beta=1", *same, steps=steps
            ),
        },
        device,
        rounds=3 if fast else 1,
        warm=0,
    )
    report("sd14", "What does a step cost on SD 1.4?", "step", rows, device, f"{lab.about}, batch {batch}, float32")

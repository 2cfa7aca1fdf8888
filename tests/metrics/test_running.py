"""Metrics over real processes: what each rank measured is joined exactly, by gloo, as a distributed evaluation does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

RANK = """
import sys
import torch
from torch import distributed
from palp_lab.metrics.base import Evidence
from palp_lab.metrics.diversity import PerceptualDiversity
from palp_lab.metrics.gap import CorrectedTextAlignment
from palp_lab.metrics.running import Running

rank, meeting = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=3)
see = lambda space, images: images.flatten(1).float()
evidence = lambda count: Evidence(
    images=torch.arange(count * 12, dtype=torch.uint8).view(count, 3, 2, 2), text="x", see=see,
    read=lambda space, prompts: torch.ones(len(prompts), 12), gap=lambda space: torch.full((12,), 0.1).double(),
)
for metric in (CorrectedTextAlignment(), PerceptualDiversity()):
    running = Running(metric)
    for count in {0: [2, 3], 1: [], 2: [1]}[rank]:
        running.update(evidence(count))
    print(repr(float(running.compute())), flush=True)
distributed.barrier()  # nobody hangs up on somebody who still listens
distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_three_processes_say_the_mean_over_all_pictures(tmp_path: Path) -> None:
    """Five pictures, none and one; the diversity of a single picture is not measured, so two ranks have none."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-W", "ignore", "-c", RANK]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "meeting")], stdout=subprocess.PIPE, text=True, env=environment
        )
        for rank in range(3)
    ]
    said = [[float(line) for line in rank.communicate(timeout=300)[0].split()] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks)
    assert said[0] == said[1] == said[2]
    cosines, distances = [], []
    for count in (2, 3, 1):
        images = torch.arange(count * 12).view(count, 12).double()
        moved = torch.nn.functional.normalize(images, dim=-1) - 0.05
        there = torch.nn.functional.normalize(torch.ones(12).double(), dim=-1) + 0.05
        cosines += torch.cosine_similarity(moved, there[None]).tolist()
        pairs = [float((images[i] - images[j]).square().sum()) for i in range(count) for j in range(i)]
        distances += [sum(pairs) / len(pairs)] if pairs else []
    assert said[0] == pytest.approx([sum(cosines) / 6, sum(distances) / 2], rel=1e-6)

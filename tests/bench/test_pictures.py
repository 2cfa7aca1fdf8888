"""What pictures cost: drawn by the model, rendered by the world, looked at by the scorers."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from palp_lab.generate import Sampling, clean, generate_pictures
from palp_lab.metrics.embedders import SHIPPED
from tests.bench.lab import TARGET, Lab
from tests.bench.measuring import SMALL, compare, report, stopwatch
from tests.metrics.conftest import noise_pictures

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

COUNT = 4 if SMALL else 16


def test_generation(lab: Lab) -> None:
    model, prompting = lab.model, clean(lab.model, lab.dataset.concept())

    def draw(batch: int) -> None:
        how = Sampling("ddim", steps=1 if SMALL else 5, guidance=5.0)
        assert len(list(generate_pictures(model, prompting, [TARGET], range(COUNT), how, batch))) == COUNT

    variants = {f"batch {n}": stopwatch(lambda n=n: draw(n), model.device, COUNT) for n in (1, 4, 16)}  # type: ignore[misc]
    rows = compare(variants, model.device)
    report("generation", "What does a picture of 5 steps cost by batch?", "picture", rows, model.device, lab.about)


def test_renderer() -> None:
    from palp_lab import tinyworld

    cpu = torch.device("cpu")
    scenes = [tinyworld.sample_scene(seed, "pretrain") for seed in range(64)]
    files = []
    for scene in scenes:
        Image.fromarray(tinyworld.render(scene)).save(file := io.BytesIO(), "PNG")
        files.append(file)
    jobs = {
        "reading a PNG of it": lambda: [Image.open(file).load() for file in files],
        "drawing a scene": lambda: [tinyworld.sample_scene(seed, "pretrain") for seed in range(64)],
        "its caption": lambda: [tinyworld.caption(scene, np.random.default_rng(0)) for scene in scenes],
        "render": lambda: [tinyworld.render(scene) for scene in scenes],
    }
    rows = compare({name: stopwatch(job, cpu, len(scenes)) for name, job in jobs.items()}, cpu)
    report("renderer", "What does a picture of the world cost?", "picture", rows, cpu, "64 px, one process")
    began = time.process_time()
    jobs["render"]()
    core = len(scenes) / (time.process_time() - began)
    print(f"  {1 / rows[-1].seconds:.0f} pictures a second of the clock, {core:.0f} a second of processor time")


def test_scoring(lab: Lab, clip_path: Path, resnet_path: Path) -> None:
    from palp_lab.build import build
    from palp_lab.composition import compose
    from palp_lab.metrics.alignment import ImageAlignment, TextAlignment
    from palp_lab.metrics.embedders import ClipEmbedder, VisionEmbedder
    from palp_lab.metrics.protocols import protocol
    from palp_lab.score import gather_references

    device, concept = lab.model.device, lab.dataset.concept()
    shipped = (SHIPPED / "clip").is_dir()

    def fresh() -> object:
        if shipped:
            return build(compose("run", f"device={device.type}").metrics, "metrics")
        embedders = {
            "clip": ClipEmbedder(clip_path, device), "identity": VisionEmbedder(resnet_path, device)
        }  # fmt: skip
        return protocol("bench", 1, embedders, {"text": TextAlignment(), "identity": ImageAlignment()})

    references = gather_references(lab.dataset, concept, [TARGET])
    pictures = noise_pictures(COUNT, seed=1, size=(64, 64))

    def score(at_once: int) -> None:
        measuring = fresh()  # a protocol remembers what it has seen
        for part in pictures.split(at_once):
            measuring.measure(part, TARGET, concept.superclass, references)  # type: ignore[attr-defined]

    variants = {f"{n} at once": stopwatch(lambda n=n: score(n), device, COUNT) for n in (16, 4, 1)}  # type: ignore[misc]
    about = "the shipped scorers" if shipped else "random scorers of a few thousand weights (none are shipped)"
    report("scoring", "What does scoring a picture cost?", "picture", compare(variants, device), device, about)

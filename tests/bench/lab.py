"""What is measured on: the shipped tiny model, or a stand-in of the same size with random weights; and one training run
step by step."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from palp_lab import compose
from palp_lab.dataset.concept import AbstractDataset, Concept
from palp_lab.engine import callbacks
from palp_lab.model.folder import SHIPPED
from palp_lab.train import TrainingOutcome
from palp_lab.training import as_plain, read_settings

TARGET = "a sketch of a {} in the snow"


def stand_in(folder: Path) -> Path:
    """A pipeline with the tiny model's architecture and random weights: as fast, and as blind as a stone."""
    from diffusers import StableDiffusionPipeline

    from palp_lab.tinyworld.pretrain_autoencoder import build_autoencoder
    from palp_lab.tinyworld.pretrain_generator import SIZES, build_scheduler, build_unet
    from palp_lab.tinyworld.pretrain_text import build_text_encoder, build_tokenizer

    words = build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet, vae, text = build_unet(SIZES["generator"]), build_autoencoder(), build_text_encoder(words)
        # Residual branches start at zero, through which no gradient comes back.
        for weight in unet.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.02)
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=words, unet=unet, scheduler=build_scheduler(),
        safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


class Photos(AbstractDataset):
    """Four smooth random photos of a "cat" at a model's size, with masks of its middle. Final."""

    def __init__(self, side: int) -> None:
        coarse = torch.rand((4, 3, 4, 4), generator=torch.Generator().manual_seed(0))
        photos = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear").mul(255).to(torch.uint8)
        masks = torch.zeros(4, side, side, dtype=torch.bool)
        masks[:, side // 4 : -side // 4, side // 4 : -side // 4] = True
        self.cat = Concept("mia", "cat", "<v>", photos, digest="0", masks=masks)

    def concept(self) -> Concept:
        return self.cat


def step_times(
    model: Any, dataset: AbstractDataset, config: Any, folder: Path, prior: torch.Tensor | None = None
) -> tuple[list[float], TrainingOutcome]:
    """Seconds of every step of a whole training as `palp-lab run` would do it, and its outcome. `prior` takes the
    place of the class pictures a recipe would draw first."""
    from palp_lab import train_adapter
    from palp_lab.build import build, build_all

    plain = as_plain(config)
    times: list[float] = []
    finish = callbacks.StepLog.on_train_batch_end

    def clock() -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def start(*_: Any) -> None:
        times.append(-clock())

    def end(log: Any, *rest: Any) -> None:
        finish(log, *rest)
        times[-1] += clock()

    with (
        patch.object(callbacks.StepLog, "on_train_batch_start", start),
        patch.object(callbacks.StepLog, "on_train_batch_end", end),
    ):
        outcome = train_adapter(
            model, dataset, build(config.tokens, "tokens"), build(config.edits, "edits"),
            build_all(config.losses, "losses"), captions=list(plain["captions"]), folder=folder,
            settings=read_settings(plain), target=plain["target"], stages=plain["stages"], prior=prior,
        )  # fmt: skip
    return times, outcome


@dataclass(frozen=True)
class Lab:
    """A model to measure on, opened once."""

    model: Any
    dataset: AbstractDataset
    about: str

    def training(self, folder: Path, *overrides: str, steps: int = 5) -> float:
        """Median seconds of a step of the whole engine; the first two (warm-up) and the last (saving) do not count."""
        config = compose(
            "run", *overrides, f"target='{TARGET}'", f"trainer.max_steps={steps + 3}", "trainer.save_every=10000",
            "log.every=10000", "log.progress=false", f"device={self.model.device.type}",
        )  # fmt: skip
        run = folder / f"run{len(list(folder.iterdir()))}"
        times, _ = step_times(self.model, self.dataset, config, run)
        return statistics.median(times[2:-1])


def open_lab(folder: Path, device: str) -> Lab:
    """The shipped model where there is one, else a stand-in; on the device."""
    from palp_lab import TinyDataset, open_model

    shipped = (SHIPPED / "tiny" / "model_index.json").is_file()
    path = "tiny" if shipped else stand_in(folder / "stand_in")
    about = "the shipped tiny model" if shipped else "a stand-in of the tiny model's size (no weights are shipped)"
    return Lab(open_model(path, device=device), TinyDataset(), about)

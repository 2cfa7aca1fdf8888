"""What is measured on: the shipped tiny model, or a stand-in of the same size with random weights; and one training run
step by step."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from palp_lab.engine import callbacks
from palp_lab.model.folder import SHIPPED
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


@dataclass(frozen=True)
class Lab:
    """A model to measure on, opened once."""

    model: Any
    dataset: Any
    about: str

    def training(self, folder: Path, *overrides: str, steps: int = 5) -> float:
        """Median seconds of a step of the whole engine; the first two (warm-up) and the last (saving)
        do not count."""
        from palp_lab import compose, train_adapter
        from palp_lab.build import build, build_all

        config = compose(
            "run", *overrides, f"target='{TARGET}'", f"trainer.max_steps={steps + 3}", "trainer.save_every=10000",
            "log.every=10000", "log.progress=false", f"device={self.model.device.type}",
        )  # fmt: skip
        plain = as_plain(config)
        times: list[float] = []
        inner = callbacks.StepLog.on_train_batch_end

        def end(log: Any, *rest: Any) -> None:
            inner(log, *rest)
            if self.model.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter())

        run = folder / f"run{len(list(folder.iterdir()))}"
        with patch.object(callbacks.StepLog, "on_train_batch_end", end):
            train_adapter(
                self.model, self.dataset, build(config.tokens, "tokens"), build(config.edits, "edits"),
                build_all(config.losses, "losses"), captions=list(plain["captions"]), folder=run,
                settings=read_settings(plain), target=TARGET,
            )  # fmt: skip
        return statistics.median(b - a for a, b in pairwise(times[1:-1]))


def open_lab(folder: Path, device: str) -> Lab:
    """The shipped model where there is one, else a stand-in; on the device."""
    from palp_lab import TinyDataset, open_model

    shipped = (SHIPPED / "tiny" / "model_index.json").is_file()
    path = "tiny" if shipped else stand_in(folder / "stand_in")
    about = "the shipped tiny model" if shipped else "a stand-in of the tiny model's size (no weights are shipped)"
    return Lab(open_model(path, device=device), TinyDataset(), about)

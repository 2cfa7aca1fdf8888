"""A training on the toy in a tenth of a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from palp_lab.engine.settings import Augmentation, LogSettings, OptimizerSettings, RunSettings, TrainerSettings
from palp_lab.losses.base import AbstractLoss
from palp_lab.losses.reconstruction import Reconstruction
from palp_lab.train import TrainingOutcome, train_adapter
from palp_lab.types import Kind
from tests.losses.toy import ToyDataset, ToyEdits, ToyModel, ToyTokens

Train = Callable[..., TrainingOutcome]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """train(losses, folder=..., seed=..., and any key of the trainer) on a fresh toy."""
    count = iter(range(1000))

    def go(
        losses: Mapping[str, AbstractLoss] | None = None,
        folder: Path | None = None,
        variants: int = 4,
        gradients_every: int = 0,
        log_every: int = 1,
        token_lr: float | None = None,
        lr: float = 1e-2,
        flip: float = 0.5,
        optimizer: Mapping[str, Any] | None = None,
        given: Mapping[str, Any] | None = None,
        show: bool = False,
        **trainer: Any,
    ) -> TrainingOutcome:
        how = {"max_steps": 6, "batch_size": 4, "save_every": 2, **trainer}
        return train_adapter(
            ToyModel(Kind.V),
            ToyDataset(),
            ToyTokens(),
            ToyEdits(),
            losses or {"reconstruction": Reconstruction()},
            folder=folder or str(tmp_path / f"run{next(count)}"),
            settings=RunSettings(
                TrainerSettings(**how),
                OptimizerSettings(lr=lr, token_lr=token_lr, **(optimizer or {})),
                LogSettings(log_every, gradients_every, show),
                Augmentation(variants, flip, 1.0),
            ),
            **{"captions": ["a photo of {}", "a close-up of {}"], "target": "a sketch of {} in Paris", **(given or {})},
        )

    return go

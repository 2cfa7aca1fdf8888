"""Loggers of a training beside its log.csv, which is always written (`palp_lab.engine.callbacks.StepLog`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image

from palp_lab.types import UserError


class TensorBoard(TensorBoardLogger):
    """Lightning's logger for TensorBoard, which shows the sample pictures of a training as well. Final."""

    def log_image(self, key: str, images: Sequence[Image.Image], step: int, caption: Sequence[str] = ()) -> None:
        """Pictures under one name, in the order they come in; there is no place for captions."""
        for number, image in enumerate(images):
            name = key if len(images) == 1 else f"{key}/{number}"
            self.experiment.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")


def build_loggers(wandb_run: Any = None, tensorboard: Path | None = None) -> list[Logger]:
    """An open Weights & Biases run as Lightning's logger, one that writes TensorBoard's files into a folder, or none.

    Whoever opened the run finishes it (`palp_lab.study.tracking.open_run` does, whatever happens inside its block): a
    logger that opens its own run writes into the one before it when nobody has finished that. Raises UserError where
    TensorBoard is not installed.
    """
    loggers: list[Logger] = [] if wandb_run is None else [WandbLogger(experiment=wandb_run, log_model=False)]
    if tensorboard is not None:
        try:
            loggers.append(TensorBoard(str(tensorboard.parent), name="", version=tensorboard.name))
        except ModuleNotFoundError:
            raise UserError("logger=tensorboard: it is not installed; pip install 'palp-lab[tensorboard]'") from None
    return loggers

"""Loggers of a training beside its log.csv, which is always written (`palp_lab.engine.callbacks.StepLog`)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger


def build_loggers(wandb_run: Any = None) -> list[Logger]:
    """An open Weights & Biases run as Lightning's logger, or none.

    Whoever opened the run finishes it (`palp_lab.study.tracking.open_run` does, whatever happens inside its block): a
    logger that opens its own run writes into the one before it when nobody has finished that.
    """
    return [] if wandb_run is None else [WandbLogger(experiment=wandb_run, log_model=False)]

"""The training stage of a configuration: objects built, handed to `train_adapter`, and its outcome as plain data."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.build import build, check_fit
from palp_lab.train import train_adapter
from palp_lab.types import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from palp_lab.dataset.concept import AbstractDataset
    from palp_lab.engine.settings import RunSettings
    from palp_lab.losses.base import AbstractLoss
    from palp_lab.model.base import AbstractModel

logger = logging.getLogger(__name__)

GALLERY_SENTENCES = 4
"""Sentences of the sheets that are drawn during training (ours)."""


def train_stage(
    config: DictConfig,
    model: AbstractModel,
    dataset: AbstractDataset,
    losses: Mapping[str, AbstractLoss],
    target: str | None,
    sentences: Sequence[str],
    folder: Path,
    loggers: Sequence[Any] = (),
) -> dict[str, Any]:
    """Trains what the configuration says into a folder, or goes on where an earlier process was stopped.

    `target` is None for a method that has none. Returns what the stage says about itself: its cost.
    """
    plain = as_plain(config)
    tokens, edits = build(config.tokens, "tokens"), build(config.edits, "edits")
    needs = {"tokens": tokens.requires, "edits": edits.requires}
    check_fit(model.provides, needs | {f"losses.{name}": loss.requires for name, loss in losses.items()})
    with unmasked_interrupt(), repeatable_command(str(plain["verb"])):
        outcome = train_adapter(
            model,
            dataset,
            tokens,
            edits,
            losses,
            captions=plain["captions"],
            folder=folder,
            settings=read_settings(plain, sentences),
            seed=int(plain["seed"]),
            target=target,
            steps=[int(step) for step in plain["checkpoints"]],
            stages=plain.get("stages") or (),
            about={
                "tokens": plain["tokens"],
                "edits": plain["edits"],
                "model": plain["model"],
                "labels": plain["labels"],
            },
            loggers=loggers,
            cache=Path(plain["store"]),
        )
    return {"cost": dict(outcome.cost), "seconds": outcome.cost["seconds"], "report": list(outcome.report)}


def is_further_rank() -> bool:
    """Whether this process was started by another one as a rank above 0 of its training."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


@contextmanager
def repeatable_command(verb: str) -> Iterator[None]:
    """Puts the verb back into the command line, which Hydra reads without it: strategy=ddp starts its further ranks by
    giving the command once more."""
    before = sys.argv
    if verb not in before[1:2]:
        sys.argv = [before[0], verb, *before[1:]]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def unmasked_interrupt() -> Iterator[None]:
    """Lightning turns Ctrl-C into an exit with status 1; here it is Ctrl-C again, so that a sweep stops as a whole."""
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def read_settings(plain: Mapping[str, Any], sentences: Sequence[str] = ()) -> RunSettings:
    """How a resolved configuration trains. Sheets during training show the first `sentences`."""
    from palp_lab.engine.settings import (
        Augmentation,
        GallerySettings,
        LogSettings,
        OptimizerSettings,
        RunSettings,
        TrainerSettings,
    )

    how = plain["generate"]
    gallery = GallerySettings(
        tuple(sentences[:GALLERY_SENTENCES]), (0, 1), how["scheduler"], int(how["steps"]), float(how["guidance"])
    )
    return RunSettings(
        TrainerSettings(**plain["trainer"]),
        OptimizerSettings(**plain["optimizer"]),
        LogSettings(**plain["log"]),
        Augmentation(**plain["augment"]),
        gallery,
    )


def as_plain(config: DictConfig) -> dict[str, Any]:
    """A resolved configuration as plain data."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def checkpoints_of(config: DictConfig) -> list[int]:
    """The steps before the last at which an adapter is asked for, as they are given. Raises UserError for one that is
    no step; those the training does not reach are left out, and named."""
    asked, last = list(config.checkpoints), int(config.trainer.max_steps)
    if wrong := [step for step in asked if not isinstance(step, int) or step < 1]:
        raise UserError(f"checkpoints: {wrong[0]} is no step; they are counted from 1 to trainer.max_steps={last}")
    if late := [step for step in asked if step > last]:
        logger.warning("checkpoints: step %d is not reached with trainer.max_steps=%d, and left out", late[0], last)
    return [step for step in asked if step < last]

"""What a cell tunes for and draws, checked before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from palp_lab.types import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from palp_lab.dataset.concept import AbstractDataset
    from palp_lab.losses.base import AbstractLoss

logger = logging.getLogger(__name__)


def target_of(config: DictConfig, losses: Mapping[str, AbstractLoss], dataset: AbstractDataset) -> str | None:
    """The checked target of a method that has one, None of any other. Where none is given and the dataset has one of
    its own, so that a grid of methods runs as it stands, `config` takes that."""
    if not reads_target(config, losses):
        return None
    if config.target is None and (own := dataset.default_target()) is not None:
        logger.info("target: none given; tuning for %r, this world's own", own)
        config.target = own
    return read_target(config)


def check_drawing(config: DictConfig) -> None:
    """Refuses what would leave nothing to draw or measure, and what nothing can be drawn with. Raises UserError."""
    how = config.generate
    for key in ("seeds", "steps", "batch_size"):
        if int(how[key]) < 1:
            raise UserError(f"generate.{key}={how[key]}: must be at least 1")
    if how.guidance < 0:
        raise UserError(f"generate.guidance={how.guidance}: must be at least 0; 1 is no guidance, 0 no prompt")
    if not 0 < config.strip.t <= 1:
        raise UserError(f"strip.t={config.strip.t}: must be above 0 and at most 1, a share of the clock")
    if config.strip.guidance < 0:
        raise UserError(f"strip.guidance={config.strip.guidance}: must be at least 0; 1 is no guidance")


def say_unknown(path: str, sentences: Iterable[str]) -> None:
    """A warning where sentences ask a shipped model of the tiny world (`model.path`) for what that world does not
    have."""
    from palp_lab.model.folder import SHIPPED, resolve
    from palp_lab.tinyworld.parse import parse

    if not Path(found := resolve(path)).is_relative_to(SHIPPED):
        return
    if unknown := dict.fromkeys(word for sentence in sentences for word in parse(sentence).unknown):
        logger.warning(
            "model=%s does not know %s: what these words ask for is neither drawn nor counted (docs/tinyworld.md has "
            "the words it knows)",
            Path(found).name,
            ", ".join(map(repr, unknown)),
        )


def reads_target(config: DictConfig, losses: Mapping[str, AbstractLoss]) -> bool:
    """Whether the target decides what is trained: a loss needs it, or the photos' captions are it."""
    from omegaconf import OmegaConf

    captions = OmegaConf.to_container(config, resolve=False)["captions"]  # type: ignore[index,call-overload]
    return any(loss.needs_target for loss in losses.values()) or "${target}" in captions


def read_target(config: DictConfig) -> str:
    """The checked target prompt of a method that has one."""
    from palp_lab.dataset.concept import check_sentence

    if config.target is None:
        method = config.labels.method or "this method"
        raise UserError(f"target: {method} tunes for a prompt; add 'target=\"a sketch of {{}} in the snow\"'")
    return check_sentence(str(config.target), "target")

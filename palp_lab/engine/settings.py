"""How a run trains, as plain values. The shipped numbers and their sources lie in conf/trainer and conf/optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from palp_lab.types import UserError

SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine")
"""How learning rates move, by diffusers' names."""

SINCE: dict[str, dict[str, Any]] = {"optimizer": {"lr_scheduler": "constant", "lr_warmup_steps": 0}}
"""Keys that came after the first ledgers were written, at the value that does what was done without them. At that value
they are left out of hashes, so that what was made before is still found."""


def since_then(group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A group's values without the later keys that change nothing."""
    later = SINCE.get(group, {})
    return {key: value for key, value in values.items() if key not in later or value != later[key]}


@dataclass(frozen=True)
class TrainerSettings:
    """Steps, batch, precision. `batch_size` is that of an optimizer step, over all processes and micro-batches."""

    max_steps: int = 500
    batch_size: int = 32
    accumulate: int = 1
    gradient_clip: float | None = 1.0
    precision: str | int = 32
    ema: float | None = None
    gradient_checkpointing: bool = False
    save_every: int = 100
    gallery: int = 250
    devices: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "accumulate", "save_every", "devices"):
            if getattr(self, name) < 1:
                raise UserError(f"trainer.{name}={getattr(self, name)}: must be at least 1")
        if self.gallery < 0:
            raise UserError(f"trainer.gallery={self.gallery}: must be a number of steps, or 0 for no pictures")
        if self.batch_size % (self.accumulate * self.devices):
            raise UserError(
                f"trainer.batch_size={self.batch_size}: cannot be split among accumulate={self.accumulate} "
                f"micro-batches on devices={self.devices}; make it a multiple of {self.accumulate * self.devices}"
            )
        if str(self.precision) not in {"32", "bf16"}:
            raise UserError(f"trainer.precision={self.precision}: must be 32 or bf16")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f"trainer.ema={self.ema}: must be between 0 and 1, e.g. 0.999, or null for none")
        if self.gradient_clip is not None and self.gradient_clip < 0:
            raise UserError(f"trainer.gradient_clip={self.gradient_clip}: must be above 0; 0 or null is none")


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW. Word vectors have their own learning rate and never decay.

    `lr_scheduler`: `constant`; `constant_with_warmup`; `linear` and `cosine`, which fall to 0 at the last step.
    `lr_warmup_steps`: optimizer steps over which the rates rise from 0, for all but `constant`.
    """

    name: str = "adamw"
    lr: float = 5e-5
    token_lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    lr_scheduler: str = "constant"
    lr_warmup_steps: int = 0

    def __post_init__(self) -> None:
        if self.name != "adamw":
            raise UserError(f"optimizer.name={self.name}: must be adamw")
        if self.lr <= 0 or (self.token_lr is not None and self.token_lr <= 0):
            raise UserError("optimizer.lr and optimizer.token_lr must be above 0 (token_lr: null takes lr)")
        if self.lr_scheduler not in SCHEDULES:
            raise UserError(f"optimizer.lr_scheduler={self.lr_scheduler}: must be one of {', '.join(SCHEDULES)}")
        if self.lr_warmup_steps < 0:
            raise UserError(f"optimizer.lr_warmup_steps={self.lr_warmup_steps}: must be at least 0")
        if self.lr_warmup_steps and self.lr_scheduler == "constant":
            raise UserError(
                f"optimizer.lr_warmup_steps={self.lr_warmup_steps}: constant knows no warm-up; give "
                "optimizer.lr_scheduler=constant_with_warmup"
            )
        if self.lr_scheduler == "constant_with_warmup" and not self.lr_warmup_steps:
            raise UserError("optimizer.lr_scheduler=constant_with_warmup: give optimizer.lr_warmup_steps, e.g. 50")

    @property
    def falls(self) -> bool:
        """Whether what a step does depends on how many there will be."""
        return self.lr_scheduler in {"linear", "cosine"}


@dataclass(frozen=True)
class LogSettings:
    """Steps between rows of the log, between parameter-gradient norms (0: never), and whether a bar is shown."""

    every: int = 1
    gradients_every: int = 50
    progress: bool = True

    def __post_init__(self) -> None:
        if self.every < 1 or self.gradients_every < 0:
            raise UserError("log.every must be at least 1 and log.gradients_every at least 0 (0: never)")


@dataclass(frozen=True)
class Augmentation:
    """What is done to a photo before it is encoded.

    `variants`: how many versions of each photo are encoded once and drawn from (0: a fresh one is encoded at every
    step, as the papers do). `flip`: probability of a mirror image. `crop`: smallest side of a random square crop, as a
    share of the photo's (1: none).
    """

    variants: int = 8
    flip: float = 0.0
    crop: float = 1.0

    def __post_init__(self) -> None:
        if self.variants < 0 or not 0 <= self.flip <= 1 or not 0 < self.crop <= 1:
            raise UserError("augment: variants must be at least 0, flip between 0 and 1, crop above 0 and at most 1")

    @property
    def changes_nothing(self) -> bool:
        return self.flip == 0 and self.crop == 1


@dataclass(frozen=True)
class GallerySettings:
    """Sample pictures during training: sentences with a slot, drawn at fixed seeds."""

    sentences: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    scheduler: str = "ddim"
    steps: int = 25
    guidance: float = 7.5


@dataclass(frozen=True)
class RunSettings:
    """All of the above."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    log: LogSettings = field(default_factory=LogSettings)
    augment: Augmentation = field(default_factory=Augmentation)
    gallery: GallerySettings = field(default_factory=GallerySettings)

    def __post_init__(self) -> None:
        warm, steps = self.optimizer.lr_warmup_steps, self.trainer.max_steps
        if warm >= steps:
            raise UserError(
                f"optimizer.lr_warmup_steps={warm}: the learning rate would never be reached in "
                f"trainer.max_steps={steps}"
            )

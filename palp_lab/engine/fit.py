"""Runs a Personalizer in Lightning's Trainer, from the last checkpoint if there is one."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader, IterableDataset

from palp_lab.engine.callbacks import LAST, Checkpoints, MovingAverage, StepLog, step_path
from palp_lab.engine.gallery import Gallery
from palp_lab.engine.personalizer import Personalizer
from palp_lab.engine.progress import Bar, progress
from palp_lab.engine.settings import TrainerSettings
from palp_lab.types import UserError

logger = logging.getLogger(__name__)

QUIET = ("lightning.pytorch", "lightning.fabric", "lightning", "lightning.pytorch.utilities.rank_zero")


class _Ticks(IterableDataset[int]):
    """An endless stream of nothing: what a step trains on follows from its number alone."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield 0


def fit(
    module: Personalizer,
    folder: Path,
    keep: Sequence[int],
    about: dict[str, Any],
    loggers: Sequence[Any] = (),
) -> Checkpoints:
    """Trains to `trainer.max_steps`; folder/adapters holds those of the steps in `keep` and of the last one.

    Returns the callback that knows how long it took. Raises UserError for a checkpoint of another run or a broken one,
    KeyboardInterrupt where the process is asked to end (SIGTERM), so that a sweep stops as a whole.
    """
    _silence()
    settings = module.settings
    how = settings.trainer
    average = MovingAverage(how.ema) if how.ema else None
    checkpoints = Checkpoints(folder, how.save_every, keep, about, average)
    callbacks: list[Any] = [*([average] if average else []), StepLog(folder / "log.csv")]
    if how.gallery and settings.gallery.sentences:
        callbacks.append(Gallery(folder / "gallery", how.gallery, settings.gallery, checkpoints.leave_out, average))
    callbacks.append(checkpoints)  # after all that a step leaves: whoever resumes behind it does not come back for it
    shown = progress() if settings.log.progress else None
    if shown is not None:
        callbacks.append(shown)
    model = module.adapter.model
    device = model.device
    trainer = lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=_devices(device, how),
        strategy=_strategy(module),
        precision="bf16-mixed" if str(how.precision) == "bf16" else "32-true",
        max_epochs=1,
        max_steps=how.max_steps,
        accumulate_grad_batches=how.accumulate,
        gradient_clip_val=how.gradient_clip or None,
        logger=list(loggers) or False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=type(shown) is Bar,
        enable_model_summary=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
        plugins=_environment(),
    )
    say = logger.info if trainer.is_global_zero else logger.debug
    for line in module.startup_report():
        say(line)
    if trainer.is_global_zero:
        names = "".join(f"{name} {list(p.shape)}\n" for name, p in module.adapter.parts())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "trainable.txt").write_text(names, encoding="utf-8")
    last = folder / LAST
    if last.is_file():
        step = _check(last, module)
        if lost := [at for at in keep if at <= step and not step_path(folder, at).is_file()]:
            raise UserError(
                f"{folder}: this training has passed step {lost[0]} without keeping its adapter; give another folder, "
                "or ask for later steps"
            )
        say("continuing at step %d of %d", step, how.max_steps)
    with warnings.catch_warnings(), model.checkpointing(how.gradient_checkpointing):
        warnings.simplefilter("ignore")
        ticks = DataLoader(_Ticks(), batch_size=None)
        try:
            trainer.fit(module, ticks, ckpt_path=last if last.is_file() else None, weights_only=True)
        except SIGTERMException:
            # Slurm's time limit, `timeout`, `docker stop`: Lightning makes it an exit with status 0.
            raise KeyboardInterrupt from None
    return checkpoints


def _environment() -> list[Any]:
    """Further processes are ours to start, or torchrun's. Lightning would else take any Slurm job for one whose tasks
    `srun` has started as ranks: a job of one task would then train on one of its devices, and several tasks that run
    several cells would wait for each other."""
    return [] if TorchElasticEnvironment.detect() else [LightningEnvironment()]


def _devices(device: torch.device, how: TrainerSettings) -> int | list[int]:
    """Lightning's devices, so that each process trains where its model is: the model's own for one process; for several
    their number, which stands for cuda:0, cuda:1 and so on, as `palp_lab.model.choose_device` has opened them.

    Raises UserError where the two would not be the same.
    """
    if device.type != "cuda" or how.devices == 1:
        return [device.index or 0] if device.type == "cuda" else how.devices
    if how.devices > torch.cuda.device_count():
        raise UserError(
            f"trainer.devices={how.devices}: torch sees {torch.cuda.device_count()} CUDA devices here; take "
            f"trainer.devices={torch.cuda.device_count()}"
        )
    if (device.index or 0) != int(os.environ.get("LOCAL_RANK", "0")):
        raise UserError(
            f"device={device}: is one device, and trainer.devices={how.devices} are asked for; give device=cuda, and "
            "CUDA_VISIBLE_DEVICES to choose among them"
        )
    if any(word in how.strategy for word in ("spawn", "fork", "notebook")):
        raise UserError(
            f"trainer.strategy={how.strategy}: such processes take over a model that is open on one CUDA device, and "
            "would all use that one; give trainer.strategy=ddp"
        )
    return how.devices


def _strategy(module: Personalizer) -> str:
    """Lightning's name of the strategy; for several processes one that waits for no gradient that never comes, where a
    stage freezes parts or a text encoder is trained (a model may leave its last layer out)."""
    how = module.settings.trainer
    name = "ddp" if how.strategy == "auto" and how.devices > 1 else how.strategy
    frozen = any(set(module.groups()) - set(stage.trains) for stage in module.stages.rows)
    idle = frozen or any(part.startswith("edits.text_") for part, _ in module.adapter.parts())
    return f"{name}_find_unused_parameters_true" if idle and name.startswith("ddp") else name


def _check(path: Path, module: Personalizer) -> int:
    """The step a checkpoint was made at. Raises UserError for one of another run, or one that cannot be read."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        step, found = int(saved["global_step"]), saved["signature"]
    except Exception as error:
        raise UserError(
            f"{path}: not a checkpoint that can be continued ({type(error).__name__}); delete it to begin anew"
        ) from error
    if found != module.signature:
        raise UserError(
            f"{path}: belongs to a run with other settings, photos or model; delete it, or give another folder"
        )
    return step


def _silence() -> None:
    """Lightning's tips and greetings; its errors stay."""
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)

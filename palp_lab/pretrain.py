"""The verb `pretrain`: trains the embedded models of the tiny world; every stage resumes where it stopped."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from palp_lab.tinyworld.pretrain_loop import LoopSettings

TRAINED = ("autoencoder", "text", "generator", "generator_small", "flow", "flow_unet", "clip", "reader", "identity")
"""Stages with a training loop."""

STAGES = (
    "sets", "autoencoder", "latents", "text", "generator", "generator_small", "flow", "flow_unet", "reader", "clip",
    "identity", "evaluate", "ship",
)  # fmt: skip
"""All stages, in the order of `stage=all`."""

FOCUSED = ("generator", "generator_small", "flow", "flow_unet")
"""Stages over the cached latents: their error may weigh small things."""


def pretrain(config: DictConfig) -> None:
    """Runs `config.stage` (a stage or "all") in `config.folder`. See conf/pretrain.yaml for every key.

    Raises:
        UserError: for an unknown stage, nonsensical numbers or missing input; names the key and the fix.
        KeyboardInterrupt: after a signal stopped a stage, which is saved; the same command goes on from there.
    """
    if config.stage not in (*STAGES, "all"):
        from palp_lab.cli_errors import nearest

        raise UserError(f"stage={config.stage}: no such stage{nearest(str(config.stage), [*STAGES, 'all'])}")
    _check(config)
    folder = Path(str(config.folder)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if config.stage == "all":
            _run_all(folder, config)
        else:
            _run(config.stage, folder, config)


def _check(config: DictConfig) -> None:
    if config.ranks < 1:
        raise UserError(f"ranks={config.ranks}: give 1 or more processes")
    if config.steps < 0:
        raise UserError(f"steps={config.steps}: give the number of steps, or 0 to let minutes decide")
    if config.minutes is not None and config.minutes <= 0:
        raise UserError(f"minutes={config.minutes}: give more than 0, or null for the stage's own")
    if not 0 < config.pretrain.share <= 1:
        raise UserError(f"pretrain.share={config.pretrain.share}: give a share of the sets' sizes, above 0, at most 1")
    if any(config.pretrain[stage].focus < 0 for stage in FOCUSED):
        raise UserError("pretrain.generator.focus: give 0 or more; 0 weighs every place alike")
    if config.device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={config.device}: pretraining runs on cpu or cuda")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the folder for one command: two would train one stage and write over each other's checkpoint."""
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            line = f"folder={folder}: another pretrain is at work in it; let it end, or give another folder"
            raise UserError(line) from None
        yield
    finally:
        os.close(descriptor)


def _run_all(folder: Path, config: DictConfig) -> None:
    """Runs every stage. A file says which is at work, so that after a stop the finished ones are not trained again."""
    note = folder / "stage.txt"
    begun = note.read_text(encoding="utf-8") if note.exists() else ""
    if begun in STAGES:
        print(f"stage=all: goes on with {begun}", flush=True)
    for stage in STAGES[STAGES.index(begun) if begun in STAGES else 0 :]:
        note.write_text(stage, encoding="utf-8")
        _run(stage, folder, config)
    note.unlink()


def _run(stage: str, folder: Path, config: DictConfig) -> None:
    from palp_lab.tinyworld import pretrain_stages as stages

    if stage == "sets":
        stages.sets(folder, config.ranks, config.pretrain.share)
    elif stage == "latents":
        _need(stage, folder, config)
        _latents(folder, config.ranks)
    elif stage == "evaluate":
        from palp_lab.tinyworld.pretrain_scores import evaluate

        evaluate(folder, config.pretrain.evaluate_prompts)
    elif stage == "ship":
        from palp_lab.tinyworld.pretrain_scores import read_scores
        from palp_lab.tinyworld.pretrain_ship import ship

        ship(folder, Path(str(config.to)).absolute(), read_scores(folder))
    else:
        _need(stage, folder, config)
        # The UNets that stage=all goes on with read the latents of the shipped autoencoder and of no other.
        if stage != "autoencoder" or config.stage != "all" or not _adopt_autoencoder(folder, config):
            _train(stage, folder, config)


def _need(stage: str, folder: Path, config: DictConfig) -> None:
    """Runs what ``stage`` reads and is not there yet: sets, the autoencoder (the shipped one if any), latents."""
    from palp_lab.tinyworld import pretrain_stages as stages
    from palp_lab.tinyworld.pretrain_loop import is_finished

    stages.sets(folder, config.ranks, config.pretrain.share)
    coded = stage in ("latents", *FOCUSED)
    if coded and not (folder / "autoencoder/model/config.json").exists() and not _adopt_autoencoder(folder, config):
        _train("autoencoder", folder, config, own_time=True)
    if coded and stage != "latents" and not (folder / "latents.npy").exists():
        _latents(folder, config.ranks)
    begins = stage == "generator" and not (folder / "generator/checkpoint.pt").exists()
    if begins and (config.fresh or shipped_pipeline() is None) and not is_finished(folder / "text"):
        _train("text", folder, config, own_time=True)
    if stage == "generator_small" and not (folder / "generator/checkpoint.pt").exists():
        raise UserError("generator_small reads generator's text encoder: run palp-lab pretrain stage=generator first")


def _adopt_autoencoder(folder: Path, config: DictConfig) -> bool:
    """Puts the shipped autoencoder into the folder where it goes on from shipped weights; False where it trains one."""
    shipped = shipped_pipeline()
    if config.fresh or shipped is None or (folder / "autoencoder/checkpoint.pt").exists():
        return False
    from diffusers import AutoencoderKL

    target = folder / "autoencoder" / "model"
    if not (target / "config.json").exists():
        AutoencoderKL.from_pretrained(shipped / "vae").float().save_pretrained(target)
    print("autoencoder: the shipped one, which is not trained", flush=True)
    return True


def shipped_pipeline(name: str = "tiny") -> Path | None:
    """The shipped pipeline folder ``name``, where there is one."""
    path = Path(__file__).parent / "tinyworld" / "weights" / name
    return path if (path / "model_index.json").exists() else None


def _latents(folder: Path, ranks: int) -> None:
    import torch

    from palp_lab.tinyworld.pretrain_stages import create_latents, finish_latents, latents

    create_latents(folder)
    if ranks == 1:
        latents(folder)
    else:
        torch.multiprocessing.start_processes(_latents_part, (folder, ranks), nprocs=ranks, start_method="spawn")
    finish_latents(folder)


def _latents_part(part: int, folder: Path, parts: int) -> None:
    import torch

    from palp_lab.tinyworld.pretrain_stages import latents

    torch.set_num_threads(1)
    latents(folder, part, parts)


def _train(stage: str, folder: Path, config: DictConfig, own_time: bool = False) -> None:
    from palp_lab.tinyworld import pretrain_scorers as scorers
    from palp_lab.tinyworld import pretrain_stages as stages
    from palp_lab.tinyworld.pretrain_loop import train

    about, bf16 = config.pretrain[stage], bool(config.pretrain.bf16)
    shipped = None if config.fresh else shipped_pipeline("tiny_small" if stage == "generator_small" else "tiny")
    build: Any
    if stage == "autoencoder":
        build = partial(stages.build_autoencoder_task, folder, about.batch)
    elif stage == "text":
        build = partial(stages.build_text_task, folder, about.batch, shipped)
    elif stage in ("generator", "generator_small"):
        build = partial(
            stages.build_generator_task, folder, stage, about.batch, bf16, shipped=shipped, focus=float(about.focus)
        )
    elif stage == "flow":
        from palp_lab.tinyworld.pretrain_flow import build_flow_task

        build = partial(
            build_flow_task, folder, about.batch, bf16, shipped, focus=float(about.focus), taught=bool(about.taught)
        )
    elif stage == "flow_unet":
        from palp_lab.tinyworld.pretrain_flow_unet import build_flow_unet_task

        weights = None if shipped is None else shipped.parent
        build = partial(
            build_flow_unet_task, folder, about.batch, bf16, weights, float(about.focus), taught=bool(about.taught)
        )
    else:
        weights = None if shipped is None else shipped.parent
        build = partial(getattr(scorers, f"build_{stage}_task"), folder, about.batch, bf16, shipped=weights)
    state = train(build, settings(stage, folder, config, own_time))
    if not state["finished"]:
        print(f"{stage}: stopped at step {state['step']}, before its plan was done", flush=True)
        raise KeyboardInterrupt
    if stage == "autoencoder":
        stages.finish_autoencoder(folder)
    print(f"{stage}: at step {state['step']}", flush=True)


def settings(stage: str, folder: Path, config: DictConfig, own_time: bool = False) -> LoopSettings:
    """The loop's settings for ``stage``, from the stage's own values and the command line's."""
    import torch

    from palp_lab.tinyworld.pretrain_loop import LoopSettings

    about = config.pretrain[stage]
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: this torch sees no CUDA device; give device=cpu or install torch's CUDA build")
    return LoopSettings(
        folder=folder / stage,
        seed=int(config.seed),
        ranks=int(config.ranks),
        threads=int(config.threads),
        device=device,
        steps=0 if own_time else int(config.steps),
        minutes=float(about.minutes if own_time or config.minutes is None else config.minutes),
        learning_rate=float(about.learning_rate),
        warmup=int(about.warmup),
        decay=float(about.decay),
        ema=float(about.ema),
        weight_decay=float(about.weight_decay),
        save_minutes=float(config.pretrain.save_minutes),
        replan=bool(config.replan),
    )

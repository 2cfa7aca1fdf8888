"""The pretraining loop: one-thread ranks, draws from (seed, step, rank) alone, checkpoints that resume bit for bit."""

from __future__ import annotations

import math
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from palp_lab.types import UserError

Batch = dict[str, Tensor]


class AbstractTask(nn.Module, ABC):
    """What one stage trains: a module whose forward maps a drawn batch to the loss of a step."""

    @abstractmethod
    def draw(self, rng: torch.Generator) -> Batch:
        """The batch of one step on one rank; every random number, noise included, comes from ``rng``."""

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """The loss of ``batch``, a scalar."""

    def slow(self) -> tuple[list[nn.Parameter], float]:
        """Parameters that learn more slowly than the rest, and their share of the learning rate."""
        return [], 1.0

    earlier: Sequence[dict] = ()

    def history(self) -> list[dict]:
        """The lineage of the weights this task starts from (``earlier``); none when they are random."""
        return list(self.earlier)


@dataclass(frozen=True)
class LoopSettings:
    """How long and how a stage trains. Every number is ours, chosen on the tiny world.

    ``steps`` counts from where the stage stands; 0 means that ``minutes`` decide. ``decay`` is the share of the planned
    steps in which the learning rate falls to ``floor`` of its value.
    """

    folder: Path
    seed: int = 0
    ranks: int = 1
    threads: int = 1
    device: str = "cpu"
    steps: int = 0
    minutes: float = 10.0
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: float = 0.3
    floor: float = 0.02
    beta2: float = 0.99
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    save_minutes: float = 3.0
    log_seconds: float = 15.0
    replan: bool = False
    """Discard the unfinished plan of the checkpoint and plan anew from its step."""


@dataclass
class Plan:
    """The steps [first, last) of one sitting; the learning rate falls from ``decay_from`` on."""

    first: int
    last: int
    decay_from: int

    def scale(self, step: int, warmup: int, floor: float) -> float:
        """The learning rate at ``step``, as a share of the full one: warm-up, constant, then a straight line down."""
        share = min(1.0, (step + 1) / max(warmup, 1))
        if step >= self.decay_from and self.last > self.decay_from:
            left = max(0.0, (self.last - step) / (self.last - self.decay_from))
            share *= floor + (1 - floor) * left
        return share


class Averaged:
    """An exponential moving average of the trained parameters; it warms up with the number of steps."""

    def __init__(self, parameters: list[Tensor], decay: float) -> None:
        self.decay = decay
        self.source = parameters
        self.shadow = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the parameters after ``step`` finished steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, [parameter.detach() for parameter in self.source], 1 - decay)

    @torch.no_grad()
    def copy_to(self, parameters: list[Tensor]) -> None:
        """Writes the average over ``parameters``."""
        torch._foreach_copy_(parameters, self.shadow)


def step_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """The generator of one step on one rank: resuming needs no stored state."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 64 + rank)


def checkpoint_path(folder: Path) -> Path:
    """Where a stage keeps its state."""
    return folder / "checkpoint.pt"


def load_checkpoint(folder: Path) -> dict | None:
    """The state of a stage, or None before its first save. Never unpickles code."""
    path = checkpoint_path(folder)
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path}: not a readable checkpoint ({str(error).splitlines()[0]}); move it away to start the stage anew"
        ) from error


def save_atomically(state: dict, path: Path) -> None:
    """Writes a checkpoint beside its place and renames it, so that a kill never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load_averaged(task: AbstractTask, folder: Path) -> dict:
    """Loads the averaged weights of a stage into ``task`` and returns the checkpoint's bookkeeping."""
    state = load_checkpoint(folder)
    if state is None:
        raise UserError(f"{folder}: no checkpoint here; run this stage before the one that needs it")
    task.load_state_dict(state["model"])
    with torch.no_grad():
        for parameter, averaged in zip(trained(task), state["ema"], strict=True):
            parameter.copy_(averaged)
    return {"step": state["step"], "segments": state["segments"]}


def trained(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that train, in a fixed order."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def train(build: Callable[[], AbstractTask], settings: LoopSettings) -> dict:
    """Trains ``build()`` (picklable when ``ranks`` > 1) as ``settings`` say and returns its bookkeeping.

    With several ranks each is a process of its own with one gradient all-reduce a step. SIGTERM saves and stops.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    if settings.ranks == 1:
        _rank(0, build, settings, "")
    else:
        meeting = settings.folder / f".rendezvous-{os.getpid()}-{time.monotonic_ns()}"
        if "GLOO_SOCKET_IFNAME" not in os.environ and Path("/sys/class/net/lo").exists():
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        context = torch.multiprocessing.start_processes(
            _rank, (build, settings, f"file://{meeting}"), nprocs=settings.ranks, join=False, start_method="spawn"
        )
        signals: list[int] = []

        def stop(number: int) -> None:
            signals.append(number)
            for pid in context.pids():
                os.kill(pid, signal.SIGTERM)

        try:
            with _signals(stop):
                while not context.join():
                    pass
        except Exception:
            if signals:  # it came before the ranks listened for it, or after they had ended
                raise KeyboardInterrupt from None
            raise
        finally:
            meeting.unlink(missing_ok=True)
    state = load_checkpoint(settings.folder)
    if state is None:
        raise UserError(f"{settings.folder}: the stage stopped before its first checkpoint")
    return {"step": state["step"], "segments": state["segments"], "finished": is_finished(settings.folder)}


def is_finished(folder: Path) -> bool:
    """Whether a stage has come to the end of its plan; one that a signal stopped has not, nor one without a plan."""
    state = load_checkpoint(folder)
    return state is not None and 0 < state["plan"]["last"] <= state["step"]


class _signals:
    """Runs ``action`` at SIGTERM or SIGINT instead of dying, for the length of a with block."""

    def __init__(self, action: Callable[[int], object]) -> None:
        self.action = action
        self.previous: dict[int, object] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.previous[number] = signal.signal(number, lambda caught, _: self.action(caught))

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def _rank(rank: int, build: Callable[[], AbstractTask], settings: LoopSettings, meeting: str) -> None:
    torch.set_num_threads(settings.threads)
    if settings.ranks > 1:
        backend = "nccl" if settings.device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=settings.ranks)
    try:
        from palp_lab.tinyworld.pretrain_sitting import Sitting

        Sitting(rank, build, settings).run()
    finally:
        if settings.ranks > 1:
            dist.destroy_process_group()


def parameter_groups(task: AbstractTask, weight_decay: float) -> Iterator[dict]:
    """AdamW's groups: matrices and kernels decay, biases and norms do not; ``share`` multiplies the learning rate."""
    slow, share = task.slow()
    slow_ids = {id(parameter) for parameter in slow}
    for part in (1.0, share) if slow else (1.0,):
        chosen = [p for p in trained(task) if not slow or (id(p) in slow_ids) == (part == share)]
        for decayed in (True, False):
            members = [p for p in chosen if (p.ndim > 1) == decayed]
            if members:
                yield {"params": members, "weight_decay": weight_decay if decayed else 0.0, "share": part}


def planned_steps(settings: LoopSettings, seconds_per_step: float) -> int:
    """How many steps a sitting takes: as configured, or as many as fit into the minutes at the measured speed."""
    return settings.steps or max(1, math.ceil(settings.minutes * 60 / seconds_per_step))

"""What happens around the steps: rows of the log, checkpoints, the moving average."""

from __future__ import annotations

import csv
import os
import re
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from palp_lab.engine.personalizer import Personalizer

LAST = Path("scratch/last.ckpt")
"""The resumable checkpoint, inside a run's folder. What lies in scratch is not part of the result."""


def write_whole(path: Path, write: Callable[[Path], None]) -> Path:
    """Lets `write` fill a file beside `path` and renames it into place: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes in two containers may have one number, and share the folder.
    part = path.with_name(f".{os.getpid()}.{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        write(part)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def step_path(folder: Path, step: int) -> Path:
    """Where the adapter after a number of optimizer steps lies."""
    return folder / "adapters" / f"step_{step:06d}.safetensors"


def stepped(trainer: lightning.Trainer, batch_idx: int) -> bool:
    """Whether the batch that has just ended completed an optimizer step."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


class MovingAverage(Callback):
    """Exponential moving average of what is trained; resumes from the checkpoint. Final.

    The decay starts low and rises, min(decay, (1 + n) / (10 + n)), so that short runs are not held at their start.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.tensors: dict[str, Tensor] = {}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not stepped(trainer, batch_idx):
            return
        now, n = module.adapter.tensors(), trainer.global_step
        decay = min(self.decay, (1 + n) / (10 + n))
        if not self.tensors:
            self.tensors = {name: tensor.clone() for name, tensor in now.items()}
        for name, tensor in now.items():
            self.tensors[name].lerp_(tensor, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {"tensors": self.tensors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.tensors = state_dict["tensors"]


class Checkpoints(Callback):
    """Resumable checkpoints every so many steps, adapters at the asked ones; each whole or not there. Final.

    An adapter is written before the checkpoint of the same step, so that whoever resumes finds every earlier one; the
    row of the log and the sheet of pictures too, for this callback comes after theirs.
    """

    def __init__(
        self, folder: Path, every: int, keep: Collection[int], about: dict[str, Any], average: MovingAverage | None
    ) -> None:
        self.folder = folder
        self.every = every
        self.keep = frozenset(keep)
        self.about = about
        self.average = average
        self.seconds = 0.0
        """Time spent training, over all sittings."""
        self._began = time.perf_counter()

    def leave_out(self, seconds: float) -> None:
        """Time that was spent on something else."""
        self.seconds -= seconds

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not stepped(trainer, batch_idx):
            return
        last = step == trainer.max_steps
        if (step in self.keep or last) and trainer.is_global_zero:
            self._save_adapter(module, step)
        if step % self.every == 0 or last or step in self.keep:
            self._save_checkpoint(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.total_seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = state_dict["seconds"]

    def total_seconds(self) -> float:
        """Seconds of training so far, earlier sittings included."""
        return self.seconds + time.perf_counter() - self._began

    def _save_adapter(self, module: Personalizer, step: int) -> None:
        tensors = self.average.tensors if self.average else module.adapter.tensors()

        def write(part: Path) -> None:
            scratch = self.folder / LAST.parent / f"adapter_{os.getpid()}"
            module.adapter.save(scratch, {**self.about, "step": step}, tensors).replace(part)
            scratch.rmdir()

        write_whole(step_path(self.folder, step), write)

    def _save_checkpoint(self, trainer: lightning.Trainer) -> None:
        path = self.folder / LAST
        part = path.with_name(f".{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            os.replace(part, path)


class StepLog(Callback):
    """Rows of numbers in log.csv and in whatever loggers the trainer has, on one step axis. Final.

    After a crash, rows beyond the checkpoint that was resumed from are dropped before new ones are added, and what was
    written of a row by half.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        if not trainer.is_global_zero:
            return
        rows = read_log(self.path)
        kept = [row for row in rows if int(row["step"]) <= trainer.global_step]
        self.columns = list(rows[0]) if rows else []
        if self.path.is_file():
            self._write(kept)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero or not stepped(trainer, batch_idx) or not module.row:
            return
        row = {"step": trainer.global_step, **module.row}
        for logger in trainer.loggers:
            logger.log_metrics({k: v for k, v in row.items() if k != "step"}, step=trainer.global_step)
        if new := [name for name in row if name not in self.columns]:
            self.columns += new
            self._write(read_log(self.path))
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(row)

    def _write(self, rows: list[dict[str, str]]) -> None:
        def write(part: Path) -> None:
            with part.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns, restval="")
                writer.writeheader()
                writer.writerows(rows)

        write_whole(self.path, write)


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a log.csv; none where there is no file. A half-written last line is left out, and any line that has
    fewer or more fields than the first."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if line.endswith("\n")))
    return [row for row in rows if row.get("step", "").isdigit() and None not in row and None not in row.values()]


def forget_peak_memory(device: torch.device) -> bool:
    """Begins anew to measure a peak: cells of a sweep share the accelerator and the process. Whether that was possible:
    on a CPU only Linux lets a process forget its peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_memory(device: torch.device) -> int | None:
    """Bytes at the peak since :func:`forget_peak_memory`: of the accelerator where there is one, else the resident
    size of the process, with all that it held before. None where nothing tells."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None

"""How far a training is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

from palp_lab.engine.callbacks import stepped

logger = logging.getLogger(__name__)

LINES = 10
"""Lines of a whole run where there is no terminal (ours), and the seconds between two at least."""
SECONDS = 10.0


def progress() -> Callback:
    """A bar where somebody watches, plain lines where the output goes to a file or a pipe."""
    watched = sys.stdout.isatty() or "ipykernel" in sys.modules
    return Bar() if watched else Lines()


class Lines(Callback):
    """Step, loss and time to go, after every tenth of the run, at most every ten seconds, and at the end. Final."""

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self._first, self._began, self._said = trainer.global_step, time.perf_counter(), float("-inf")

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, steps, now = trainer.global_step, trainer.max_steps, time.perf_counter()
        if not stepped(trainer, batch_idx) or not trainer.is_global_zero:
            return
        due = step % max(1, steps // LINES) == 0 and now - self._said >= SECONDS
        if not due and step != steps:
            return
        self._said = now
        left = (now - self._began) / (step - self._first) * (steps - step)
        logger.info("step %d of %d, loss %.4f, %s to go", step, steps, module.last_loss.item(), clock(left))


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Bar(TQDMProgressBar):
    """Steps, loss and time to go, refreshed every ten batches. Final."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)

    @property
    def total_train_batches(self) -> int:
        """Micro-batches of the whole run: Lightning itself sees an endless stream."""
        return self.trainer.max_steps * self.trainer.accumulate_grad_batches

    def init_train_tqdm(self) -> Any:
        bar = super().init_train_tqdm()
        bar.set_description("training")
        return bar

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description("training")

    def get_metrics(self, trainer: lightning.Trainer, module: Any) -> dict[str, str]:
        return {"loss": f"{module.last_loss.item():.4f}"}

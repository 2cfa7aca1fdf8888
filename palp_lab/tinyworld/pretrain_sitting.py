"""One sitting of a pretraining stage on one rank: resume, step, log, save, stop."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from dataclasses import asdict

import torch
import torch.distributed as dist
from torch import nn

from palp_lab.tinyworld.factors import WORLD_VERSION
from palp_lab.tinyworld.pretrain_loop import (
    AbstractTask,
    Averaged,
    LoopSettings,
    Plan,
    checkpoint_path,
    load_checkpoint,
    parameter_groups,
    planned_steps,
    save_atomically,
    step_generator,
    trained,
)
from palp_lab.types import UserError

_PROBE_STEPS = 12
"""Steps timed before a plan in minutes is turned into steps; the first two are left out. Ours."""

_AGREE_EVERY = 8
"""Ranks agree on stopping every so many steps: an all-reduce each step would only cost time. Ours."""


class Sitting:
    """The state of one rank while it trains."""

    def __init__(self, rank: int, build: Callable[[], AbstractTask], settings: LoopSettings) -> None:
        self.rank, self.settings = rank, settings
        # The same initial weights on every rank; the draws of the steps have generators of their own.
        torch.manual_seed(settings.seed)
        self.task = build().to(settings.device)
        self.parameters = trained(self.task)
        self.optimizer = torch.optim.AdamW(
            list(parameter_groups(self.task, settings.weight_decay)),
            lr=settings.learning_rate,
            betas=(0.9, settings.beta2),
            foreach=True,
        )
        self.averaged = Averaged(list(self.parameters), settings.ema)
        self.step = 0
        self.plan: Plan | None = None
        self.segments: list[dict] = self.task.history()
        self.stopping = False
        self._resume()

    def run(self) -> None:
        """Steps until the plan is done or a signal asks to stop; saves in either case."""
        model: nn.Module = self.task
        if self.settings.ranks > 1:
            model = nn.parallel.DistributedDataParallel(self.task, gradient_as_bucket_view=True)
        self.task.train()
        previous = {n: signal.signal(n, self._stop) for n in (signal.SIGTERM, signal.SIGINT)}
        self.started, self.first = time.monotonic(), self.step
        self.segments.append(self._segment())
        try:
            self._steps(model)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        self._save()

    def _steps(self, model: nn.Module) -> None:
        if self.plan is None and self.settings.steps:
            self._make_plan(self.settings.steps)
        smooth, samples, saved, logged = float("nan"), 0, time.monotonic(), time.monotonic()
        probe_start = time.monotonic()
        while self.plan is None or self.step < self.plan.last:
            loss, size = self._one(model)
            smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
            samples += size
            done = self.step - self.first
            if done == 2:
                probe_start = time.monotonic()
            if self.plan is None and done >= _PROBE_STEPS:
                each = self._shared((time.monotonic() - probe_start) / (_PROBE_STEPS - 2)) / self.settings.ranks
                self._make_plan(planned_steps(self.settings, each))
            now = time.monotonic()
            if self.rank == 0 and now - logged > self.settings.log_seconds:
                self._log(smooth, samples / (now - logged) * self.settings.ranks)
                samples, logged = 0, now
            self.segments[-1].update(to=self.step, seconds=round(now - self.started, 1))
            self.segments[-1]["samples"] += size * self.settings.ranks
            if (self.settings.ranks == 1 or self.step % _AGREE_EVERY == 0) and self._shared(float(self.stopping)) > 0:
                break
            if self.rank == 0 and now - saved > self.settings.save_minutes * 60:
                self._save()
                saved = now

    def _one(self, model: nn.Module) -> tuple[float, int]:
        settings = self.settings
        plan = self.plan or Plan(self.step, 10**9, 10**9)
        for group in self.optimizer.param_groups:
            group["lr"] = (
                group["share"] * settings.learning_rate * plan.scale(self.step, settings.warmup, settings.floor)
            )
        batch = self.task.draw(step_generator(settings.seed, self.step, self.rank))
        batch = {name: value.to(settings.device) for name, value in batch.items()}
        loss = model(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(
                f"{settings.folder.name}: the loss is {value} at step {self.step}; the last checkpoint is kept, "
                "continue from it with a lower learning_rate"
            )
        loss.backward()
        if settings.clip > 0:
            nn.utils.clip_grad_norm_(self.parameters, settings.clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=settings.ranks == 1)
        self.step += 1
        self.averaged.update(self.step)
        return value, len(next(iter(batch.values())))

    def _make_plan(self, steps: int) -> None:
        first = self.first
        self.plan = Plan(first, first + steps, first + round(steps * (1 - self.settings.decay)))
        if self.rank == 0:
            print(f"{self.settings.folder.name}: steps {first} to {self.plan.last}", flush=True)

    def _shared(self, value: float) -> float:
        """The sum of ``value`` over the ranks."""
        if self.settings.ranks == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.settings.device)
        dist.all_reduce(tensor)
        return float(tensor)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _log(self, loss: float, speed: float) -> None:
        left = "planning"
        if self.plan is not None:
            each = (time.monotonic() - self.started) / max(1, self.step - self.first)
            left = f"{(self.plan.last - self.step) * each / 60:.1f} min left"
        rate = self.optimizer.param_groups[0]["lr"]
        where = f"{time.strftime('%H:%M:%S')} {self.settings.folder.name}: step {self.step}"
        print(f"{where}  loss {loss:.4f}  lr {rate:.2e}  {speed:.0f} samples/s  {left}", flush=True)

    def _segment(self) -> dict:
        settings = self.settings
        return {
            "device": settings.device, "ranks": settings.ranks, "threads": settings.threads, "seed": settings.seed,
            "torch": str(torch.__version__), "world": WORLD_VERSION, "from": self.step, "to": self.step, "seconds": 0.0,
            "samples": 0,
        }  # fmt: skip

    def _resume(self) -> None:
        state = load_checkpoint(self.settings.folder)
        if state is None:
            return
        try:
            self.task.load_state_dict(state["model"])
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            where = checkpoint_path(self.settings.folder)
            raise UserError(
                f"{where}: made with another architecture ({reason}); move it away to start anew"
            ) from error
        self.averaged.shadow = [value.to(self.settings.device) for value in state["ema"]]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.segments = state["step"], state["segments"]
        plan = Plan(**state["plan"])
        if self.step < plan.last and not self.settings.replan:
            self.plan = plan

    def _save(self) -> None:
        if self.rank != 0:
            return
        plan = self.plan or Plan(self.first, 0, 0)
        state = {
            "model": self.task.state_dict(),
            "ema": self.averaged.shadow,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "plan": asdict(plan),
            "segments": self.segments,
        }
        save_atomically(state, checkpoint_path(self.settings.folder))

"""The training step: draw, one pass with a graph per data stream, losses, weighted sum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from palp_lab.adapter import Adapter
from palp_lab.engine.feed import Draw, Feed
from palp_lab.engine.gradients import Gradients, add, at_prediction, between_losses, by_loss, total_norm
from palp_lab.engine.optimizer import adamw, rates, schedule
from palp_lab.engine.ranks import is_norm, mean_over, not_finite, sum_over
from palp_lab.engine.settings import RunSettings
from palp_lab.engine.signature import signature
from palp_lab.engine.stages import Stages
from palp_lab.losses.base import AbstractLoss, StepContext, personal_text
from palp_lab.losses.passes import Pass
from palp_lab.types import Role, UserError

PATIENCE = 5
"""Steps after which a part that trains must have seen a gradient (ours; LoRA's first step reaches B only)."""


class Personalizer(lightning.LightningModule):
    """Adapter, losses and data streams in Lightning's loop. Final.

    A step is a pure function of (weights, optimizer state, seed, number of the step): nothing is drawn from global
    generators and nothing depends on the order of batches, so that a resumed run is bit for bit the uninterrupted one.
    Only what is trained is a parameter of this module and part of its state; the base model is neither.
    """

    def __init__(
        self,
        adapter: Adapter,
        losses: Mapping[str, AbstractLoss],
        feeds: Mapping[Role, Feed],
        settings: RunSettings,
        *,
        seed: int,
        target: str | None = None,
        stages: Stages | None = None,
    ) -> None:
        super().__init__()
        self.strict_loading = False
        self._hidden = {"adapter": adapter}  # in a plain mapping: the base model is no part of this module
        self.trained = nn.ParameterList(parameter for _, parameter in adapter.parts())
        self.losses = dict(losses)
        self.feeds = dict(feeds)
        self.settings = settings
        self.run_seed = seed
        self.target = target
        self.stages = stages or Stages()
        self.row: dict[str, float] = {}
        """What the last optimizer step logged; averaged over its micro-batches."""
        self.last_loss = torch.zeros(())
        self.signature = signature(self)
        """What a checkpoint may be continued under."""
        self._seen: set[str] = set()
        self._waited: dict[str, int] = {}
        self._pulls: Gradients = {}
        self._check_stages()

    @property
    def adapter(self) -> Adapter:
        return self._hidden["adapter"]

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The adapter's own tensors."""
        return self.adapter.tensors()

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> None:
        self.adapter.load_tensors(dict(state_dict))

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """The optimizer's groups: every trainable parameter by part and name."""
        rows: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.adapter.parts():
            rows.setdefault(name.partition(".")[0], []).append((name, parameter))
        if not rows:
            raise UserError("tokens and edits: nothing is trainable; choose tokens=learned or edits=lora")
        return rows

    def networks(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """The same by network: words, denoiser (`edits`), and each text encoder (`edits.text_encoder`), which share an
        optimizer group but not a fate: one may be cut off from every loss while the others learn."""
        rows: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.adapter.parts():
            part, network, *_ = name.split(".")
            rows.setdefault(f"{part}.{network}" if network.startswith("text_encoder") else part, []).append(
                (name, parameter)
            )
        return rows

    def _check_stages(self) -> None:
        """Refuses a stage in which nothing could train, before the first step."""
        there, start = self.groups(), 0
        for stage in self.stages.rows:
            if start < self.settings.trainer.max_steps and not set(stage.trains) & set(there):
                raise UserError(
                    f"stages: from step {start} on {' and '.join(stage.trains)} shall train, but only "
                    f"{' and '.join(there)} can; change stages, or choose "
                    f"{'edits=lora' if 'edits' in stage.trains else 'tokens=learned'}"
                )
            start = stage.until or start

    def configure_optimizers(self) -> Any:
        """The optimizer, with its schedule of learning rates where there is one."""
        how = self.settings.optimizer
        optimizer = adamw(self.groups(), how)
        moving = schedule(optimizer, how, self.settings.trainer.max_steps)
        if moving is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": moving, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["signature"] = self.signature

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.stages.apply(self.global_step, self.adapter.parts())
        if batch_idx % self.settings.trainer.accumulate == 0:  # Lightning holds the last step's through the pass
            for parameter in self.trained:
                parameter.grad = None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        step, micros = self.global_step, self.settings.trainer.accumulate * self.trainer.world_size
        micro = (batch_idx % self.settings.trainer.accumulate) * self.trainer.world_size + self.global_rank
        passes = {
            role: predicted(self.adapter, feed.draw(self.run_seed, step, micro, micros), role)
            for role, feed in self.feeds.items()
        }
        ctx = StepContext(self.adapter, passes, self.run_seed, step, self.target)
        logs = step == 0 or (step + 1) % self.settings.log.every == 0 or self._measures(step)
        values = {name: loss(ctx) for name, loss in self.losses.items() if loss.weight or logs}
        if several := [(name, tuple(value.shape)) for name, value in values.items() if value.dim()]:
            raise UserError(
                "losses.{}: must return one number, not a tensor of shape {}; take its mean".format(*several[0])
            )
        if wrong := not_finite(values, self.trainer.world_size):
            self._stop("losses.{} is {}".format(*wrong))
        total = self._weighted_sum(values)
        if batch_idx % self.settings.trainer.accumulate == 0:
            self.row = {}
        if logs:
            self._note(step, batch_idx, ctx, values, total)
        self.last_loss = total.detach()
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        norm = total_norm(self.trained)
        if not torch.isfinite(norm):
            self._stop(f"the gradient is {norm.item()}")
        if self.row:
            self.row = mean_over(self.row, self.trainer.world_size, norm.device)
            self.row["gradient"] = norm.item()
            parts = zip(self.groups(), optimizer.param_groups, strict=True)
            self.row |= {f"lr/{part}": group["lr"] for part, group in parts}
        self._check_alive()

    def startup_report(self) -> Iterator[str]:
        """A line per network that is trained: learning rate, tensors, numbers; and one for a stage that is never
        reached. All names are in trainable.txt."""
        rate = rates(self.settings.optimizer)
        for part, rows in self.networks().items():
            count, lr = sum(p.numel() for _, p in rows), rate[part.partition(".")[0]]
            yield f"{part}: {count:,} numbers in {len(rows)} tensors, learning rate {lr:g}, e.g. {rows[0][0]}"
        steps = self.settings.trainer.max_steps
        if late := [stage.until for stage in self.stages.rows[:-1] if stage.until and stage.until >= steps]:
            yield f"stages: what follows step {late[0]} is never trained, for trainer.max_steps={steps}"

    def _weighted_sum(self, values: Mapping[str, Tensor]) -> Tensor:
        """Losses of weight 0 are measured but stay out of the sum, so that they leave the weights bit-identical."""
        weighted = [self.losses[name].weight * value for name, value in values.items() if self.losses[name].weight]
        if not weighted:
            raise UserError("losses: every weight is 0; nothing would be trained")
        return torch.stack(weighted).sum()

    def _note(self, step: int, batch_idx: int, ctx: StepContext, values: Mapping[str, Tensor], total: Tensor) -> None:
        accumulate = self.settings.trainer.accumulate
        row = {"loss": total.item()}
        for name, value in values.items():
            row[f"{name}/value"] = value.item()
            row[f"{name}/share"] = value.item() * self.losses[name].weight
            row[f"{name}/at_prediction"] = at_prediction(value, self.losses[name].outputs(ctx))
            row |= {f"{name}/{key}": number for key, number in self.losses[name].logged(ctx).items()}
        for key, number in row.items():
            before = self.row.get(key, 0.0)
            # Rows of another micro-batch are other coordinates of the gradient at the prediction.
            self.row[key] = math.hypot(before, number / accumulate) if is_norm(key) else before + number / accumulate
        if self._measures(step):
            found = by_loss(values, [p for p in self.trained if p.requires_grad])
            self._pulls = add(self._pulls, found) if batch_idx % accumulate else found
            if (batch_idx + 1) % accumulate == 0:
                weights = {name: loss.weight for name, loss in self.losses.items()}
                processes = self.trainer.world_size
                whole, self._pulls = sum_over(self._pulls, processes), {}
                self.row |= between_losses(whole, weights, accumulate * processes)

    def _measures(self, step: int) -> bool:
        """Whether parameter gradients are due at a step; it then has a row of the log in any case."""
        every = self.settings.log.gradients_every
        return every > 0 and (step + 1) % every == 0

    def _check_alive(self) -> None:
        """Raises where a part that trains has seen no gradient for some steps (a word no caption holds, say)."""
        trains = self.stages.at(self.global_step).trains
        for part, rows in self.networks().items():
            if part.partition(".")[0] not in trains or part in self._seen:
                continue
            if _any_gradient(p for _, p in rows):
                self._seen.add(part)
                continue
            self._waited[part] = self._waited.get(part, 0) + 1
            if self._waited[part] >= PATIENCE:
                raise UserError(
                    f"{part} is trained but got no gradient in {PATIENCE} steps: no loss reaches it; "
                    "look at losses, captions and tokens.phrase"
                )

    def _stop(self, what: str) -> None:
        """Ends a run whose numbers are not finite. Every process comes here; the first one says so."""
        if self.global_rank:
            raise SystemExit(0)  # another status would make Lightning kill the first before it has spoken
        saved = self.global_step >= self.settings.trainer.save_every
        kept = "the last checkpoint is kept" if saved else "there is no checkpoint yet"
        raise UserError(
            f"training stopped at step {self.global_step + 1}: {what}; {kept}; "
            "lower optimizer.lr (or optimizer.token_lr), or the loss's weight"
        )


def predicted(adapter: Adapter, draw: Draw, role: Role) -> Pass:
    """The pass with a graph of one stream's rows: captions with the concept's own words, or with the class word."""
    model, concept = adapter.model, adapter.concept
    if role is Role.SUBJECT:
        cond = personal_text(adapter, draw.sentences)
    else:
        cond = model.encode_prompts([concept.fill(sentence, concept.superclass) for sentence in draw.sentences])
    x_t = model.path.add_noise(draw.x0, draw.noise, draw.t)
    pred = model.predict(x_t, draw.t, cond)
    return Pass(draw.x0, draw.noise, draw.t, x_t, draw.sentences, cond, pred, draw.mask, draw.share)


def _any_gradient(parameters: Iterable[nn.Parameter]) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in parameters)

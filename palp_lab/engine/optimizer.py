"""The optimizer of a run, and how its learning rates move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from diffusers.optimization import get_scheduler
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from palp_lab.engine.settings import OptimizerSettings

Rows = Sequence[tuple[str, nn.Parameter]]


def rates(how: OptimizerSettings) -> dict[str, float]:
    """The learning rate of each part: at its highest, where a schedule moves it."""
    return {"tokens": how.lr if how.token_lr is None else how.token_lr, "edits": how.lr}


def adamw(groups: Mapping[str, Rows], how: OptimizerSettings) -> torch.optim.Optimizer:
    """AdamW with a group per part; word vectors never decay.

    Differs from the paper: in the released code of arXiv 2208.01618 and in diffusers' the learned row decays too
    (all other rows are restored after each step).
    """
    lr, decay = rates(how), {"tokens": 0.0, "edits": how.weight_decay}
    return torch.optim.AdamW(
        [
            {"params": [p for _, p in rows], "lr": lr[part], "weight_decay": decay[part]}
            for part, rows in groups.items()
        ],
        betas=(how.betas[0], how.betas[1]),
        eps=how.eps,
    )


def schedule(optimizer: torch.optim.Optimizer, how: OptimizerSettings, steps: int) -> LambdaLR | None:
    """diffusers' schedule of that name over so many optimizer steps, the same factor for every group; None where the
    rates stay."""
    if how.lr_scheduler == "constant":
        return None
    return get_scheduler(how.lr_scheduler, optimizer, num_warmup_steps=how.lr_warmup_steps, num_training_steps=steps)

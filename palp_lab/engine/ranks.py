"""What the processes of one run tell each other beside gradients: whether all goes well, and what is logged."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.distributed
from torch import Tensor

from palp_lab.engine.gradients import Gradients

WRONG = (0.0, math.inf, -math.inf, math.nan)


def not_finite(values: Mapping[str, Tensor], processes: int) -> tuple[str, float] | None:
    """The first of several scalars that is not finite in one of the run's processes, and what it is there.

    All processes get the same answer, so that none goes on alone and waits for the others for ever.
    """
    numbers = torch.stack([value.detach().float() for value in values.values()])
    codes = numbers.isposinf().int() + 2 * numbers.isneginf().int() + 3 * numbers.isnan().int()
    if processes > 1:
        torch.distributed.all_reduce(codes, torch.distributed.ReduceOp.MAX)
    return next(((name, WRONG[code]) for name, code in zip(values, codes.tolist(), strict=True) if code), None)


def is_norm(name: str) -> bool:
    """Whether a logged number is the norm of a gradient at the prediction, one part of which each process holds."""
    return name.endswith("/at_prediction")


def mean_over(row: Mapping[str, float], processes: int, device: torch.device) -> dict[str, float]:
    """Numbers of the joined batch: means over the run's processes, each of which has seen its share of the rows."""
    if processes == 1:
        return dict(row)
    whole = {name: number**2 if is_norm(name) else number for name, number in row.items()}
    numbers = torch.tensor(list(whole.values()), dtype=torch.float64, device=device)
    torch.distributed.all_reduce(numbers)
    sums = dict(zip(row, numbers.tolist(), strict=True))
    return {name: (total**0.5 if is_norm(name) else total) / processes for name, total in sums.items()}


def sum_over(gradients: Gradients, processes: int) -> Gradients:
    """The sum of the processes' gradients: each has seen its share of the rows, and the same losses reach the same
    parameters in all of them."""
    if processes > 1:
        for tensor in (tensor for found in gradients.values() for tensor in found if tensor is not None):
            torch.distributed.all_reduce(tensor)
    return gradients

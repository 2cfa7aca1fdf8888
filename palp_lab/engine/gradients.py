"""What each loss pulls on: norms of gradients, and the angles between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from palp_lab.diffusion.path import widest

Gradients = dict[str, list[Tensor | None]]
"""By loss: a tensor per parameter, None where the loss does not reach it."""


def at_prediction(value: Tensor, outputs: Sequence[Tensor]) -> float:
    """Norm of a loss's gradient at the network's outputs: free, for it does not enter the network. 0 for a loss that
    does not read them."""
    if not value.requires_grad:
        return 0.0
    found = [
        g for g in torch.autograd.grad(value, list(outputs), retain_graph=True, allow_unused=True) if g is not None
    ]
    return float(torch.stack([g.float().square().sum() for g in found]).sum().sqrt()) if found else 0.0


def by_loss(values: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> Gradients:
    """The gradient of each loss that has one at the parameters. One backward pass each."""
    return {
        name: list(torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True))
        for name, value in values.items()
        if value.requires_grad
    }


def add(so_far: Gradients, more: Gradients) -> Gradients:
    """The sum of two micro-batches' gradients."""
    return {name: [_sum(x, y) for x, y in zip(so_far[name], found, strict=True)] for name, found in more.items()}


def between_losses(gradients: Gradients, weights: Mapping[str, float], micros: int = 1) -> dict[str, float]:
    """Norm of each weighted loss's gradient, and the cosine of each pair; `gradients` is the sum over so many
    micro-batches."""
    norms = {name: _dot(g, g) ** 0.5 for name, g in gradients.items()}
    row = {f"{name}/gradient": abs(weights[name]) * norm / micros for name, norm in norms.items()}
    for a, b in combinations(gradients, 2):
        product = norms[a] * norms[b]
        row[f"cosine/{a}~{b}"] = _dot(gradients[a], gradients[b]) / product if product else 0.0
    return row


def total_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Norm of all gradients that are there."""
    squares = [p.grad.float().square().sum() for p in parameters if p.grad is not None]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _dot(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> float:
    there = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    return float(sum((x.to(widest(x.device)) * y.to(widest(y.device))).sum() for x, y in there))

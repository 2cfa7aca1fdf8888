"""What each loss pulls on: norms of gradients, and the angles between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from palp_lab.diffusion.path import widest


def at_prediction(value: Tensor, outputs: Sequence[Tensor]) -> float:
    """Norm of a loss's gradient at the network's outputs: free, for it does not enter the network. 0 for a loss that
    does not read them."""
    if not value.requires_grad:
        return 0.0
    found = [
        g for g in torch.autograd.grad(value, list(outputs), retain_graph=True, allow_unused=True) if g is not None
    ]
    return float(torch.stack([g.float().square().sum() for g in found]).sum().sqrt()) if found else 0.0


def between_losses(
    values: Mapping[str, Tensor], weights: Mapping[str, float], parameters: Sequence[nn.Parameter]
) -> dict[str, float]:
    """Norm of each weighted loss's gradient at the parameters, and the cosine of each pair. One backward pass each."""
    gradients: dict[str, Sequence[Tensor | None]] = {}
    for name, value in values.items():
        if value.requires_grad:
            gradients[name] = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    norms = {name: _dot(g, g) ** 0.5 for name, g in gradients.items()}
    row = {f"{name}/gradient": abs(weights[name]) * norm for name, norm in norms.items()}
    for a, b in combinations(gradients, 2):
        product = norms[a] * norms[b]
        row[f"cosine/{a}~{b}"] = _dot(gradients[a], gradients[b]) / product if product else 0.0
    return row


def total_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Norm of all gradients that are there."""
    squares = [p.grad.float().square().sum() for p in parameters if p.grad is not None]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())


def _dot(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> float:
    there = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    return float(sum((x.to(widest(x.device)) * y.to(widest(y.device))).sum() for x, y in there))

"""The stateful shell around the pure functions: any metric as a `torchmetrics.Metric`, by batch and by rank."""

from __future__ import annotations

from typing import Any

import torch
import torchmetrics
from torch import Tensor

from palp_lab.metrics.base import AbstractMetric, Evidence


class Running(torchmetrics.Metric):
    """Mean of a metric over everything it was shown.

    `update` takes the evidence of one prompt; states are the values themselves, so that ranks join them exactly and no
    network lands in a checkpoint. `compute` is NaN where nothing could be measured (torchmetrics has no null).
    """

    full_state_update = False
    is_differentiable = False
    values: list[Tensor]

    def __init__(self, metric: AbstractMetric, **options: Any) -> None:
        super().__init__(**options)
        # Ranks that measured nothing gather an empty tensor of this type; it must be the others'.
        self.set_dtype(torch.float64)
        self.metric = metric
        # torchmetrics refuses to set it by name once the class exists.
        self.__dict__["higher_is_better"] = metric.higher_is_better
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, evidence: Evidence) -> None:
        """Adds the pictures of one prompt."""
        score = self.metric.measure(evidence)
        if score.value is None:
            return
        parts = [score.value] if score.per_image is None else [v for v in score.per_image if v is not None]
        self.values.append(torch.tensor(parts, dtype=torch.float64))

    def compute(self) -> Tensor:
        """Mean over pictures (over prompts, for metrics of pairs and sets)."""
        parts = self.values if isinstance(self.values, list) else [self.values]
        return torch.cat(parts).mean() if parts else torch.tensor(float("nan"))

"""Diversity: do the pictures of one prompt differ?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from palp_lab.metrics.base import AbstractMetric, Evidence, Score, cosine, over_pairs

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def pair_distances(images: Float[Tensor, "n d"]) -> Float[Tensor, " p"]:
    """1 - cosine of all pairs of different pictures."""
    upper = torch.triu_indices(len(images), len(images), 1)
    return (1 - cosine(images, images))[upper[0], upper[1]]


@dataclass(frozen=True)
class Diversity(AbstractMetric):
    """Mean distance between pictures of one prompt; 0 where all are the same, not measured for a single picture.

    DIV of arXiv 2208.12242, section 4.2. Differs from the paper: cosine distance in a named space instead of LPIPS,
    whose weights are bound to torchvision.
    """

    space: str = "clip"
    name: str = "diversity"
    axis = "neither"
    level = "pair"
    higher_is_better = True

    def measure(self, evidence: Evidence) -> Score:
        if len(evidence.images) < 2:
            return self.missing(evidence.images)
        return over_pairs(pair_distances(evidence.see(self.space, evidence.images)))

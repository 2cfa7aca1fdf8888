"""Diversity: do the pictures of one prompt differ?

DreamBooth's DIV (arXiv 2208.12242, section 4.2) is the mean LPIPS between pictures of one prompt: `diversity_lpips`,
for which LPIPS' weights are needed. The other two stand in where there are none, and are called something else.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from palp_lab.metrics.base import AbstractMetric, Evidence, Score, cosine, over_pairs
from palp_lab.metrics.overfitting import brightness

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


WINDOW, SPREAD = 11, 1.5
"""Side and deviation of SSIM's Gaussian window. Source: Wang et al. 2004, doi 10.1109/TIP.2003.819861, section III."""
FLOORS = (0.01**2, 0.03**2)
"""SSIM's two constants, for brightness up to 1. Source: ibid."""


def pair_distances(images: Float[Tensor, "n d"]) -> Float[Tensor, " p"]:
    """1 - cosine of all pairs of different pictures."""
    upper = torch.triu_indices(len(images), len(images), 1)
    return (1 - cosine(images, images))[upper[0], upper[1]]


def squared_distances(points: Float[Tensor, "n d"]) -> Float[Tensor, " p"]:
    """Squared Euclidean distance of all pairs of different points: LPIPS, for the coordinates LPIPS gives."""
    rows = [(points[i + 1 :] - points[i]).double().square().sum(1) for i in range(len(points) - 1)]
    return torch.cat(rows) if rows else points.new_zeros(0, dtype=torch.float64)


def structural_similarity(a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """SSIM of pictures given by their brightness in [0, 1], over the places where the window fits.
    Source: Wang et al. 2004, Eq. 13, on the 11 x 11 Gaussian window of their section III."""
    axis = torch.arange(WINDOW, dtype=a.dtype) - WINDOW // 2
    line = torch.exp(-axis.square() / (2 * SPREAD**2))
    line = line / line.sum()

    def blur(x: Tensor) -> Tensor:
        rows = functional.conv2d(x[:, None], line.view(1, 1, 1, -1))
        return functional.conv2d(rows, line.view(1, 1, -1, 1))[:, 0]

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    joint = blur(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + FLOORS[0]) / (mean_a**2 + mean_b**2 + FLOORS[0])
    return (light * (2 * joint + FLOORS[1]) / (var_a + var_b + FLOORS[1])).mean((1, 2))


class AbstractDiversity(AbstractMetric):
    """Mean distance between pictures of one prompt; 0 where all are the same, not measured for a single picture."""

    axis = "neither"
    level = "pair"
    higher_is_better = True

    @abstractmethod
    def distances(self, evidence: Evidence) -> Float[Tensor, " p"]:
        """The distance of every pair of different pictures."""

    def measure(self, evidence: Evidence) -> Score:
        if len(evidence.images) < 2:
            return self.missing(evidence.images)
        return over_pairs(self.distances(evidence))


@dataclass(frozen=True)
class Diversity(AbstractDiversity):
    """Mean of 1 - cosine in a named space. Differs from DIV of arXiv 2208.12242: cosine of a network for LPIPS."""

    version = 1

    space: str = "clip"
    name: str = "diversity"

    def distances(self, evidence: Evidence) -> Float[Tensor, " p"]:
        return pair_distances(evidence.see(self.space, evidence.images))


@dataclass(frozen=True)
class PerceptualDiversity(AbstractDiversity):
    """DIV of arXiv 2208.12242, section 4.2: mean LPIPS of all pairs. Not measured without LPIPS' weights."""

    version = 1

    space: str = "lpips"
    name: str = "diversity_lpips"

    def distances(self, evidence: Evidence) -> Float[Tensor, " p"]:
        return squared_distances(evidence.see(self.space, evidence.images))


@dataclass(frozen=True)
class StructuralDiversity(AbstractDiversity):
    """Mean of 1 - SSIM of all pairs, on brightness: needs no weights, and sees structure, not content (ours, where
    arXiv 2208.12242 has LPIPS). Above 1 where structures are opposed."""

    version = 1

    name: str = "diversity_ssim"

    def distances(self, evidence: Evidence) -> Float[Tensor, " p"]:
        if min(evidence.images.shape[-2:]) < WINDOW:
            return torch.zeros(0)
        light = brightness(evidence.images)
        left, right = torch.triu_indices(len(light), len(light), 1)
        return 1 - structural_similarity(light[left], light[right])

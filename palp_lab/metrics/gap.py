"""The modality gap: pictures and prompts lie apart in CLIP's space, so that their cosines have levels of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from palp_lab.metrics.base import AbstractMetric, Evidence, Score

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def modality_gap(images: Float[Tensor, "n d"], texts: Float[Tensor, "m d"]) -> Float[Tensor, " d"]:
    """Mean normalised picture feature minus mean normalised text feature. Source: arXiv 2203.02053, section 4.2."""
    unit = torch.nn.functional.normalize
    return unit(images.double(), dim=-1).mean(0) - unit(texts.double(), dim=-1).mean(0)


def close_gap(
    images: Float[Tensor, "n d"], texts: Float[Tensor, "m d"], gap: Float[Tensor, " d"], share: float = 0.5
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Both sides moved along the gap and normalised again; share 1/2 lets the means meet. Source: ibid., Eq. 3."""
    unit = torch.nn.functional.normalize
    return (
        unit(unit(images.double(), dim=-1) - share * gap, dim=-1),
        unit(unit(texts.double(), dim=-1) + share * gap, dim=-1),
    )


@dataclass(frozen=True)
class ModalityGap(AbstractMetric):
    """Length of the gap between a prompt and its pictures. A reading of the scorer, not of a method."""

    space: str = "clip"
    name: str = "modality_gap"
    axis = "neither"
    level = "set"
    higher_is_better = None

    def measure(self, evidence: Evidence) -> Score:
        gap = modality_gap(evidence.see(self.space, evidence.images), evidence.read(self.space, [evidence.text]))
        return Score("set", float(gap.norm()), None, 1)

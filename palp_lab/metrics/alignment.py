"""Alignment with the prompt and with pictures of the subject: cosines in a named space."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from palp_lab.metrics.base import AbstractMetric, Evidence, Score, cosine, per_image

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from palp_lab.types import Images


def text_alignment(
    images: Float[Tensor, "n d"], text: Float[Tensor, "m d"], scale: float = 1.0, floor: bool = False
) -> Float[Tensor, " n"]:
    """scale * cosine of every picture with the prompt (m = 1) or with its own prompt (m = n), floored at 0 on demand.

    CLIP-T of arXiv 2208.12242 with scale 1; CLIPScore of arXiv 2104.08718, Eq. 1, with scale 2.5 and floor.
    """
    unit = torch.nn.functional.normalize
    values = (unit(images.double(), dim=-1) * unit(text.double(), dim=-1)).sum(-1)
    return scale * (values.clamp_min(0) if floor else values)


def mean_similarity(images: Float[Tensor, "n d"], references: Float[Tensor, "m d"]) -> Float[Tensor, " n"]:
    """Mean cosine of every picture with all references, so that the mean over pictures is the mean over all pairs
    (CLIP-I and DINO-I, arXiv 2208.12242, section 4.2)."""
    return cosine(images, references).mean(1)


@dataclass(frozen=True)
class TextAlignment(AbstractMetric):
    """Do the pictures show what the prompt says? `scale` 2.5 with `floor` is CLIPScore; plain cosine otherwise."""

    space: str = "clip"
    scale: float = 1.0
    floor: bool = False
    name: str = "text_alignment"
    axis = "text"
    level = "image"
    higher_is_better = True

    def measure(self, evidence: Evidence) -> Score:
        text = evidence.read(self.space, [evidence.text])
        return per_image(text_alignment(evidence.see(self.space, evidence.images), text, self.scale, self.floor))


class AbstractSimilarity(AbstractMetric):
    """Mean cosine with reference pictures of the subject."""

    axis = "image"
    level = "image"
    higher_is_better = True

    @abstractmethod
    def references(self, evidence: Evidence) -> Images | None:
        """The pictures to be like, or None."""

    def measure(self, evidence: Evidence) -> Score:
        references = self.references(evidence)
        if references is None or not len(references):
            return self.missing(evidence.images)
        see = evidence.see
        return per_image(mean_similarity(see(self.space, evidence.images), see(self.space, references)))


@dataclass(frozen=True)
class ImageAlignment(AbstractSimilarity):
    """Likeness to the training photos. In CLIP's space leaked backgrounds count too: read it with the bounds."""

    space: str = "clip"
    name: str = "image_alignment"

    def references(self, evidence: Evidence) -> Images | None:
        return evidence.photos


@dataclass(frozen=True)
class IdentityHeldOut(AbstractSimilarity):
    """Likeness to photos of the subject that were not trained on: copying the training photos does not help."""

    space: str = "identity"
    name: str = "identity_held_out"

    def references(self, evidence: Evidence) -> Images | None:
        return evidence.held_out


@dataclass(frozen=True)
class IdentityOracle(AbstractSimilarity):
    """Likeness to true renders of the subject in the prompted scene: style and place do not stand against it."""

    space: str = "identity"
    name: str = "identity_oracle"

    def references(self, evidence: Evidence) -> Images | None:
        return evidence.true_renders

"""Alignment with the prompt and with pictures of the subject: cosines in a named space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from palp_lab.metrics.base import AbstractMetric, Evidence, Score, cosine, per_image
from palp_lab.types import UserError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


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

    version = 1

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


@dataclass(frozen=True)
class ElementAlignment(AbstractMetric):
    """Cosine with the words of one element of the prompt alone ("a sketch", "a cat", "in Paris"): a column of PALP's
    Table 2 (arXiv 2401.06105, section 5.2). Not measured where the prompt has no such element."""

    version = 1

    kind: str = "style"
    space: str = "clip"
    name: str = "style_alignment"
    axis = "text"
    level = "image"
    higher_is_better = True

    def measure(self, evidence: Evidence) -> Score:
        if self.kind not in evidence.phrases:
            return self.missing(evidence.images)
        text = evidence.read(self.space, [evidence.phrases[self.kind]])
        return per_image(text_alignment(evidence.see(self.space, evidence.images), text))


AGAINST = ("training", "held_out", "true_renders")
"""Pictures of the subject to be like: photos trained on, photos that were not, the subject in the prompted scene."""


@dataclass(frozen=True)
class ImageAlignment(AbstractMetric):
    """Mean cosine with pictures of the subject: the photos it was trained on (what the papers report; in CLIP's space
    leaked backgrounds count too: read it with the bounds), photos held out (copying the training photos does not help),
    or true renders in the prompted scene (style and place do not stand against it). A protocol keeps the three in
    columns of their own names."""

    version = 1

    space: str = "clip"
    against: str = "training"
    name: str = "image_alignment"
    axis = "image"
    level = "image"
    higher_is_better = True

    def __post_init__(self) -> None:
        if self.against not in AGAINST:
            raise UserError(f"{self.name}.against={self.against}: must be {', '.join(AGAINST)}")

    def measure(self, evidence: Evidence) -> Score:
        references = (evidence.photos, evidence.held_out, evidence.true_renders)[AGAINST.index(self.against)]
        if references is None or not len(references):
            return self.missing(evidence.images)
        see = evidence.see
        return per_image(mean_similarity(see(self.space, evidence.images), see(self.space, references)))

"""Drift: what tuning did to pictures of prompts without the concept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from palp_lab.metrics.alignment import mean_similarity
from palp_lab.metrics.base import AbstractMetric, Evidence, Score, cosine, per_image

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def drift(personal: Float[Tensor, "n d"], base: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """1 - cosine of each picture with the base model's picture of the same seed and prompt."""
    return 1 - cosine(personal, base).diagonal()


@dataclass(frozen=True)
class Drift(AbstractMetric):
    """Change of pictures of prompts without the concept, same seeds, base against personal; 0 is none.

    With `class_word` the prompts name the superclass ("a photo of a cat"), where language drift shows first
    (arXiv 2208.12242, section 3.2); without, they have nothing to do with the subject.
    """

    version = 1

    class_word: bool = True
    space: str = "clip"
    name: str = "drift_with_class_word"
    axis = "neither"
    level = "image"
    higher_is_better = False
    subject = "drift"

    def measure(self, evidence: Evidence) -> Score:
        if evidence.twins is None or evidence.class_word != self.class_word:
            return self.missing(evidence.images)
        see = evidence.see
        return per_image(drift(see(self.space, evidence.images), see(self.space, evidence.twins)))


@dataclass(frozen=True)
class ClassCollapse(AbstractMetric):
    """Likeness of pictures of the bare class to the subject's photos: high where the class has become the subject.
    PRES of arXiv 2208.12242, section 4.2 (with DINO there)."""

    version = 1

    space: str = "identity"
    name: str = "class_collapse"
    axis = "neither"
    level = "image"
    higher_is_better = False
    subject = "drift"

    def measure(self, evidence: Evidence) -> Score:
        if evidence.photos is None or not evidence.class_word:
            return self.missing(evidence.images)
        see = evidence.see
        return per_image(mean_similarity(see(self.space, evidence.images), see(self.space, evidence.photos)))

"""Overfitting seen in the pictures: copies of training photos, and colours and contrast that are not the scene's."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palp_lab.metrics.base import AbstractMetric, Evidence, Score, cosine, per_image

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from palp_lab.types import Images

LUMA = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue in brightness. Source: ITU-R BT.709."""


def nearest(images: Float[Tensor, "n d"], photos: Float[Tensor, "m d"]) -> Float[Tensor, " n"]:
    """Cosine of each picture with the most similar photo."""
    return cosine(images, photos).amax(1)


def saturation(images: Images) -> Float[Tensor, " n"]:
    """Mean chroma of each picture: largest minus smallest of red, green and blue, of 1."""
    pixels = images.double() / 255
    return (pixels.amax(1) - pixels.amin(1)).mean((1, 2))


def brightness(images: Images) -> Float[Tensor, "n h w"]:
    """Brightness of each pixel, of 1."""
    pixels = images.double() / 255
    return LUMA[0] * pixels[:, 0] + LUMA[1] * pixels[:, 1] + LUMA[2] * pixels[:, 2]


def contrast(images: Images) -> Float[Tensor, " n"]:
    """Standard deviation of the brightness over each picture (root-mean-square contrast), of 1."""
    return brightness(images).flatten(1).std(1, correction=0)


@dataclass(frozen=True)
class Copy(AbstractMetric):
    """Likeness to the nearest training photo: a picture that repeats a photo has 1, whatever its prompt said.
    Meaningful against the bounds: true renders and copies."""

    version = 1

    space: str = "clip"
    name: str = "copy"
    axis = "neither"
    level = "image"
    higher_is_better = False

    def measure(self, evidence: Evidence) -> Score:
        if evidence.photos is None:
            return self.missing(evidence.images)
        return per_image(nearest(evidence.see(self.space, evidence.images), evidence.see(self.space, evidence.photos)))


class AbstractRatio(AbstractMetric):
    """A property of the pixels over its mean in true renders of the prompt: 1 is right, above is overdone."""

    axis = "neither"
    level = "image"
    higher_is_better = None

    @abstractmethod
    def amount(self, images: Images) -> Float[Tensor, " n"]:
        """The property of each picture."""

    def measure(self, evidence: Evidence) -> Score:
        if evidence.true_renders is None or not len(evidence.true_renders):
            return self.missing(evidence.images)
        reference = self.amount(evidence.true_renders).mean()
        return per_image(self.amount(evidence.images) / reference)


@dataclass(frozen=True)
class Saturation(AbstractRatio):
    """Chroma over that of true renders. Score distillation is known to overdo it (arXiv 2209.14988, section 3)."""

    version = 1

    name: str = "saturation"

    def amount(self, images: Images) -> Float[Tensor, " n"]:
        return saturation(images)


@dataclass(frozen=True)
class Contrast(AbstractRatio):
    """Contrast over that of true renders."""

    version = 1

    name: str = "contrast"

    def amount(self, images: Images) -> Float[Tensor, " n"]:
        return contrast(images)

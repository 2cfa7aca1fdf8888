"""The modality gap: pictures and prompts lie apart in CLIP's space, so that their cosines have levels of their own.

A text alignment of 0.3 and an image alignment of 0.7 do not say that pictures look more like the photos than like
the prompt: most of the difference is the gap. It is a property of the network, so it is measured once, on captioned
pictures that have nothing to do with any method, and can be taken out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from palp_lab.metrics.alignment import text_alignment
from palp_lab.metrics.base import AbstractMetric, Evidence, Score, per_image

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8


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


ROWS = 64
"""Pictures that are held at once per size, and a quarter of all that are held; does not change a feature (ours)."""


@dataclass(frozen=True)
class Pairs:
    """Captioned pictures a network's gap is measured on; pictures [3 h w] (uint8) may differ in size, and may be read
    as they are asked for. `content` is their hash where something cheaper than their pixels tells it. Final."""

    pictures: Sequence[UInt8[Tensor, "3 h w"]]
    captions: Sequence[str]
    content: str | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of pictures and captions."""
        total = hashlib.sha256()
        for i, caption in enumerate(self.captions):
            if self.content is None:
                picture = self.pictures[i]
                total.update(f"{tuple(picture.shape)}{caption}\0".encode() + picture.contiguous().numpy().tobytes())
            else:
                total.update(f"{caption}\0".encode())
        if self.content is not None:
            total.update(self.content.encode())
        return total.hexdigest()[:16]

    def batches(self) -> Iterator[UInt8[Tensor, "b 3 h w"]]:
        """The pictures, those of one size together, never all of a large folder at once."""
        waiting: dict[tuple[int, ...], list[Tensor]] = {}
        for i in range(len(self.captions)):
            picture = self.pictures[i]
            some = waiting.setdefault(tuple(picture.shape), [])
            some.append(picture)
            if len(some) == ROWS:
                yield torch.stack(waiting.pop(tuple(picture.shape)))
            elif sum(map(len, waiting.values())) == 4 * ROWS:
                yield torch.stack(waiting.pop(max(waiting, key=lambda size: len(waiting[size]))))
        yield from map(torch.stack, waiting.values())


@dataclass(frozen=True)
class ModalityGap(AbstractMetric):
    """Length of the gap between a prompt and its pictures: the mean of their normalised features minus that of the
    prompt. It follows from text alignment t and diversity d of n pictures where both are read in its space, as the root
    of 1 + 1/n + (n - 1)(1 - d)/n - 2t, and so differs between methods; the network's own is `ScorerGap`."""

    version = 1

    space: str = "clip"
    name: str = "modality_gap"
    axis = "neither"
    level = "set"
    higher_is_better = None

    def measure(self, evidence: Evidence) -> Score:
        gap = modality_gap(evidence.see(self.space, evidence.images), evidence.read(self.space, [evidence.text]))
        return Score("set", float(gap.norm()), None, 1)


@dataclass(frozen=True)
class ScorerGap(AbstractMetric):
    """Length of the gap of the network itself, measured on the protocol's pairs: the same in every row of a protocol,
    about .82 for CLIP ViT-B/32 on photos. Not measured without pairs. Source: arXiv 2203.02053, section 4.2."""

    version = 1

    space: str = "clip"
    name: str = "scorer_gap"
    axis = "neither"
    level = "set"
    higher_is_better = None

    def measure(self, evidence: Evidence) -> Score:
        gap = evidence.gap(self.space)
        return Score("set", None if gap is None else float(gap.norm()), None, 0 if gap is None else 1)


@dataclass(frozen=True)
class CorrectedTextAlignment(AbstractMetric):
    """Cosine of picture and prompt after `share` of the network's gap is taken from the pictures and given to the
    prompt: with 1/2 the two means meet. Not measured where the protocol has no pairs to measure the gap on.
    Source: arXiv 2203.02053, Eq. 3."""

    version = 1

    space: str = "clip"
    share: float = 0.5
    name: str = "text_alignment_corrected"
    axis = "text"
    level = "image"
    higher_is_better = True

    def measure(self, evidence: Evidence) -> Score:
        gap = evidence.gap(self.space)
        if gap is None:
            return self.missing(evidence.images)
        seen, text = evidence.see(self.space, evidence.images), evidence.read(self.space, [evidence.text])
        return per_image(text_alignment(*close_gap(seen, text, gap, self.share)))

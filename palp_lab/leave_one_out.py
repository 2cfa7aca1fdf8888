"""Scores of training photos where none is held out: each photo against the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from palp_lab.dataset.concept import Concept
from palp_lab.metrics.alignment import ImageAlignment, mean_similarity
from palp_lab.metrics.base import AbstractMetric, Score, per_image
from palp_lab.metrics.overfitting import Copy, nearest
from palp_lab.metrics.protocols import Protocol, References

COMPARISONS: dict[type, Callable[[Tensor, Tensor], Tensor]] = {ImageAlignment: mean_similarity, Copy: nearest}
"""Our metrics that compare pictures with the photos, and how they do."""


def leaves_one_out(concept: Concept) -> bool:
    """Whether each training photo in turn stands for a photo that was held out, since none is."""
    return concept.held_out is None and len(concept.photos) > 1


def against_the_others(
    protocol: Protocol, concept: Concept, references: References, sentence: str, scores: Mapping[str, Score]
) -> dict[str, Score]:
    """Scores of the training photos with every value per picture measured against the other photos, so that no photo is
    compared with itself: the real images of arXiv 2208.12242, Table 1.

    Our metrics that compare with the photos are given the features of the others, so that networks see every photo a
    few times, however many there are. A metric of somebody else's is measured anew for every photo and the others.
    """
    photos, found = references.photos, dict(scores)
    own = all(type(metric).__module__.startswith("palp_lab.metrics.") for metric in protocol.metrics.values())
    each = [
        protocol.measure(
            photos[i : i + 1],
            sentence,
            concept.superclass,
            # With metrics of ours alone nothing that is kept below reads the photos; one of them is soon seen.
            replace(references, photos=photos[i : i + 1] if own else torch.cat([photos[:i], photos[i + 1 :]])),
        )
        for i in range(len(photos))
    ]
    for name, score in scores.items():
        if score.per_image is None:
            continue
        if own and (compare := _comparison(metric := protocol.metrics[name])) is not None:
            found[name] = per_image(_compared(protocol, metric.space, photos, compare))
        else:
            parts = [value for one in each for value in one[name].per_image or (None,)]
            found[name] = per_image(torch.tensor([math.nan if v is None else v for v in parts], dtype=torch.float64))
    return found


def _comparison(metric: AbstractMetric) -> Callable[[Tensor, Tensor], Tensor] | None:
    """What a metric of ours makes of the features of pictures and photos; None for one that reads no photos."""
    return COMPARISONS.get(type(metric)) if getattr(metric, "against", "training") == "training" else None


def _compared(protocol: Protocol, space: str, photos: Tensor, compare: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A value per photo, compared with the others. A network's last bits depend on how many pictures it sees at once,
    and where among them a picture is: all photos but the last, and all but the first, give the features that those of
    any other choice have."""
    first, last = protocol.see(space, photos[:-1]), protocol.see(space, photos[1:])
    return torch.cat([
        compare(protocol.see(space, photos[i : i + 1]), torch.cat([first[:i], last[i:]])) for i in range(len(photos))
    ])  # fmt: skip

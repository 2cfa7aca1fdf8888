"""Protocols: named, versioned bundles of networks, preprocessing and metrics, so that numbers can be compared at all.

Two numbers belong together only where name, version and all hashes of their protocols are equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from palp_lab.dataset.concept import with_noun
from palp_lab.metrics.base import AbstractMetric, Evidence, Score, Subject
from palp_lab.metrics.elements import PromptReader
from palp_lab.metrics.embedders import AbstractEmbedder
from palp_lab.metrics.gap import Pairs, modality_gap
from palp_lab.metrics.phrases import Phrases
from palp_lab.types import UserError

if TYPE_CHECKING:
    from palp_lab.types import Images

SLOT = "{}"
"""Where the concept goes in a sentence."""
STRIPPING = ("class_word", "bare_class_word", "drop")
"""What stands in a prompt's slot when text metrics read it: the superclass as a sentence has it ({} on a sofa -> a cat
on a sofa), the same without an article of ours (-> cat on a sofa), or nothing."""
BOUNDS = ("class_word", "described", "held_out_photos", "training_photos", "true_renders")
COLUMNS = {"held_out": "_held_out", "true_renders": "_oracle"}
"""How columns end that compare with something else than the training photos, so that they are never taken for one that
does: published protocols score against the photos that were trained on."""
ABSENT = "absent"
"""The hash of a network whose weights were not given."""
REMEMBERED = 512
"""Sets of pictures whose features a protocol keeps; photos and renders come back with every record (ours)."""


@dataclass(frozen=True)
class References:
    """Pictures of a concept that scores compare with: photos trained on, photos that were not, and true renders per
    sentence (empty outside the tiny world)."""

    photos: Images
    held_out: Images | None = None
    true_renders: Mapping[str, Images] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """One way of measuring. Final.

    `embedders` are networks by the name of their space, None where the weights were not given: what needs that space
    is not measured. `metrics` are by the name they have in results; `reader` finds elements (None: not measured);
    `strip` says what text metrics read in the slot; `bounds` which trivial rivals are measured along; `phrases` gives
    the words of each element; `pairs` are what the modality gap of a space is measured on.
    Aggregation is always: per picture, mean per prompt; results are pooled over prompts by a study.
    """

    name: str
    version: str
    embedders: Mapping[str, AbstractEmbedder | None]
    metrics: Mapping[str, AbstractMetric]
    reader: PromptReader | None = None
    strip: str = "class_word"
    bounds: Sequence[str] = BOUNDS
    phrases: Phrases | None = None
    pairs: Pairs | None = None
    _gaps: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    _memo: dict[tuple[str, str], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.strip not in STRIPPING:
            raise UserError(f"metrics.strip={self.strip}: must be one of {', '.join(STRIPPING)}")
        if strange := [b for b in self.bounds if b not in BOUNDS]:
            raise UserError(f"metrics.bounds: {strange[0]} is none of {', '.join(BOUNDS)}")
        for key, metric in self.metrics.items():
            if metric.space and metric.space not in self.embedders:
                raise UserError(
                    f"metrics.metrics.{key}.space={metric.space}: there is no such embedder; "
                    f"there are {', '.join(self.embedders)}"
                )
            against = _fields(metric).get("against")
            for where, ending in COLUMNS.items():
                if key.endswith(ending) is not (against == where):
                    raise UserError(
                        f"metrics.metrics.{key}: compares with {against or 'nothing'}; names in {ending} are for "
                        f"columns with against: {where}, and for them alone, so that no two columns are mixed up"
                    )

    def hashes(self) -> dict[str, str]:
        """Hash of every network, and of everything else that decides a number (preprocessing, metrics, stripping)."""
        found = {name: ABSENT if one is None else one.fingerprint for name, one in self.embedders.items()}
        if self.reader is not None:
            found["reader"] = self.reader.fingerprint
        if self.pairs is not None:
            found["pairs"] = self.pairs.fingerprint
        rest: list[Any] = [self.strip, self.reader and tuple(self.reader.kinds)]
        rest += (
            [] if self.phrases is None else [sorted((k, sorted(v.items())) for k, v in self.phrases.written.items())]
        )
        rest += [(name, one.preprocessing) for name, one in self.embedders.items() if one is not None]
        rest += [(name, type(metric).__name__, _fields(metric)) for name, metric in self.metrics.items()]
        return {**found, "settings": hashlib.sha256(repr(rest).encode()).hexdigest()[:16]}

    def text(self, sentence: str, superclass: str) -> str:
        """What text metrics read: never the placeholder, which would depress the score."""
        if self.strip == "class_word":
            return with_noun(sentence, superclass)
        if self.strip == "bare_class_word":
            return sentence.replace(SLOT, superclass)
        words = sentence.replace(SLOT, " ").split()
        return " ".join(words)

    def see(self, space: str, images: Images) -> Tensor:
        """Features of pictures in a space; pictures seen before are not shown to the network again."""
        network = self._network(space)
        if not network.remembered:
            return network.images(images)
        key = (space, hashlib.sha256(images.contiguous().numpy().tobytes() + repr(images.shape).encode()).hexdigest())
        if key not in self._memo:
            if len(self._memo) >= REMEMBERED:
                del self._memo[next(iter(self._memo))]
            self._memo[key] = network.images(images)
        return self._memo[key]

    def read(self, space: str, prompts: Sequence[str]) -> Tensor:
        """Features of prompts in a space."""
        return self._network(space).texts(prompts)

    def gap(self, space: str) -> Tensor | None:
        """The modality gap of a space, measured once on the pairs; None without them."""
        if self.pairs is None:
            return None
        if space not in self._gaps:
            seen = torch.cat([self._network(space).images(some) for some in self.pairs.batches()])
            self._gaps[space] = modality_gap(seen, self.read(space, self.pairs.captions))
        return self._gaps[space]

    def _network(self, space: str) -> AbstractEmbedder:
        network = self.embedders[space]
        if network is None:
            raise UserError(f"metrics.embedders.{space}: its weights were not given, so nothing is measured there")
        return network

    def measure(
        self,
        images: Images,
        sentence: str,
        superclass: str,
        references: References,
        subject: Subject = "concept",
        twins: Images | None = None,
        class_word: bool = False,
    ) -> dict[str, Score]:
        """All scores of the pictures [n 3 h w] of one sentence, by the metrics' names. `subject` "drift" measures what
        is said of prompts without the concept, against `twins`, the base model's pictures of the same seeds."""
        clean = with_noun(sentence, superclass)
        wanted = None if self.reader is None or subject == "drift" else self.reader.wanted(clean)
        evidence = Evidence(
            images=images,
            text=self.text(sentence, superclass),
            see=self.see,
            read=self.read,
            gap=self.gap,
            photos=references.photos,
            held_out=references.held_out,
            true_renders=references.true_renders.get(sentence),
            twins=twins,
            class_word=class_word,
            wanted=wanted or None,
            found=self.reader.found(images, wanted) if self.reader and wanted else None,
            phrases=self.phrases(sentence, superclass) if self.phrases and subject == "concept" else {},
        )
        return {name: self._measured(m, evidence) for name, m in self.metrics.items() if m.subject == subject}

    def _measured(self, metric: AbstractMetric, evidence: Evidence) -> Score:
        known = not metric.space or self.embedders[metric.space] is not None
        return metric.measure(evidence) if known else metric.missing(evidence.images)


def _fields(metric: AbstractMetric) -> dict[str, Any]:
    """What a metric was built with: the fields of a dataclass, or the plain values among the attributes of another."""
    if is_dataclass(metric):
        return asdict(metric)  # type: ignore[call-overload]
    plain = (str, int, float, bool, tuple, list, dict, type(None))
    return {name: value for name, value in sorted(vars(metric).items()) if isinstance(value, plain)}


def protocol(
    name: str,
    version: str | int,
    embedders: Mapping[str, AbstractEmbedder | None],
    metrics: Mapping[str, AbstractMetric | None],
    reader: PromptReader | None = None,
    strip: str = "class_word",
    bounds: Sequence[str] = BOUNDS,
    phrases: Phrases | None = None,
    pairs: Pairs | None = None,
) -> Protocol:
    """A protocol from configuration; a metric set to null is left out, one of a space set to null is not measured."""
    kept = {key: metric for key, metric in metrics.items() if metric is not None}
    return Protocol(name, str(version), dict(embedders), kept, reader, strip, tuple(bounds), phrases, pairs)

"""Elements: which of the things a prompt asks for can be seen in its pictures.

PALP's user study counts them by eye (arXiv 2401.06105, section 5.2 and appendix D: share of prompt elements found).
Differs from the paper: a network reads the pictures, not people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from palp_lab.metrics.base import AbstractMetric, Evidence, Score, per_image
from palp_lab.metrics.embedders import network_folder, once, pick_device

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

    from palp_lab.metrics.reader import ElementReader
    from palp_lab.tinyworld.parse import Elements
    from palp_lab.types import Images

KINDS = ("style", "place", "class", "accessories", "relation", "framing")
"""Kinds of elements; `relation` holds the relation and the class of the second subject."""
UNREAD = "unread"
"""The kind of what a prompt asks for in words nobody here can read: a share of the others is no share of the prompt."""


SUBJECTS = ("class_", "second_class")
"""The reader's factors that name a subject."""


@dataclass(frozen=True)
class Element:
    """One thing a prompt asks for: found where the reader says one of `labels` about one of `factors` (("hat",):
    {"red"}). A class has two factors: of two subjects side by side neither is the first."""

    kind: str
    factors: tuple[str, ...]
    labels: frozenset[str]


@dataclass(frozen=True)
class PromptReader:
    """What prompts ask for and which of it pictures show: a parser of prompts, and a network that knows `labels` (words
    per factor, "none" for absent) and gives the `words` it reads off pictures. Only elements of `kinds` count."""

    version = 1

    network: ElementReader
    parse: Callable[[str], Elements]
    kinds: Sequence[str] = KINDS

    @property
    def fingerprint(self) -> str:
        return self.network.fingerprint

    def wanted(self, text: str) -> tuple[Element, ...]:
        """The elements of a prompt that the network could read, in the prompt's kinds' order, then its unread words."""
        asked = self.parse(text)
        unread = tuple(Element(UNREAD, (), frozenset({word})) for word in asked.unknown)
        return tuple(e for e in elements_of(asked, self.network.labels) if e.kind in self.kinds) + unread

    def found(self, images: Images, wanted: Sequence[Element]) -> Bool[Tensor, "n k"]:
        """Which picture shows which element."""
        return found(self.network.words(images), wanted, len(images))


def open_reader(path: str, device: str = "cpu") -> ElementReader:
    """The element reader of a folder or of a shipped network's name; loaded once."""
    from palp_lab.metrics.reader import ElementReader

    folder, place = network_folder(path), pick_device(device)
    weights = (folder / "model.safetensors").stat() if (folder / "model.safetensors").is_file() else None
    state = f"{weights.st_size}:{weights.st_mtime_ns}" if weights else ""
    return once(("reader", str(folder), state, str(place)), lambda: ElementReader.from_folder(folder, place))


def elements_of(asked: Elements, known: Mapping[str, Sequence[str]]) -> tuple[Element, ...]:
    """The elements of a parsed prompt, in the words of a reader's factors: `style`, `place`, `class_`, `second_class`,
    `relation`, `framing`, and one factor per accessory whose label is its colour."""
    classes = [*asked.classes, "", ""]
    plain = [
        ("style", ("style",), asked.style), ("place", ("place",), asked.place), ("class", SUBJECTS, classes[0]),
        ("relation", SUBJECTS, classes[1]), ("relation", ("relation",), asked.relation),
        ("framing", ("framing",), asked.framing),
    ]  # fmt: skip
    wanted = [Element(kind, at, frozenset({word})) for kind, at, word in plain if word in known.get(at[0], ())]
    for word, colour in asked.accessories:
        colours = frozenset(known.get(word, ())) - {"none"}
        if colours:
            wanted.append(Element("accessories", (word,), colours & {colour} if colour else colours))
    return tuple(wanted)


def found(reading: Mapping[str, Sequence[str]], wanted: Sequence[Element], count: int) -> Bool[Tensor, "n k"]:
    """Truth per picture and element, from one label per picture and factor."""
    rows = [[any(reading[f][i] in e.labels for f in e.factors if f in reading) for e in wanted] for i in range(count)]
    return torch.tensor(rows, dtype=torch.bool).view(count, len(wanted))


def share_found(seen: Bool[Tensor, "n k"]) -> list[float]:
    """Share of the elements each picture shows; nothing asked, nothing measured."""
    return [float(row.double().mean()) for row in seen] if seen.shape[1] else []


@dataclass(frozen=True)
class ElementsFound(AbstractMetric):
    """Share of the prompt's elements a picture shows; of one `kind` ("style") or, where it is "", of all: not measured
    where the prompt asks for something in words that cannot be read."""

    version = 1

    kind: str = ""
    name: str = "elements"
    axis = "text"
    level = "image"
    higher_is_better = True

    def measure(self, evidence: Evidence) -> Score:
        if evidence.wanted is None or evidence.found is None:
            return self.missing(evidence.images)
        if not self.kind and any(e.kind == UNREAD for e in evidence.wanted):
            return self.missing(evidence.images)
        mine = [i for i, e in enumerate(evidence.wanted) if self.kind in ("", e.kind)]
        shares = share_found(evidence.found[:, mine])
        return per_image(torch.tensor(shares, dtype=torch.float64)) if shares else self.missing(evidence.images)

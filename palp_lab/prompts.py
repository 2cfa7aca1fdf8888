"""The sentences a method is measured on, in groups; and those that show what tuning did to everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from palp_lab.dataset.concept import SLOT, check_sentence
from palp_lab.types import UserError

if TYPE_CHECKING:
    from palp_lab.dataset.concept import Concept
    from palp_lab.model.base import AbstractModel
    from palp_lab.tokens.base import AbstractTokens

OTHER = "{other}"
"""Stands for a class that is not the concept's."""
TARGET_GROUP = "target"


@dataclass(frozen=True)
class DriftPrompt:
    """A full prompt without the concept; `class_word` says that it names the concept's superclass."""

    text: str
    class_word: bool


@dataclass(frozen=True)
class Prompts:
    """Sentences with one slot by group, and drift sentences.

    `drift_with_class_word` have the slot, which the class word fills, never the concept; `drift_without_class_word`
    name other things outright, or say {other}, filled from `others` without the concept's superclass.
    """

    version = 1

    groups: Mapping[str, Sequence[str]]
    drift_with_class_word: Sequence[str] = ()
    drift_without_class_word: Sequence[str] = ()
    others: Sequence[str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        for group, sentences in self.groups.items():
            for i, sentence in enumerate(sentences):
                check_sentence(sentence, f"prompts.groups.{group}[{i}]")
        for i, sentence in enumerate(self.drift_with_class_word):
            check_sentence(sentence, f"prompts.drift_with_class_word[{i}]")
        for i, sentence in enumerate(self.drift_without_class_word):
            if SLOT in sentence:
                raise UserError(
                    f"prompts.drift_without_class_word[{i}]: {sentence!r} has a slot; say {OTHER} or a word"
                )
            if OTHER in sentence and not self.others:
                raise UserError(f"prompts.others is empty, but {sentence!r} says {OTHER}; list some classes")

    def sentences(self, target: str | None = None) -> dict[str, str]:
        """Every sentence with its group, in order; a target that is in no group comes first, in group "target"."""
        found: dict[str, str] = {}
        for group, sentences in self.groups.items():
            for sentence in sentences:
                found.setdefault(sentence, group)
        if target is not None and target not in found:
            check_sentence(target, "target")
            found = {target: TARGET_GROUP, **found}
        return found

    def drift(self, superclass: str) -> tuple[DriftPrompt, ...]:
        """The drift prompts of a concept of this superclass, filled."""
        others = [word for word in self.others if word != superclass]
        if self.others and not others:
            raise UserError(f"prompts.others: holds nothing but {superclass!r}, the concept's own class; add another")
        own = [DriftPrompt(s.replace(SLOT, superclass), True) for s in self.drift_with_class_word]
        # A stride of three spreads few sentences over the classes instead of taking the first ones.
        rest = [
            DriftPrompt(s.replace(OTHER, others[(3 * i) % len(others)]) if others else s, False)
            for i, s in enumerate(self.drift_without_class_word)
        ]
        return (*own, *rest)


def check_lengths(
    model: AbstractModel, tokens: AbstractTokens, concept: Concept, sentences: Sequence[str], full: Sequence[str]
) -> None:
    """Raises UserError for a prompt that the model's text encoders cannot read whole, in the words they will be given:
    `sentences` with the concept's own words, its class word and its description in the slot, and `full` prompts. Only
    tokenizes: pictures are drawn after a training, and this is to be known before it. Says a start word of several
    pieces."""
    from palp_lab.tokens.base import say_pieces

    tokens.bind(model, concept)
    say_pieces(model, getattr(tokens, "init_token", None))
    words = tokens.call(concept)
    model.tokenize([concept.fill(sentence, words) for sentence in sentences], tokens.positions(concept.placeholder))
    rivals = [fill(sentence) for fill in (concept.clean, concept.described) for sentence in sentences]
    model.tokenize(list(dict.fromkeys([*rivals, *full])))

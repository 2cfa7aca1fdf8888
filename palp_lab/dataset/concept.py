"""The concept: one subject, its pictures and how sentences speak of it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from palp_lab.dataset.picture_file import PreparedPicture
    from palp_lab.types import Images, Masks

SLOT = "{}"


def check_sentence(sentence: str, key: str) -> str:
    """A sentence with exactly one slot, or a UserError that names the key and shows how to write one."""
    if sentence.count(SLOT) != 1:
        example = '"a sketch of {} in the snow"'
        shown = {"target": f"'target={example}'", "captions": f"'captions=[{example}]'"}.get(key, example)
        raise UserError(f"{key}: {sentence!r} needs exactly one {{}} where the subject goes, e.g. {shown}")
    return sentence


@dataclass(frozen=True)
class Concept:
    """One subject.

    `superclass` is the noun the base model knows ("cat"); `placeholder` the new word ("<v>"); `photos` the training
    pictures [n 3 h w] (uint8); `masks` [n h w] where the subject is, or None; `held_out` other pictures of the same
    subject, never trained on, or None; `description` the full true description of the subject in known words ("a
    spotted red cat" without the article), or None; `digest` a hash of all picture bytes;
    `held_out_digest` and `class_digest` hashes of the held-out and of the given class pictures where they come from
    folders, whose content may change under the same name. `captions` are sentences with a slot, one per photo, that
    take the place of the recipe's in training, or None; `token` the rare word other tools' prompts call the subject by,
    or None; `pictures` says what was done to each file, `notes` what else was chosen, in words.
    """

    name: str
    superclass: str
    placeholder: str
    photos: Images
    digest: str
    masks: Masks | None = None
    held_out: Images | None = None
    description: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    held_out_digest: str | None = None
    class_digest: str | None = None
    captions: tuple[str, ...] | None = None
    token: str | None = None
    pictures: tuple[PreparedPicture, ...] = ()

    def record(self) -> dict[str, Any]:
        """What a result says of its data: counts, choices in words, and every file with its crop and size."""
        return {
            "superclass": self.superclass,
            "photos": len(self.photos),
            "held_out": 0 if self.held_out is None else len(self.held_out),
            "masks": self.masks is not None,
            "notes": dict(self.notes),
            "pictures": [picture.record() for picture in self.pictures],
        }

    def fill(self, sentence: str, words: str) -> str:
        """The sentence with its slot filled."""
        return sentence.replace(SLOT, words)

    def clean(self, sentence: str) -> str:
        """The twin for the base model: the slot holds the class word, with an article where the sentence has none."""
        return with_noun(sentence, self.superclass)

    def described(self, sentence: str) -> str:
        """The sentence with the full true description in its slot (the class word where there is none)."""
        if self.description is None:
            return self.clean(sentence)
        # a description may begin with another sound than the class word
        return with_noun(re.sub(r"\ban? \{\}", f"{article(self.description)} {{}}", sentence), self.description)


BARE = frozenset((
    "", "of", "with", "in", "on", "at", "and", "or", "near", "by", "for", "from", "to", "like", "as", "beside",
    "behind", "under", "over", "above", "below", "inside", "outside", "around", "between", "featuring", "showing",
))  # fmt: skip
"""Words (or the beginning of a sentence) after which a noun in English has an article, so that a slot right behind one
of them is the whole noun phrase (ours)."""


def with_noun(sentence: str, noun: str) -> str:
    """A sentence with a noun in its slot. "a sketch of {} in Paris" is "a sketch of a cat in Paris": there the slot
    stands for the subject with its article, as the placeholder of arXiv 2401.06105 does ("a sketch of [V]" beside "a
    sketch of a cat"); "a sketch of a {}", "the {}" and "my small {}" have their own. The slot alone is the noun alone.
    """
    head, slot, tail = sentence.partition(SLOT)
    if not slot or sentence.strip() == SLOT or (head.split() or [""])[-1].lower() not in BARE:
        return sentence.replace(SLOT, noun)
    return f"{head}{article(noun)} {noun}{tail}"


def article(noun: str) -> str:
    """a, or an before a letter that mostly sounds as a vowel."""
    return "an" if noun[:1].lower() in "aeiou" else "a"


class AbstractDataset(ABC):
    """Where concepts and, if the world has them, true pictures of prompts come from."""

    @abstractmethod
    def concept(self) -> Concept:
        """The concept, read and checked. Raises UserError for missing, empty or corrupt pictures, naming the file."""

    def true_renders(self, sentence: str, seeds: Sequence[int]) -> Images | None:
        """The subject itself in the scene of a sentence with a slot, one per seed; None where there are none."""
        return None

    def redrawn(self, sentences: Sequence[str]) -> dict[str, int]:
        """Sentences whose true renders are drawn otherwise than in the dataset's first version, each with the version
        that changed them last: scores and bounds beside them are made anew, all others stay good."""
        return {}

    def default_target(self) -> str | None:
        """The target of a method that needs one where none is given; None where the user must say it."""
        return None

    def class_renders(self, seeds: Sequence[int]) -> Images | None:
        """Other members of the superclass, for prior preservation with given pictures; None where there are none."""
        return None

"""The words of a prompt's elements: what the element columns of PALP's Table 2 are measured against.

PALP reports text alignment with the style, the class and two "ambiance" elements of a prompt beside that with the whole
prompt (arXiv 2401.06105, section 5.2 and Table 2). How it words an element is not told; here it is the prompt's own
words ("a sketch of a {} in Paris at night": "a sketch", "a cat", "in Paris", "at night"). That choice is ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from palp_lab.types import UserError

KINDS = ("style", "class", "ambiance_1", "ambiance_2")
"""The columns, as Table 2 has them: what further elements a prompt has is in the whole prompt alone."""
SLOT = "{}"
ARTICLES = frozenset({"a", "an", "the", "one", "my"})
BEGIN = frozenset((
    "in", "on", "at", "under", "near", "by", "with", "without", "wearing", "holding", "next", "beside", "behind",
    "over", "above", "below", "against", "among", "around", "inside", "outside", "during", "inspired", "surrounded",
    "covered", "made", "riding", "sitting", "standing", "lying", "sleeping", "playing", "eating", "drinking",
    "swimming", "flying", "running", "far", "underwater", "as", "from", "through", "into", "while",
))  # fmt: skip
"""Words an element begins with (ours)."""
WHERE = frozenset({"in the background", "in the foreground"})
"""Says where in the picture an element is, and is none: "with lightning in the background" is one (ours)."""
STYLE = re.compile(r"\bin the style of\b|\bin \w+ style\b")


@dataclass(frozen=True)
class Phrases:
    """Prompts into the words of their elements: by hand where `written` has the sentence, else by `split`. Final."""

    written: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))

    def __call__(self, sentence: str, superclass: str) -> dict[str, str]:
        """The words of each element of a sentence with a slot, by kind; kinds it does not have are left out."""
        found = dict(self.written[sentence]) if sentence in self.written else split(sentence)
        return {kind: words.replace(SLOT, superclass) for kind, words in found.items()}


def split(sentence: str) -> dict[str, str]:
    """Style, class and up to two ambiance elements of a sentence with a slot.

    The style is what stands before the last "of" in front of the slot ("a sketch" of a {}), or an element that names a
    style ("in the style of Vermeer"); adjectives of the subject ("a small {}") and what follows it, cut where one of
    `BEGIN` or a comma starts something new, are ambiance, in the order of the sentence.
    """
    head, _, tail = sentence.partition(SLOT)
    style, of, before = head.rpartition(" of ")
    words = (before if of else head).split()
    article = next((word for word in words if word.lower() in ARTICLES), "a")
    adjectives = " ".join(word.strip(",") for word in words if word.lower() not in ARTICLES)
    ambiance = [adjectives] if adjectives else []
    found = {"class": f"{article} {SLOT}"}
    if of and style.strip():
        found["style"] = style.strip()
    for fragment in fragments(tail):
        if "style" not in found and STYLE.search(fragment):
            found["style"] = fragment
        else:
            ambiance.append(fragment)
    found.update(zip(("ambiance_1", "ambiance_2"), ambiance, strict=False))
    return {kind: found[kind] for kind in KINDS if kind in found}


def fragments(text: str) -> list[str]:
    """The elements that follow the subject: "in Paris at night, warm colours" -> in Paris | at night | warm colours."""
    found: list[list[str]] = []
    for part in re.split(r"[,;.]", text):
        fresh, before = True, ""
        words = part.split()
        for i, word in enumerate(words):
            # A word that begins an element does not begin a second one right after another: "sitting on a rock".
            where = " ".join(words[i : i + 3]).lower() in WHERE
            if fresh or (word.lower() in BEGIN and before.lower() not in BEGIN and not where):
                found.append([])
            found[-1].append(word)
            fresh, before = False, word
    return [" ".join(words) for words in found]


def open_phrases(file: str | None = None) -> Phrases:
    """Phrases from configuration. `file` is a JSON {sentence with {}: {kind: words}} for prompts the rules misread.
    Raises UserError for a file that is something else."""
    if file is None:
        return Phrases()
    path = Path(file).expanduser()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must be {{sentence: {{kind: words}}}}")
    for sentence, elements in values.items():
        if not isinstance(elements, dict) or not all(isinstance(words, str) for words in elements.values()):
            raise UserError(f"{path}: {sentence!r} must say {{kind: words}}")
        if strange := sorted(elements.keys() - set(KINDS)):
            raise UserError(f"{path}: {sentence!r}: {strange[0]} is none of {', '.join(KINDS)}")
    return Phrases(values)

"""Captions: named sets of them, and what other tools write of a photo as a sentence with a slot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from palp_lab.dataset.concept import SLOT, check_sentence
from palp_lab.types import UserError

TEXTUAL_INVERSION = (
    "a photo of a {}",
    "a rendering of a {}",
    "a cropped photo of the {}",
    "the photo of a {}",
    "a photo of a clean {}",
    "a photo of a dirty {}",
    "a dark photo of the {}",
    "a photo of my {}",
    "a photo of the cool {}",
    "a close-up photo of a {}",
    "a bright photo of the {}",
    "a cropped photo of a {}",
    "a photo of the {}",
    "a good photo of the {}",
    "a photo of one {}",
    "a close-up photo of the {}",
    "a rendition of the {}",
    "a photo of the clean {}",
    "a rendition of a {}",
    "a photo of a nice {}",
    "a good photo of a {}",
    "a photo of the nice {}",
    "a photo of the small {}",
    "a photo of the weird {}",
    "a photo of the large {}",
    "a photo of a cool {}",
    "a photo of a small {}",
)
"""The 27 neutral sentences of textual inversion. Source: arXiv 2208.01618, appendix (after CLIP's ImageNet prompts)."""

SETS: Mapping[str, Sequence[str]] = {"textual_inversion": TEXTUAL_INVERSION}


def read_captions(given: str | Sequence[str | None]) -> tuple[str, ...]:
    """Sentences with one slot: as given, with the name of a set replaced by its sentences.

    Raises UserError for a name that is no set, a sentence without a slot, or the target where there is none.
    """
    found: list[str] = []
    for entry in [given] if isinstance(given, str) else given:
        if entry is None:
            raise UserError("captions: this recipe trains on the target; add 'target=\"a sketch of {} in the snow\"'")
        if entry in SETS:
            found += SETS[entry]
        elif SLOT not in entry and " " not in entry.strip():
            raise UserError(f"captions: {entry!r} is no set of captions ({', '.join(SETS)}) and has no {{}} to fill")
        else:
            found.append(check_sentence(entry, "captions"))
    if not found:
        raise UserError("captions: there are none; give at least one sentence with one {}")
    return tuple(found)


def slotted(text: str, names: Sequence[str], superclass: str, where: str) -> str:
    """A caption or prompt of another tool as a sentence with one slot: it is written out already, or stands in place of
    the first of `names` (a placeholder or rare token, with or without the class word after it), or of the class word.

    Raises UserError, beginning with `where`, for a text that has none of them, or several slots.
    """
    if text.count(SLOT) > 1:
        raise UserError(f"{where}: {text!r} has {text.count(SLOT)} slots; write {SLOT} once, where the subject is")
    if SLOT in text:
        return text
    text, noun = " ".join(text.split()), _whole(superclass)
    for pattern in (*(rf"{_whole(name)}(\s+{noun})?" for name in names if name), noun):
        sentence, count = re.subn(pattern, SLOT, text, count=1, flags=re.IGNORECASE)
        if count:
            return sentence
    known = " nor ".join(repr(name) for name in names if name)
    raise UserError(
        f"{where}: {text!r} names neither the class word {superclass!r}{known and f' nor {known}'}; "
        f"write {SLOT} where the subject is"
    )


def _whole(words: str) -> str:
    """A pattern of these words as whole words; marks such as < and > need no boundary."""
    left, right = (r"(?<!\w)" if words[0].isalnum() else ""), (r"(?!\w)" if words[-1].isalnum() else "")
    return left + r"\s+".join(re.escape(word) for word in words.split()) + right


def read_lines(path: Path, key: str) -> list[str]:
    """The lines of a text file that hold something, without the blanks around them. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{key}: {path} is not there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); save it as UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip()]

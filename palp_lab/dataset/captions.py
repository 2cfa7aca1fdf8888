"""Named sets of captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
            raise UserError("captions: this recipe trains on the target; add 'target=\"a sketch of {} in Paris\"'")
        if entry in SETS:
            found += SETS[entry]
        elif SLOT not in entry and " " not in entry.strip():
            raise UserError(f"captions: {entry!r} is no set of captions ({', '.join(SETS)}) and has no {{}} to fill")
        else:
            found.append(check_sentence(entry, "captions"))
    if not found:
        raise UserError("captions: there are none; give at least one sentence with one {}")
    return tuple(found)

"""CustomConcept101: 101 concepts listed in a JSON file, each with a folder of photos and a file of prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from palp_lab.dataset.captions import read_lines, slotted
from palp_lab.dataset.concept import check_sentence
from palp_lab.dataset.photos import AbstractPhotos, PhotoSet, photos_in, required
from palp_lab.types import UserError

LIST = "dataset.json"
MODIFIERS = re.compile(r"<new\d+>")
"""How the list writes learned words."""


@dataclass(frozen=True)
class ConceptEntry:
    """One entry of the list: the name of its folder of photos, that folder, the class noun, the training caption as a
    sentence with a slot, and the file of evaluation prompts."""

    name: str
    folder: Path
    superclass: str
    caption: str
    prompts: Path


@dataclass(eq=False)
class CustomConcept101Dataset(AbstractPhotos):
    """One concept of CustomConcept101. Final.

    `path` is the folder that holds dataset.json (or a list of that form), `concept` the name of the photos' folder,
    such as pet_cat1. With `captions`, photos are called what the list's instance prompt says ("photo of a <new1> cat").

    Source: arXiv 2212.04488, section 4; the dataset's own dataset.json.
    """

    version = 1

    path: str | Path | None
    concept: InitVar[str | None] = field()  # type: ignore[assignment]  # an argument; the method keeps its name

    def __post_init__(self, concept: str | None) -> None:  # type: ignore[override]
        super().__post_init__()
        self.entry = find_entry(self.path, concept)

    def find(self) -> PhotoSet:
        photos, masks = photos_in(self.entry.folder, "dataset.concept")
        captions = [self.entry.caption] * len(photos)
        return PhotoSet(self.entry.name, self.entry.superclass, photos, masks, captions)


def find_entry(path: str | Path | None, concept: str | None) -> ConceptEntry:
    """The entry of a concept. Raises UserError for a file that is no such list, an unknown concept, or an entry of
    several concepts."""
    given = Path(required(path, "dataset.path", "give the folder that holds CustomConcept101's dataset.json"))
    list_file = given.expanduser() / LIST if given.expanduser().is_dir() else given.expanduser()
    entries = _read(list_file)
    if several := [entry for entry in entries if not isinstance(entry, Mapping)]:
        raise UserError(
            f"{list_file}: lists {len(several)} combinations of several concepts, and one is learned at a time; "
            f"give the list of single concepts, {LIST}"
        )
    found = {Path(_text(entry, "instance_data_dir", list_file)).name: entry for entry in entries}
    wanted = required(concept, "dataset.concept", f"choose one of {_some(found)}")
    if "+" in wanted:
        raise UserError(f"dataset.concept={wanted}: one concept is learned at a time; choose one of them")
    if wanted not in found:
        near = get_close_matches(wanted, found, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {_some(found)}"
        raise UserError(f"dataset.concept={wanted}: is not in {list_file}; {hint}")
    return _entry(wanted, found[wanted], list_file)


def read_prompts(entry: ConceptEntry) -> tuple[str, ...]:
    """The evaluation prompts of a concept, sentences with a slot. Raises UserError for a missing file or slot."""
    lines = read_lines(entry.prompts, "dataset.path")
    if not lines:
        raise UserError(f"{entry.prompts}: holds no prompt; write one sentence with {{}} per line")
    return tuple(dict.fromkeys(check_sentence(line, str(entry.prompts)) for line in lines))


def _entry(name: str, entry: Mapping[str, Any], list_file: Path) -> ConceptEntry:
    prompt = _text(entry, "instance_prompt", list_file)
    superclass = _text(entry, "class_prompt", list_file)
    words = list(dict.fromkeys(MODIFIERS.findall(prompt)))
    if len(words) > 1:
        raise UserError(f"{list_file}: {name} learns {', '.join(words)}; one concept is learned at a time")
    return ConceptEntry(
        name,
        list_file.parent / _text(entry, "instance_data_dir", list_file),
        superclass,
        slotted(prompt, words, superclass, f"{list_file}: {name}"),
        list_file.parent / _text(entry, "prompt_filename", list_file),
    )


def _read(path: Path) -> list[Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: is not there; dataset.path is the folder with CustomConcept101's {LIST}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: must be a list of concepts, as CustomConcept101's {LIST}")
    return entries


def _text(entry: Mapping[str, Any], key: str, path: Path) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{path}: an entry has no {key}; it has {', '.join(map(str, entry))}")
    return value.strip()


def _some(found: Mapping[str, Any]) -> str:
    names = sorted(found)
    return ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")

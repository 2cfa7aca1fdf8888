"""The DreamBooth dataset: 30 subjects, each a folder of photos beside a table of classes and two lists of prompts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from palp_lab.dataset.captions import read_lines
from palp_lab.dataset.concept import SLOT
from palp_lab.dataset.photos import AbstractPhotos, PhotoSet, photos_in, required
from palp_lab.types import UserError

TABLE = "prompts_and_classes.txt"
HEADER = "subject_name,class"
LIVE = ("cat", "dog")
"""Class nouns of the 9 live subjects. The file does not say which they are; the paper's 9 are its cats and dogs."""
LISTS = {"object": "object prompts", "live": "live subject prompts"}
"""The headings above the two lists of prompts."""


@dataclass(eq=False)
class DreamBenchDataset(AbstractPhotos):
    """One subject of the DreamBooth dataset. Final.

    `root` is the dataset's own folder (`dataset/` of its repository), which holds a folder per subject and
    prompts_and_classes.txt, from which the class noun is read.

    Source: arXiv 2208.12242, section 4.
    """

    version = 1

    root: str | Path | None = None
    subject: str = "cat"

    def find(self) -> PhotoSet:
        root = dataset_root(self.root)
        superclass = class_of(read_classes(root / TABLE), self.subject)
        photos, masks = photos_in(root / self.subject, "dataset.subject")
        return PhotoSet(self.subject, superclass, photos, masks)


def dataset_root(root: str | Path | None) -> Path:
    """The folder of the dataset. Raises UserError where none is given."""
    return Path(
        required(root, "dataset.root", "give the folder of the DreamBooth dataset, dataset.root=...")
    ).expanduser()


def class_of(classes: dict[str, str], subject: str) -> str:
    """The class noun of a subject. Raises UserError, which lists the subjects, for one that is not in the table."""
    if subject not in classes:
        raise UserError(f"dataset.subject={subject}: must be one of {', '.join(sorted(classes))}")
    return classes[subject]


def read_classes(path: Path) -> dict[str, str]:
    """Class noun of each subject, in the order of the table. Raises UserError for a file without one."""
    lines = _lines(path)
    start = next((i for i, line in enumerate(lines) if re.sub(r"\s", "", line.lower()) == HEADER), None)
    if start is None:
        raise UserError(f"{path}: has no table '{HEADER}'")
    table: dict[str, str] = {}
    for line in lines[start + 1 :]:
        name, comma, noun = line.partition(",")
        if not comma or "'" in line or '"' in line:
            break
        table[name.strip()] = noun.strip()
    if not table:
        raise UserError(f"{path}: the table '{HEADER}' is empty")
    return table


def read_prompts(path: Path) -> dict[str, tuple[str, ...]]:
    """The two lists of prompts, "object" and "live", as sentences with a slot.

    The file holds them as Python source, 'a {0} {1} in the snow'.format(unique_token, class_token): a line is a prompt
    where a quoted text is formatted, and identifier and class noun together are the slot.
    Raises UserError for a missing list, or a prompt in which the two do not stand together.
    """
    found: dict[str, list[str]] = {}
    kind: str | None = None
    for line in _lines(path):
        heading = line.lower().rstrip(":")
        if heading in LISTS.values():
            kind = next(name for name, words in LISTS.items() if words == heading)
            found.setdefault(kind, [])
        elif kind is not None:
            found[kind] += [_sentence(text, path) for text in _formatted(line)]
    for name, words in LISTS.items():
        if not found.get(name):
            raise UserError(f"{path}: has no list '{words.title()}'; take the file the dataset comes with")
    return {name: tuple(dict.fromkeys(sentences)) for name, sentences in found.items()}


def kind_of(superclass: str) -> str:
    """Which of the two lists a subject is measured on."""
    return "live" if superclass in LIVE else "object"


def _formatted(line: str) -> list[str]:
    """The quoted texts of a line that are formatted, one or several; quotes may be of either kind."""
    return [text for _, text in re.findall(r"(['\"])((?:(?!\1).)*)\1\s*\.format\(", line)]


def _sentence(text: str, path: Path) -> str:
    sentence = re.sub(r"\{0\}\s+\{1\}|\{\}\s+\{\}", SLOT, " ".join(text.split()))
    if sentence.count(SLOT) != 1 or re.search(r"\{\d", sentence):
        raise UserError(f"{path}: {text!r} needs {{0}} {{1}} (identifier, class noun) once, side by side")
    return sentence


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path}: is not there; dataset.root must hold the DreamBooth dataset's {TABLE}")
    return read_lines(path, "dataset.root")

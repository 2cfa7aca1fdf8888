"""Folders as kohya's trainers name them: `10_sks cat` holds photos to repeat ten times, a rare token and the class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from palp_lab.dataset.concept import SLOT
from palp_lab.dataset.photos import AbstractPhotos, PhotoSet, captions_beside, photos_in, required
from palp_lab.types import UserError

NAME = re.compile(r"(\d+)_(\S+)(?:\s+(\S.*))?")
"""repeats_token class; the class may be missing."""


@dataclass(eq=False)
class KohyaDataset(AbstractPhotos):
    """One subject in kohya's layout. Final.

    `path` is such a folder, or one that holds one; where it holds several, `folder` names the one to learn. With
    `captions`, photo.txt (or photo.caption, the default of kohya's trainers) says what a photo shows; one without is
    called as kohya calls it, by token and class alone.
    Repeats weigh folders against each other; one folder has nothing to be weighed against, so they change nothing here.
    """

    version = 1

    path: str | Path | None = None
    folder: str | None = None
    superclass: str | None = None

    def find(self) -> PhotoSet:
        given = Path(required(self.path, "dataset.path", "give the folder that holds e.g. '10_sks cat'")).expanduser()
        folder = self._folder_in(given)
        repeats, token, noun = read_name(folder.name)
        say = f"'{folder.name}' names none; give dataset.superclass=..., or name the folder '{repeats}_{token} cat'"
        superclass = required(self.superclass or noun, "dataset.superclass", say)
        photos, masks = photos_in(folder, "dataset.path")
        captions = captions_beside(photos, [token, self.placeholder], superclass, SLOT) if self.captions else None
        notes = {"folder": f"{folder.name}: token {token}, class {superclass}, repeats {repeats} (of no effect alone)"}
        if captions is not None:
            notes["captions"] = (
                f"{sum(text != SLOT for text in captions)} of {len(photos)} photos have one of their own"
            )
        return PhotoSet(f"{token} {superclass}", superclass, photos, masks, captions, notes, token)

    def _folder_in(self, given: Path) -> Path:
        if self.folder is not None:
            if not (given / self.folder).is_dir():
                raise UserError(f"dataset.folder={self.folder}: there is no such folder in {given}")
            return given / self.folder
        if NAME.fullmatch(given.name) and given.is_dir():
            return given
        if not given.is_dir():
            raise UserError(f"dataset.path={given}: no such folder")
        inside = sorted(path for path in given.iterdir() if path.is_dir() and NAME.fullmatch(path.name))
        if not inside:
            raise UserError(f"dataset.path={given}: holds no folder named as kohya's are, '10_sks cat'")
        if len(inside) > 1:
            names = ", ".join(repr(path.name) for path in inside)
            raise UserError(f"dataset.path={given}: holds {names}; one is learned at a time, choose dataset.folder")
        return inside[0]


def read_name(name: str) -> tuple[int, str, str | None]:
    """Repeats, token and class of a folder's name; the class None where it has none. Raises UserError."""
    match = NAME.fullmatch(name)
    if match is None:
        raise UserError(f"dataset.folder={name}: must be repeats_token class, as in '10_sks cat'")
    return int(match[1]), match[2], match[3]

"""The `imagefolder` layout of the datasets library: photos and a metadata.jsonl that says what each shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath

from palp_lab.dataset.captions import read_lines, slotted
from palp_lab.dataset.photos import AbstractPhotos, PhotoSet, photos_in, required
from palp_lab.dataset.picture_file import SUFFIXES
from palp_lab.types import UserError

METADATA = "metadata.jsonl"


@dataclass(eq=False)
class ImageFolderDataset(AbstractPhotos):
    """Photos of one subject with a caption each. Final.

    `path` holds metadata.jsonl, or a folder `train` that does: one JSON object per line with `file_name` and the
    caption under `column`. With `captions` the photos are called so in training; a caption says {}, the placeholder,
    `token` (a rare word the captions were written with) or the class noun where the subject is.
    """

    version = 1

    path: str | Path | None = None
    superclass: str | None = None
    token: str | None = None
    column: str = "text"

    def find(self) -> PhotoSet:
        folder = Path(required(self.path, "dataset.path", f"give the folder that holds {METADATA}")).expanduser()
        say = "give the noun for the subject, e.g. dataset.superclass=cat"
        superclass = required(self.superclass, "dataset.superclass", say)
        inside = next((at for at in (folder, folder / "train") if (at / METADATA).is_file()), None)
        if inside is None:
            photos_in(folder, "dataset.path")  # a folder that is not there at all says so itself
            raise UserError(f"dataset.path={folder}: has no {METADATA}; write one, or choose dataset=folder")
        rows = read_metadata(inside / METADATA)
        listed = [inside / name for name in sorted(rows)]
        masks = self._check(inside, listed)
        texts = [self._caption(inside, path.relative_to(inside).as_posix(), rows, superclass) for path in listed]
        called = texts if self.captions else None
        return PhotoSet(folder.resolve().name, superclass, listed, masks, called, token=self.token)

    def _check(self, folder: Path, listed: list[Path]) -> dict[str, Path]:
        """Every photo has a line and every line its photo. Returns the masks beside them."""
        for path in listed:
            if not path.resolve().is_relative_to(folder.resolve()):
                raise UserError(f"{folder / METADATA}: {path} lies outside its folder")
            if not path.is_file():
                raise UserError(f"{folder / METADATA}: {path.relative_to(folder)} is not there; take its line away")
        masks: dict[str, Path] = {}
        parents = {path.parent for path in listed}
        if any(path.suffix.lower() in SUFFIXES for path in folder.iterdir()):
            parents.add(folder)
        for inside in sorted(parents):
            photos, beside = photos_in(inside, "dataset.path")
            if silent := [path for path in photos if path not in listed]:
                raise UserError(f"{folder / METADATA}: says nothing of {silent[0].name}; add a line, or take it away")
            if twice := sorted(masks.keys() & beside.keys()):
                raise UserError(f"{beside[twice[0]]}: there are two photos {twice[0]} with masks; rename one of them")
            masks |= beside
        return masks

    def _caption(self, folder: Path, name: str, rows: Mapping[str, Mapping[str, object]], superclass: str) -> str:
        where = f"{folder / METADATA}: {name}"
        text = rows[name].get(self.column)
        if not self.captions:
            return ""
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f"{where}: has no text under {self.column!r} (it has {', '.join(rows[name])}); choose dataset.column"
            )
        return slotted(text, [self.token or "", self.placeholder], superclass, where)


def read_metadata(path: Path) -> dict[str, Mapping[str, object]]:
    """The rows of a metadata.jsonl by their file_name, each written in one way. Raises UserError, naming the line."""
    rows: dict[str, Mapping[str, object]] = {}
    for number, line in enumerate(read_lines(path, "dataset.path"), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, entry {number}: is not valid JSON ({error})") from None
        name = row.get("file_name") if isinstance(row, dict) else None
        if not isinstance(name, str) or not name:
            raise UserError(f"{path}, entry {number}: has no file_name")
        if name.startswith("/"):
            raise UserError(f"{path}, entry {number}: {name} must be a path from this file's folder, such as 00.png")
        name = normpath(name)  # ./a.png is a.png, once and not twice
        if name in rows:
            raise UserError(f"{path}, entry {number}: names {name} a second time; one caption per photo is read")
        rows[name] = row
    if not rows:
        raise UserError(f"{path}: is empty; write one line per photo with file_name and text")
    return rows

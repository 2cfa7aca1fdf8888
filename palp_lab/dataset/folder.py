"""Photos of one subject in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from palp_lab.dataset.photos import AbstractPhotos, PhotoSet, captions_beside, photos_in, required


@dataclass(eq=False)
class FolderDataset(AbstractPhotos):
    """A folder of photos and the noun for what they show. Final.

    With `captions`, `photo.txt` (or `photo.caption`) beside each photo says what it shows; `token` is the word such
    captions may call the subject by, beside {}, the placeholder and the class noun.
    """

    version = 1

    path: str | Path | None = None
    superclass: str | None = None
    token: str | None = None

    def find(self) -> PhotoSet:
        folder = Path(required(self.path, "dataset.path", "give the folder of photos, dataset.path=...")).expanduser()
        say = "give the noun for the subject, e.g. dataset.superclass=cat"
        superclass = required(self.superclass, "dataset.superclass", say)
        photos, masks = photos_in(folder, "dataset.path")
        captions = None
        if self.captions:
            captions = captions_beside(photos, [self.token or "", self.placeholder], superclass)
        return PhotoSet(folder.resolve().name, superclass, photos, masks, captions, token=self.token)

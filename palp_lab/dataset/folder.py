"""Photos of one subject in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from palp_lab.dataset.concept import AbstractDataset, Concept
from palp_lab.dataset.picture_file import digest, picture_files, read_picture, square, to_tensor
from palp_lab.types import UserError

if TYPE_CHECKING:
    from palp_lab.types import Images

MASK_SUFFIX = "_mask"
"""`photo.jpg` may have `photo_mask.png` beside it: white where the subject is."""


class FolderDataset(AbstractDataset):
    """A folder of photos and the noun for what they show. Final.

    Photos are cut to their middle square and scaled to `resolution`; what was done to each is in the concept's notes.
    Masks (`photo_mask.png`) are read where every photo has one. `held_out` is a folder of other photos of the subject;
    `class_folder` one of other members of the class.
    """

    def __init__(
        self,
        path: str | None,
        superclass: str | None,
        resolution: int = 512,
        placeholder: str = "<v>",
        description: str | None = None,
        held_out: str | None = None,
        class_folder: str | None = None,
    ) -> None:
        if not path:
            raise UserError("dataset.path: has no value; give the folder of photos, dataset.path=...")
        if not superclass or not superclass.strip():
            raise UserError(
                "dataset.superclass: has no value; give the noun for the subject, e.g. dataset.superclass=cat"
            )
        if resolution < 32:
            raise UserError(f"dataset.resolution={resolution}: must be at least 32")
        self.path = Path(path).expanduser()
        self.superclass = superclass.strip()
        self.resolution = resolution
        self.placeholder = placeholder
        self.description = description
        self.held_out = held_out
        self.class_folder = class_folder

    def concept(self) -> Concept:
        files = picture_files(self.path, "dataset.path")
        masks_of = {p.stem.removesuffix(MASK_SUFFIX): p for p in files if p.stem.endswith(MASK_SUFFIX)}
        photos = [p for p in files if not p.stem.endswith(MASK_SUFFIX)]
        if not photos:
            raise UserError(f"dataset.path={self.path}: holds masks only; give the photos beside them")
        images, notes = self._read(photos)
        masks = None
        if masks_of:
            if missing := [p for p in photos if p.stem not in masks_of]:
                raise UserError(
                    f"{missing[0]}: has no {missing[0].stem}{MASK_SUFFIX}.png, though others have; "
                    "add it, or remove the others"
                )
            masks = self._read([masks_of[p.stem] for p in photos])[0].float().mean(1) > 127
        held_out = None if self.held_out is None else self._folder(self.held_out, "dataset.held_out")
        others = None if self.class_folder is None else self._folder(self.class_folder, "dataset.class_folder")
        return Concept(
            name=self.path.resolve().name,
            superclass=self.superclass,
            placeholder=self.placeholder,
            photos=images,
            digest=digest(images)
            if masks is None
            else digest(torch.cat([images, masks[:, None].expand_as(images).to(images)])),
            masks=masks,
            held_out=held_out,
            description=self.description,
            notes=notes,
            held_out_digest=None if held_out is None else digest(held_out),
            class_digest=None if others is None else digest(others),
        )

    def class_renders(self, seeds: Sequence[int]) -> Images | None:
        """Pictures of other members of the class: the first of `class_folder`."""
        if self.class_folder is None:
            return None
        pictures = self._folder(self.class_folder, "dataset.class_folder")
        return pictures[: len(seeds)]

    def _folder(self, folder: str, key: str) -> Images:
        return self._read(picture_files(Path(folder).expanduser(), key))[0]

    def _read(self, files: Sequence[Path]) -> tuple[Images, dict[str, str]]:
        images, notes = [], {}
        for file in files:
            image, done = read_picture(file)
            cut, how = square(image, self.resolution)
            images.append(to_tensor(cut))
            if said := [*done, *([how] if how else [])]:
                notes[file.name] = "; ".join(said)
        return torch.stack(images), notes

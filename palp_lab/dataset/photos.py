"""Photos of one subject, however a tool lays them out: read, divided, masked and described in one way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from palp_lab.dataset.captions import read_lines, slotted
from palp_lab.dataset.concept import AbstractDataset, Concept
from palp_lab.dataset.masks import masks_in, photo_stem, read_masks, segment
from palp_lab.dataset.picture_file import LARGEST, PreparedPicture, digest, picture_files, prepare
from palp_lab.types import UserError

if TYPE_CHECKING:
    from palp_lab.types import Images, Masks


CAPTIONS = (".txt", ".caption")
"""Endings of files that say what the photo beside them shows: everybody's, and the default of kohya's trainers."""


@dataclass(frozen=True)
class PhotoSet:
    """What a layout holds of one subject: its name, its class noun, the photos in their order, `captions` (sentences
    with a slot, one per photo) where the layout has them, masks by the stem of their photo, notes for the record, the
    `token` (a rare word) that other tools call the subject by."""

    name: str
    superclass: str
    photos: Sequence[Path]
    masks: dict[str, Path] = field(default_factory=dict)
    captions: Sequence[str] | None = None
    notes: dict[str, str] = field(default_factory=dict)
    token: str | None = None


@dataclass(kw_only=True, eq=False)
class AbstractPhotos(AbstractDataset):
    """Photos of one subject on disk. A subclass says where they lie; all else is the same for every layout.

    Each photo is cut to its middle square and scaled to `resolution`. `held_out` photos are never trained on: a number
    takes the last ones in the order of their names, a folder gives others. `shots` trains on the first ones only.
    `captions` puts what the layout says of each photo in the place of the recipe's captions. Masks come from beside the
    photos (`photo_mask.png`), from the folder `masks`, or from the segmentation model `segment` (an id or a folder),
    which looks for `segment_words` (None: the class noun) and is remembered in `cache`. `class_folder` holds other
    members of the class. A picture of more than `most_pixels` is refused unread.
    """

    resolution: int = 512
    placeholder: str = "<v>"
    description: str | None = None
    shots: int | None = None
    held_out: int | str | Path | None = 0
    captions: bool = False
    masks: str | Path | None = None
    segment: str | Path | None = None
    segment_words: str | None = None
    segment_threshold: float = 0.4
    class_folder: str | Path | None = None
    cache: str | Path | None = None
    most_pixels: int = LARGEST

    def __post_init__(self) -> None:
        if self.resolution < 32:
            raise UserError(f"dataset.resolution={self.resolution}: must be at least 32")
        if self.shots is not None and self.shots < 1:
            raise UserError(f"dataset.shots={self.shots}: must be at least 1, or null for all")
        if isinstance(self.held_out, int) and self.held_out < 0:
            raise UserError(f"dataset.held_out={self.held_out}: must be a number of photos or a folder")
        if self.masks is not None and self.segment is not None:
            raise UserError("dataset.segment: masks come from dataset.masks or from a model; set one of them to null")

    @abstractmethod
    def find(self) -> PhotoSet:
        """The photos of the subject. Raises UserError for what is missing, naming the file or key and the fix."""

    def concept(self) -> Concept:
        found = self.find()
        training, kept = self._divide(found)
        images, pictures = self._read(training)
        held_out, others = self._held_out(kept)
        masks, pictures, how = self._masks(found, training, images, pictures)
        _check_apart(images, pictures, held_out, others)
        captions = None
        if self.captions and found.captions is not None:
            captions = tuple(found.captions[: len(training)])
            pictures = [replace(about, caption=text) for about, text in zip(pictures, captions, strict=True)]
        class_pictures = None if self.class_folder is None else self._folder(self.class_folder, "dataset.class_folder")
        return Concept(
            name=found.name,
            superclass=found.superclass,
            placeholder=self.placeholder,
            photos=images,
            digest=digest(
                images if masks is None else torch.cat([images, masks[:, None].expand_as(images).to(images)])
            ),
            masks=masks,
            held_out=held_out,
            description=self.description,
            notes={**found.notes, **self._choice(found, training, kept), **how},
            held_out_digest=None if held_out is None else digest(held_out),
            class_digest=None if class_pictures is None else digest(class_pictures),
            captions=captions,
            token=found.token,
            pictures=(*pictures, *others),
        )

    def class_renders(self, seeds: Sequence[int]) -> Images | None:
        """Pictures of other members of the class: the first of `class_folder`."""
        if self.class_folder is None:
            return None
        return self._folder(self.class_folder, "dataset.class_folder", len(seeds))

    def _divide(self, found: PhotoSet) -> tuple[list[Path], list[Path]]:
        """The photos that are trained on, and those of the same folder that are held out."""
        photos, last = list(found.photos), self.held_out if isinstance(self.held_out, int) else 0
        if last >= len(photos):
            raise UserError(
                f"dataset.held_out={last}: {found.name} has {len(photos)} photos, and one at least is trained on; "
                f"hold out {len(photos) - 1} at most"
            )
        rest = len(photos) - last
        if self.shots is not None and self.shots > rest:
            raise UserError(
                f"dataset.shots={self.shots}: {found.name} has {rest} photos to train on"
                + (f" when {last} are held out" if last else "")
            )
        return photos[: self.shots or rest], photos[rest:]

    def _choice(self, found: PhotoSet, training: Sequence[Path], kept: Sequence[Path]) -> dict[str, str]:
        notes = {}
        if kept:
            notes["held_out"] = f"the last {len(kept)} of {len(found.photos)} in the order of their names"
        elif isinstance(self.held_out, str | Path):
            notes["held_out"] = "the photos of a folder of their own"
        if unused := found.photos[len(training) : len(found.photos) - len(kept)]:
            notes["unused"] = ", ".join(path.name for path in unused)
        return notes

    def _held_out(self, kept: Sequence[Path]) -> tuple[Images | None, list[PreparedPicture]]:
        files = kept
        if isinstance(self.held_out, str | Path):
            files = picture_files(Path(self.held_out).expanduser(), "dataset.held_out")
        if not files:
            return None, []
        images, pictures = self._read(files)
        return images, [replace(about, role="held_out") for about in pictures]

    def _masks(
        self, found: PhotoSet, photos: Sequence[Path], images: Images, pictures: list[PreparedPicture]
    ) -> tuple[Masks | None, list[PreparedPicture], dict[str, str]]:
        if self.segment is not None:
            words, cache = self.segment_words or found.superclass, self.cache and Path(self.cache)
            masks = segment(images, self.segment, words, self.segment_threshold, cache or None, pictures)
            how = f"where a segmentation model finds {words!r} with a likelihood above {self.segment_threshold}"
        elif self.masks is not None:
            folder = Path(self.masks).expanduser()
            masks, how = read_masks(photos, masks_in(folder, "dataset.masks"), pictures), "from a folder of their own"
        elif found.masks:
            masks, how = read_masks(photos, found.masks, pictures), "beside the photos"
        else:
            return None, pictures, {}
        shares = [round(mask.float().mean().item(), 4) for mask in masks]
        told = [replace(about, masked_share=share) for about, share in zip(pictures, shares, strict=True)]
        return masks, told, {"masks": how}

    def _folder(self, folder: str | Path, key: str, first: int | None = None) -> Images:
        return self._read(picture_files(Path(folder).expanduser(), key)[:first])[0]

    def _read(self, files: Sequence[Path]) -> tuple[Images, list[PreparedPicture]]:
        prepared = [prepare(file, self.resolution, self.most_pixels) for file in files]
        return torch.stack([image for image, _ in prepared]), [about for _, about in prepared]


def photos_in(folder: Path, key: str) -> tuple[list[Path], dict[str, Path]]:
    """The photos of a folder in the order of their names, and the masks beside them. Raises UserError."""
    files = picture_files(folder, key)
    photos = [path for path in files if photo_stem(path) is None]
    if not photos:
        raise UserError(f"{key}={folder}: holds masks only; give the photos beside them")
    return photos, {stem: path for path in files if (stem := photo_stem(path)) is not None}


def captions_beside(
    photos: Sequence[Path], names: Sequence[str], superclass: str, otherwise: str | None = None
) -> list[str]:
    """What `photo.txt` or `photo.caption` says of each photo, as sentences with a slot; `otherwise` where neither is.

    Raises UserError for a missing or empty file where `otherwise` is None, for both files beside one photo, and for a
    text without the subject.
    """
    found = []
    for photo in photos:
        there = [path for ending in CAPTIONS if (path := photo.with_suffix(ending)).is_file()]
        if len(there) > 1:
            raise UserError(f"{there[1]}: {there[0].name} says what {photo.name} shows as well; take one of them away")
        path = there[0] if there else photo.with_suffix(CAPTIONS[0])
        if otherwise is not None and not path.is_file():
            found.append(otherwise)
            continue
        lines = read_lines(path, "dataset.captions")
        if not lines:
            raise UserError(f"{path}: is empty; write what the photo shows, with {{}} where the subject is")
        found.append(slotted(lines[0], names, superclass, str(path)))
    return found


def required(value: str | Path | None, key: str, say: str) -> str:
    """A value that only the user can give, as text. Raises UserError, which says what to give, where there is none."""
    text = "" if value is None else str(value).strip()
    if not text:
        raise UserError(f"{key}: has no value; {say}")
    return text


def _check_apart(
    images: Images, pictures: Sequence[PreparedPicture], held_out: Images | None, others: Sequence[PreparedPicture]
) -> None:
    """A held-out photo that is trained on would measure copying and call it likeness."""
    names = {digest(image): about.file for image, about in zip(images, pictures, strict=True)}
    for image, about in zip(() if held_out is None else held_out, others, strict=True):
        if (twin := names.get(digest(image))) is not None:
            raise UserError(f"dataset.held_out: {about.file} is the training photo {twin}; hold out another, or none")

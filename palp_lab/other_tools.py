"""Pictures made by any other tool, measured under the same protocol and put on the same front.

The folder holds the pictures and a `prompts.json` {file stem: prompt}, the layout of CustomConcept101's evaluation.
Pictures that palp-lab wrote say themselves what they show and need no such file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from palp_lab.dataset.captions import slotted
from palp_lab.dataset.concept import SLOT, AbstractDataset, Concept
from palp_lab.dataset.picture_file import picture_files
from palp_lab.keys import versions
from palp_lab.metrics.protocols import Protocol
from palp_lab.pictures import Picture, Scalar, read_image, read_picture, write_pictures
from palp_lab.score import (
    bound_pictures,
    by_sentence,
    gather_references,
    knobs_of,
    protocol_entry,
    score_bounds,
    score_records,
)
from palp_lab.study.fields import Fields, parse, read_text
from palp_lab.study.result import Record, Result
from palp_lab.types import UserError

PROMPTS = "prompts.json"
BOUNDS, PHOTOS = "bounds", "training_photos"
"""Folder of the bounds' pictures, as in a result of ours, and the bound whose pictures are kept there."""


RARE = ("sks",)
"""Rare words that everybody's prompts call a subject by, and that mean nothing else (DreamBooth's, in its scripts)."""


def as_sentence(prompt: str, concept: Concept, where: str, trigger: str | None = None) -> str:
    """A prompt with its slot, so that it pairs with ours and no scorer reads a word that was made up for the subject:
    written out already, or put where one of these stands, with or without the class word after it: the `trigger`, the
    dataset's token, the placeholder, any word in <angles>, sks; or where the class word stands.

    Raises UserError, beginning with `where`, for a prompt with none of them, or with several slots.
    """
    known = [trigger or "", concept.token or "", concept.placeholder, *re.findall(r"(?:<[^<>\s]+>)+", prompt), *RARE]
    return slotted(prompt, list(dict.fromkeys(known)), concept.superclass, where)


def read_foreign(folder: Path, concept: Concept, trigger: str | None = None) -> list[Picture]:
    """Pictures of a folder with their sentences; those of another tool have their seeds numbered per prompt, by file
    name. The knob `file` says where each lies. `trigger` is what their prompts call the subject.

    Raises UserError, one line naming the file, for a folder that is not there or holds no pictures, a picture that
    prompts.json does not name or a name without its picture, pictures that nothing says the prompt of, and pictures of
    one prompt that differ in size.
    """
    folder = Path(folder)
    files: dict[str, Path] = {}
    for path in picture_files(folder, "images"):
        if path.stem in files:
            raise UserError(f"{folder}: {files[path.stem].name} and {path.name} have one name; rename one of them")
        files[path.stem] = path
    pictures = _listed(folder, files, concept, trigger) if (folder / PROMPTS).is_file() else _described(folder, files)
    first: dict[str, Picture] = {}
    for picture in pictures:
        other = first.setdefault(picture.sentence, picture)
        if other.image.shape != picture.image.shape:
            (_, h, w), (_, height, width) = other.image.shape, picture.image.shape
            raise UserError(
                f"{folder}: {other.knobs['file']} is {w} x {h}, {picture.knobs['file']} is {width} x {height}, both of "
                f"{picture.sentence!r}; make the pictures of a prompt one size"
            )
    return pictures


def side_of(folder: Path) -> int:
    """The shorter side of the first picture of a folder. Raises UserError where there is none that can be read."""
    _, height, width = read_image(picture_files(Path(folder), "images")[0]).shape
    return min(height, width)


def _listed(folder: Path, files: Mapping[str, Path], concept: Concept, trigger: str | None) -> list[Picture]:
    """The pictures prompts.json names."""
    listed: Fields = parse(read_text(folder / PROMPTS), str(folder / PROMPTS))
    if lost := sorted(listed.values.keys() - files.keys()):
        raise UserError(f"{folder / PROMPTS}: {lost[0]} has no picture in the folder ({len(lost)} such)")
    if lost := sorted(files.keys() - listed.values.keys()):
        raise UserError(f"{folder / PROMPTS}: says no prompt for {files[lost[0]].name} ({len(lost)} such)")
    count: dict[str, int] = {}
    pictures = []
    for stem, path in sorted(files.items()):
        prompt = listed.text(stem)
        sentence = as_sentence(prompt, concept, f"{folder / PROMPTS}: {stem}", trigger)
        seed = count[sentence] = count.get(sentence, -1) + 1
        pictures.append(Picture(prompt, sentence, seed, read_image(path), {"file": path.name}))
    return pictures


def _described(folder: Path, files: Mapping[str, Path]) -> list[Picture]:
    """The pictures of palp-lab, which say what they show; those of prompts without the concept are left out, since
    drift is measured against the base model's pictures."""
    found = []
    for stem, path in sorted(files.items()):
        try:
            picture = read_picture(path)
        except UserError:
            read_image(path)  # what cannot be read at all says that instead
            raise UserError(
                f"{path}: does not say what it shows; write {folder / PROMPTS} with the prompt of every picture, as in "
                f'{{"{stem}": "a photo of {SLOT} in the snow"}}'
            ) from None
        if SLOT in picture.sentence:
            found.append(replace(picture, knobs={**picture.knobs, "file": path.name}))
    if not found:
        raise UserError(f"{folder}: none of its {len(files)} pictures shows a prompt with the concept")
    return found


def score_folder(
    folder: Path,
    protocol: Protocol,
    dataset: AbstractDataset,
    *,
    axes: Mapping[str, Scalar],
    step: int = 0,
    target: str | None = None,
) -> Result:
    """The result of a folder of pictures; `score_foreign` for what `read_foreign` reads there."""
    return score_foreign(
        read_foreign(folder, dataset.concept()), protocol, dataset, axes=axes, step=step, target=target
    )


def score_foreign(
    pictures: Sequence[Picture],
    protocol: Protocol,
    dataset: AbstractDataset,
    *,
    axes: Mapping[str, Scalar],
    step: int = 0,
    target: str | None = None,
    folder: Path | None = None,
) -> Result:
    """The result of pictures with a knob `file`. `axes` file it: method, dataset, concept, model, train_seed.

    Bounds are those that need no model (photos, true renders); the base model's come with our own results on the front.
    The training photos are written to bounds/training_photos of a `folder`, where people and judges who are asked find
    what they compare with.
    """
    concept = dataset.concept()
    sentences = list(dict.fromkeys(p.sentence for p in pictures))
    references = gather_references(dataset, concept, sentences)
    files = {(p.sentence, p.seed): str(p.knobs["file"]) for p in pictures}
    bare = [replace(p, knobs={k: v for k, v in p.knobs.items() if k != "file"}) for p in pictures]
    _drawn_alike(bare)
    scored = score_records(protocol, concept, references, bare, step=step, target=target)
    records = tuple(_with_files(record, files) for record in scored)
    rivals = bound_pictures(protocol, dataset, concept, sentences, {})
    scores = score_bounds(protocol, concept, references, rivals, sentences, BOUNDS)
    if folder is not None:
        write_pictures(folder / BOUNDS / PHOTOS, rivals.get(PHOTOS, ()))
    bounds = tuple(replace(bound, images=bound.images if folder and bound.name == PHOTOS else ()) for bound in scores)
    entry = protocol_entry(protocol)
    content = sorted((p.sentence, hashlib.sha256(p.image.numpy().tobytes()).hexdigest()) for p in pictures)
    beside = [concept.digest, concept.held_out_digest, concept.superclass]
    said = [content, beside, dict(axes), step, target, entry.name, entry.version, dict(entry.hashes)]
    run = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
    filed = {"target": target, **axes}
    return Result(run, filed, records, bounds, entry, versions=versions(), data=concept.record())


def _drawn_alike(pictures: Sequence[Picture]) -> None:
    """Raises UserError where pictures of one sentence tell of several settings, which are several records."""
    for sentence, some in by_sentence(pictures).items():
        told = list(dict.fromkeys(" ".join(f"{k}={v}" for k, v in knobs_of(p).items()) or "nothing told" for p in some))
        if len(told) > 1:
            raise UserError(
                f"pictures of {sentence!r}: some were drawn with {told[0]}, some with {told[1]}; "
                "score one setting at a time"
            )


def _with_files(record: Record, files: Mapping[tuple[str, int], str]) -> Record:
    return replace(record, images=tuple(files[record.prompt, seed] for seed in record.picture_seeds))

"""Pictures made by any other tool, measured under the same protocol and put on the same front.

The folder holds the pictures and a `prompts.json` {file stem: prompt}, the layout of CustomConcept101's evaluation.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from palp_lab.dataset.concept import SLOT, AbstractDataset, Concept
from palp_lab.dataset.picture_file import picture_files
from palp_lab.metrics.protocols import Protocol
from palp_lab.pictures import Picture, Scalar, read_image
from palp_lab.score import (
    bound_pictures,
    gather_references,
    protocol_entry,
    score_bounds,
    score_records,
    versions,
)
from palp_lab.study.fields import Fields, parse, read_text
from palp_lab.study.result import Record, Result
from palp_lab.types import UserError

PROMPTS = "prompts.json"


def as_sentence(prompt: str, concept: Concept, where: str) -> str:
    """A prompt with its slot, so that it pairs with ours: written out already, or put where the placeholder (with or
    without the class word) or the class word stands.

    Raises UserError, beginning with `where`, for a prompt with none of them.
    """
    if SLOT in prompt:
        return prompt
    placeholder, superclass = re.escape(concept.placeholder), re.escape(concept.superclass)
    for pattern in (rf"{placeholder}(\s+{superclass}\b)?", rf"\b{superclass}\b"):
        sentence, count = re.subn(pattern, SLOT, prompt, count=1)
        if count:
            return sentence
    raise UserError(
        f"{where}: {prompt!r} names neither the class word {concept.superclass!r} nor {concept.placeholder!r}; "
        f"write {SLOT} where the subject is"
    )


def read_foreign(folder: Path, concept: Concept) -> list[Picture]:
    """Pictures of another tool with their sentences. Seeds are numbered per prompt, by file name.

    Raises UserError for a picture that prompts.json does not name, or a name without its picture.
    """
    folder = Path(folder)
    files = {path.stem: path for path in picture_files(folder, "images")}
    listed: Fields = parse(read_text(folder / PROMPTS), str(folder / PROMPTS))
    if lost := sorted(listed.values.keys() - files.keys()):
        raise UserError(f"{folder / PROMPTS}: {lost[0]} has no picture in the folder ({len(lost)} such)")
    if lost := sorted(files.keys() - listed.values.keys()):
        raise UserError(f"{folder / PROMPTS}: says no prompt for {files[lost[0]].name} ({len(lost)} such)")
    count: dict[str, int] = {}
    pictures = []
    for stem, path in sorted(files.items()):
        prompt = listed.text(stem)
        sentence = as_sentence(prompt, concept, f"{folder / PROMPTS}: {stem}")
        seed = count[sentence] = count.get(sentence, -1) + 1
        pictures.append(Picture(prompt, sentence, seed, read_image(path), {"file": path.name}))
    return pictures


def score_folder(
    folder: Path,
    protocol: Protocol,
    dataset: AbstractDataset,
    *,
    axes: Mapping[str, Scalar],
    step: int = 0,
    target: str | None = None,
) -> Result:
    """The result of a folder of pictures. `axes` file it: method, dataset, concept, model, train_seed.

    Bounds are those that need no model (photos, true renders); the base model's come with our own results on the front.
    """
    concept = dataset.concept()
    pictures = read_foreign(folder, concept)
    sentences = list(dict.fromkeys(p.sentence for p in pictures))
    references = gather_references(dataset, concept, sentences)
    files = {(p.sentence, p.seed): str(p.knobs["file"]) for p in pictures}
    bare = [Picture(p.prompt, p.sentence, p.seed, p.image) for p in pictures]
    scored = score_records(protocol, concept, references, bare, step=step, target=target)
    records = tuple(_with_files(record, files) for record in scored)
    rivals = bound_pictures(protocol, dataset, concept, sentences, {})
    scores = score_bounds(protocol, concept, references, rivals, sentences)
    bounds = tuple(replace(bound, images=()) for bound in scores)  # nobody writes those pictures
    entry = protocol_entry(protocol)
    content = [sorted((p.sentence, hashlib.sha256(p.image.numpy().tobytes()).hexdigest()) for p in pictures)]
    run = hashlib.sha256(
        json.dumps([content, dict(axes), entry.name, entry.version], sort_keys=True).encode()
    ).hexdigest()
    return Result(run, {"target": target, **axes}, records, bounds, entry, versions=versions())


def _with_files(record: Record, files: Mapping[tuple[str, int], str]) -> Record:
    return replace(record, images=tuple(files[record.prompt, seed] for seed in record.picture_seeds))

"""Scores of pictures under a protocol: records of an adapter, bounds of a concept, pictures of any other tool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from palp_lab.dataset.concept import AbstractDataset, Concept
from palp_lab.leave_one_out import against_the_others, leaves_one_out
from palp_lab.metrics.base import Score
from palp_lab.metrics.protocols import Protocol, References
from palp_lab.pictures import Picture, Scalar
from palp_lab.prompts import DriftPrompt
from palp_lab.study.result import Bound, MetricValue, Record
from palp_lab.study.result import Protocol as ProtocolEntry
from palp_lab.types import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

RENDERS = 8
"""True renders per sentence that scores compare with, and as many others as bound (ours)."""
REFERENCE_SEEDS = range(910_000, 910_000 + RENDERS)
BOUND_SEEDS = range(920_000, 920_000 + RENDERS)
"""Seeds of true renders. Two ranges: a render is never compared with itself, nor with a training photo's scene."""
NOT_A_KNOB = frozenset({"version", "model", "adapter"})
"""Parts of a picture's description that say what drew it, not how; records of different adapters share the knobs."""
DRIFT_GROUP = "drift"


def score(config: DictConfig) -> None:
    """Numbers for the folder of pictures `images` names, written beside them as result.json with the training photos in
    bounds/; or for the cell this configuration describes. Prints where they are.

    Raises UserError where `images` is given and the command line does not say which base model drew them.
    """
    from palp_lab.parts import open_dataset, open_protocol
    from palp_lab.study.result import save_result
    from palp_lab.study.sweeps import current
    from palp_lab.tracked import send_result, tracked
    from palp_lab.training import as_plain

    if config.images is None:
        from palp_lab.cell import Cell
        from palp_lab.result_folder import RESULT, result_folder
        from palp_lab.run import make_result

        make_result(cell := Cell(config))
        print(result_folder(cell) / RESULT)
        return
    from palp_lab.other_tools import read_foreign, score_foreign, side_of

    folder, job = Path(config.images).expanduser(), current()
    # The recipe the configuration holds did not make these pictures: only what is given by hand says what did.
    given = {key: value for key, value in (job.overrides if job else {}).items() if value != "null"}
    method = str(config.labels.method) if "labels.method" in given else None
    if job and not {"model", "labels.model"} & given.keys():
        raise UserError(
            f"images={config.images}: nothing says which base model drew these pictures, and it is an axis; "
            "add model=sd15 (or another choice, or labels.model=<its name>)"
        )
    if not {"model", "dataset.resolution"} & given.keys() and "resolution" in config.dataset:
        # No model was chosen, so that its size is not known; the pictures' own is.
        config.dataset.resolution = side_of(folder)
    dataset = open_dataset(config)
    pictures = read_foreign(
        folder, dataset.concept(), config.imported.trigger
    )  # before networks are loaded: a wrong folder is said at once
    axes = {
        "method": method or folder.resolve().name, "dataset": config.labels.dataset, "concept": dataset.concept().name,
        "model": config.labels.model, "train_seed": int(config.seed), "study": str(config.study_name),
    }  # fmt: skip
    result = score_foreign(pictures, open_protocol(config), dataset, axes=axes, target=config.target, folder=folder)
    print(save_result(result, folder / "result.json"))
    with tracked(config, [result.run], str(axes["method"]), as_plain(config)) as run:
        send_result(run, result, folder)


def gather_references(dataset: AbstractDataset, concept: Concept, sentences: Iterable[str]) -> References:
    """What a concept's pictures are compared with; true renders only where the dataset has them."""
    renders = {s: dataset.true_renders(s, REFERENCE_SEEDS) for s in sentences}
    return References(concept.photos, concept.held_out, {s: r for s, r in renders.items() if r is not None})


def by_sentence(pictures: Iterable[Picture]) -> dict[str, list[Picture]]:
    """Pictures by sentence, in the order the sentences come, seeds ascending.

    Raises UserError for two pictures of the same sentence and seed: two settings of the knobs are two records.
    """
    found: dict[str, list[Picture]] = {}
    for picture in pictures:
        found.setdefault(picture.sentence, []).append(picture)
    for sentence, some in found.items():
        some.sort(key=lambda p: p.seed)
        if len({p.seed for p in some}) < len(some):
            raise UserError(f"pictures of {sentence!r}: two share a seed; score one setting at a time")
    return found


def score_records(
    protocol: Protocol,
    concept: Concept,
    references: References,
    pictures: Iterable[Picture],
    *,
    step: int,
    groups: Mapping[str, str] | None = None,
    target: str | None = None,
    folder: str = "images",
) -> tuple[Record, ...]:
    """One record per sentence: the adapter's pictures at a training step.

    `groups` names the group of a sentence; `target` is the prompt the adapter was tuned for; `folder` is where the
    pictures lie beside the result. Every sentence is measured, not the target alone: how far does alignment carry?
    """
    return tuple(
        Record(
            step=step,
            prompt=sentence,
            metrics=values(protocol.measure(stack(some), sentence, concept.superclass, references)),
            prompt_group=(groups or {}).get(sentence),
            target=target,
            own_target=sentence == target,
            knobs=knobs_of(some[0]),
            picture_seeds=tuple(p.seed for p in some),
            images=tuple(f"{folder}/{p.file_name()}" for p in some),
        )
        for sentence, some in by_sentence(pictures).items()
    )


def score_drift(
    protocol: Protocol,
    concept: Concept,
    references: References,
    prompts: Sequence[DriftPrompt],
    pictures: Iterable[Picture],
    twins: Iterable[Picture],
    *,
    step: int,
    target: str | None = None,
    folder: str = "images",
) -> tuple[Record, ...]:
    """One record per prompt without the concept: the personal model's pictures against the base model's `twins` of the
    same seeds. Raises UserError where a twin is missing."""
    mine, theirs = by_sentence(pictures), by_sentence(twins)
    records = []
    for prompt in prompts:
        if prompt.text not in mine:
            continue
        some = mine[prompt.text]
        base = {p.seed: p for p in theirs.get(prompt.text, [])}
        if lost := [p.seed for p in some if p.seed not in base]:
            raise UserError(f"drift: the base model's picture of {prompt.text!r} with seed {lost[0]} is missing")
        scores = protocol.measure(
            stack(some), prompt.text, concept.superclass, references,
            subject="drift", twins=stack([base[p.seed] for p in some]), class_word=prompt.class_word,
        )  # fmt: skip
        records.append(
            Record(
                step=step,
                prompt=prompt.text,
                # What the other kind of prompt measures does not belong here, rather than being unmeasured.
                metrics={name: value for name, value in values(scores).items() if value.n},
                prompt_group=DRIFT_GROUP,
                target=target,
                knobs=knobs_of(some[0]),
                picture_seeds=tuple(p.seed for p in some),
                images=tuple(f"{folder}/{p.file_name()}" for p in some),
            )
        )
    return tuple(records)


def bound_pictures(
    protocol: Protocol,
    dataset: AbstractDataset,
    concept: Concept,
    sentences: Sequence[str],
    drawn: Mapping[str, Sequence[Picture]],
) -> dict[str, list[Picture]]:
    """The pictures of every bound of the protocol: what the base model has `drawn` ("class_word", "described"), the
    photos, and true renders from seeds of their own. A bound that cannot be had is left out."""
    found: dict[str, list[Picture]] = {}
    for name in protocol.bounds:
        if name in ("class_word", "described"):
            # Without a description the two would be the same pictures.
            some = list(drawn.get(name, ())) if name == "class_word" or concept.description else []
        elif name == "true_renders":
            some = [
                Picture(concept.described(s), s, seed, image, {"what": "true render"})
                for s in sentences
                if (renders := dataset.true_renders(s, BOUND_SEEDS)) is not None
                for seed, image in zip(BOUND_SEEDS, renders, strict=True)
            ]
        else:
            photos = concept.photos if name == "training_photos" or leaves_one_out(concept) else concept.held_out
            words = name.replace("_", " ").removesuffix("s")
            some = [
                Picture(words, words, i, image, {"what": words})
                for i, image in enumerate(() if photos is None else photos)
            ]
        if some:
            found[name] = some
    return found


def score_bounds(
    protocol: Protocol,
    concept: Concept,
    references: References,
    pictures: Mapping[str, Sequence[Picture]],
    sentences: Sequence[str],
    folder: str = "bounds",
) -> tuple[Bound, ...]:
    """One bound per rival and sentence, from `bound_pictures`; photos are scored against every sentence, since a method
    that repeats them would get just that. Pictures lie in `folder`/name."""
    bounds = []
    for name, some in pictures.items():
        photos = name.endswith("_photos")
        drawn = {s: list(some) for s in sentences} if photos else by_sentence(some)
        compared = replace(references, held_out=None) if name == "held_out_photos" else references
        for sentence in sentences:
            if sentence not in drawn:
                continue
            scores = protocol.measure(stack(drawn[sentence]), sentence, concept.superclass, compared)
            if name == "held_out_photos" and leaves_one_out(concept):
                scores = against_the_others(protocol, concept, compared, sentence, scores)
            names = tuple(f"{folder}/{name}/{p.file_name()}" for p in drawn[sentence])
            bounds.append(Bound(name, sentence, values(scores), names))
    return tuple(bounds)


def values(scores: Mapping[str, Score]) -> dict[str, MetricValue]:
    """Scores in the words of a result."""
    return {name: MetricValue(s.level, s.value, s.per_image, s.n) for name, s in scores.items()}


def stack(pictures: Sequence[Picture]) -> Tensor:
    """Pictures as one tensor [n 3 h w]. Raises UserError where they differ in size."""
    sizes = {tuple(p.image.shape) for p in pictures}
    if len(sizes) > 1:
        some = " and ".join(f"{w} x {h}" for _, h, w in sorted(sizes)[:2])
        raise UserError(f"pictures of {pictures[0].sentence!r} differ in size ({some}); make them one size")
    return torch.stack([p.image for p in pictures])


def knobs_of(picture: Picture) -> dict[str, Scalar]:
    """How a picture was drawn, without what drew it and without settings left empty."""
    return {k: v for k, v in picture.knobs.items() if k not in NOT_A_KNOB and v != ""}


def protocol_entry(protocol: Protocol) -> ProtocolEntry:
    """The protocol as a result names it."""
    return ProtocolEntry(protocol.name, protocol.version, protocol.hashes())

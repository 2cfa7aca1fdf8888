"""Evaluation prompts that a published dataset brings along, read from its own files."""

from __future__ import annotations

from collections.abc import Sequence

from palp_lab.dataset.custom_concept101 import find_entry
from palp_lab.dataset.custom_concept101 import read_prompts as read_concept_prompts
from palp_lab.dataset.dreambench import LISTS, TABLE, class_of, dataset_root, kind_of, read_classes, read_prompts
from palp_lab.prompts import Prompts
from palp_lab.types import UserError


def dreambench_prompts(
    path: str | None,
    subject: str | None,
    kind: str = "auto",
    drift_with_class_word: Sequence[str] = (),
    drift_without_class_word: Sequence[str] = (),
    others: Sequence[str] = (),
) -> Prompts:
    """The prompts of a subject of the DreamBooth dataset, in the group "live" or "object".

    Source: arXiv 2208.12242, section 4, and the dataset's prompts_and_classes.txt. Raises UserError.
    """
    if kind not in ("auto", *LISTS):
        raise UserError(f"prompts.kind={kind}: must be auto, {', '.join(LISTS)}")
    table = dataset_root(path) / TABLE
    if kind == "auto":
        kind = kind_of(class_of(read_classes(table), str(subject)))
    return Prompts({kind: read_prompts(table)[kind]}, drift_with_class_word, drift_without_class_word, others)


def custom_concept101_prompts(
    path: str | None,
    concept: str | None,
    drift_with_class_word: Sequence[str] = (),
    drift_without_class_word: Sequence[str] = (),
    others: Sequence[str] = (),
) -> Prompts:
    """The prompts CustomConcept101 names for a concept, in a group of that name.

    Source: arXiv 2212.04488 and the dataset's prompts/. Raises UserError.
    """
    entry = find_entry(path, concept)
    groups = {entry.prompts.stem: read_concept_prompts(entry)}
    return Prompts(groups, drift_with_class_word, drift_without_class_word, others)

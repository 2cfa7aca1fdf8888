"""What a cell of a study is keyed by: the inputs of its three stages, its hash and its name.

A stage (train, pictures, scores) is keyed by all that decides its bytes, the machine included. The hash of a cell,
under which studies remember its result, leaves the machine out: a study grows over machines, and the result says where
it was made.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab import __version__
from palp_lab.build import FACTORIES
from palp_lab.engine.settings import since_then
from palp_lab.sources import digest_of
from palp_lab.study.store import digest

if TYPE_CHECKING:
    from palp_lab.dataset.concept import Concept

VERSIONS = {"train": 2, "pictures": 1, "estimates": 2, "scores": 1}
"""Raised when the code of a stage no longer gives what it gave for the same inputs. Refactoring leaves it alone, so
that the results of long studies stay good."""

LIBRARIES = ("torch", "diffusers", "transformers", "peft")
"""Their versions are part of a stage's key: they compute it."""

READ_BY: dict[str, frozenset[str]] = {
    "train": frozenset({
        "seed", "model", "dataset", "tokens", "edits", "losses", "optimizer", "trainer", "checkpoints", "dtype",
        "captions", "stages", "augment",
    }),
    "pictures": frozenset({"generate", "prompts"}),
    "scores": frozenset({"metrics"}),
    "none": frozenset({
        "target", "targets_file", "device", "threads", "output", "store", "study_name", "dry_run", "fail_fast",
        "labels", "log", "logger", "verb", "ledger", "report", "strip", "images", "adapters", "imported", "adapter",
        "format", "save_dtype", "to",
    }),
}  # fmt: skip
"""Which stage reads which top-level key of the configuration. `target` and the machine's keys enter by themselves; a
key that is listed nowhere counts as an input of the training, so that nothing new can be forgotten."""

UNREAD = {
    "model": {"path", "revision", "variant", "config", "dimensions"},
    "dataset": {"path", "folder", "root", "cache", "held_out", "masks", "segment", "class_folder", "most_pixels"},
    "prompts": {"path"},
    "trainer": {"save_every", "gallery"},
    "generate": {"batch_size", "image", "mask", "noise_strength", "paste_back", "first_seed", "prompts"},
}
"""Keys inside those nodes that do not change what comes out: paths (the content is hashed instead), how often
something is saved or shown, how many pictures share a batch, and what `generate` draws of saved adapters or into a
photo, which is no part of a cell."""


version = cache(metadata.version)
"""Of a library; looked up on disk once."""


def machine(device: str, threads: int) -> dict[str, Any]:
    """What computes: kind of device, threads, and the versions of the libraries."""
    return {"device": device, "threads": threads, **{name: version(name) for name in LIBRARIES}}


def versions() -> dict[str, str | None]:
    """What computed the numbers, as results say it; None for a library that is not installed."""
    found: dict[str, str | None] = {"palp_lab": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except metadata.PackageNotFoundError:
            found[library] = None
    return found


def read_by(stage: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved configuration a stage reads."""
    elsewhere = frozenset().union(*(keys for name, keys in READ_BY.items() if name != stage))
    known = READ_BY[stage]
    mine = [key for key in config if key in known or (stage == "train" and key not in elsewhere)]
    return {key: _settled(key, _without(config[key], UNREAD.get(key, set()))) for key in mine}


def describe_concept(concept: Concept) -> dict[str, Any]:
    """A concept as plain data: the pictures by their hash, and the words."""
    return {
        "photos": concept.digest,
        "superclass": concept.superclass,
        "placeholder": concept.placeholder,
        "description": concept.description,
        "class_pictures": concept.class_digest,
        **({"captions": list(concept.captions)} if concept.captions else {}),
    }


def code_of(node: Any) -> dict[str, str]:
    """What the configuration cannot say of the parts below a node: how they are written, by target.

    A class that says ``version = 1`` is told from others by its name alone, and one that says more by its number. Until
    a class says so, the hash of the files it is written in stands for it (`palp_lab.sources`), so that a part that was
    just mended is never answered by what its former self has made.
    """
    found: dict[str, str] = {}
    if isinstance(node, Mapping):
        if (target := node.get("_target_")) and (told := _written(str(target))) is not None:
            found[str(target)] = told
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            found |= code_of(value)
    return found


def _written(target: str) -> str | None:
    module, _, name = target.rpartition(".")
    loaded = import_module(module)
    told = vars(part).get("version") if isinstance(part := getattr(loaded, name), type) else None
    if told == 1 or target in FACTORIES:
        return None
    if told is not None:
        return f"version {told}"
    return digest_of(module, Path(str(loaded.__file__)))


def train_inputs(config: Mapping[str, Any], model: str, concept: Concept, target: str | None) -> dict[str, Any]:
    """What decides an adapter. `target` is None for a method that has none, so that all its cells share a training."""
    read = read_by("train", config)
    code = code_of(read)
    return {
        "version": VERSIONS["train"],
        "config": read,
        **({"code": code} if code else {}),
        "model": model,
        "concept": describe_concept(concept),
        "target": target,
    }


def picture_inputs(
    config: Mapping[str, Any], who: Mapping[str, Any], sentences: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    """What decides a set of pictures. `who` draws: an adapter's training, step and strength, or the base model and how
    it fills the slot."""
    return {
        "version": VERSIONS["pictures"],
        "config": {"generate": read_by("pictures", config)["generate"]},
        "who": dict(who),
        "sentences": list(sentences),
        "seeds": list(seeds),
    }


def score_inputs(protocol: Mapping[str, Any], pictures: Sequence[str], concept: Concept) -> dict[str, Any]:
    """What decides numbers: the protocol with its hashes, the pictures by the keys of their stages, the photos."""
    return {
        "version": VERSIONS["scores"],
        "protocol": dict(protocol),
        "pictures": list(pictures),
        "concept": {**describe_concept(concept), "held_out": concept.held_out_digest},
    }


def cell_hash(
    config: Mapping[str, Any], train: Mapping[str, Any], protocol: Mapping[str, Any], measured: Mapping[str, Any]
) -> str:
    """The hash of a cell: everything that is trained, generated and scored, on whatever machine. `measured` holds what
    enters the scores by another way than the configuration: the sentences, a target's among them, and the photos held
    out."""
    pictures = {"generate": read_by("pictures", config)["generate"]}
    # The training has its own among its inputs; these stood at 1 when the first ledgers were written.
    versions = {stage: VERSIONS[stage] for stage in ("pictures", "scores") if VERSIONS[stage] != 1}
    whole = {"train": train, "pictures": pictures, "protocol": dict(protocol), "measured": dict(measured)}
    return digest({**whole, **({"versions": versions} if versions else {})})


def cell_name(labels: Mapping[str, Any], concept: str, seed: int, target: str | None, run: str) -> str:
    """A folder's name that a person can read and no other cell has: method, concept, seed, target, 8 digits."""
    words = [labels.get("method"), concept, labels.get("model"), f"seed{seed}", target and target.replace("{}", "")]
    slugs = [re.sub(r"[^a-z0-9]+", "-", str(word).lower()).strip("-")[:40].strip("-") for word in words if word]
    return "_".join([*(slug for slug in slugs if slug), run[:8]])


def _settled(key: str, node: Any) -> Any:
    return since_then(key, node) if isinstance(node, Mapping) else node


def _without(node: Any, keys: set[str]) -> Any:
    return {key: value for key, value in node.items() if key not in keys} if isinstance(node, Mapping) else node

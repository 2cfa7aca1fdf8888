"""Rendered sets: pictures, captions, labels and identities written once to disk and opened memory-mapped."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np

from palp_lab.tinyworld.captions import caption
from palp_lab.tinyworld.factors import CLASSES, SIZE, WORLD_VERSION
from palp_lab.tinyworld.identity import sample_identity
from palp_lab.tinyworld.oracle import LABELS, labels
from palp_lab.tinyworld.render import render
from palp_lab.tinyworld.scene import Scene, elements_heldout, sample_scene
from palp_lab.types import UserError

VARIANTS = 5
"""Captions of a picture; ours."""

GROUP = 8
"""Pictures of one identity in a set of kind "identity"; ours."""

_SEEDS_PER_SET = 10_000_000
_CHUNK = 500


def scene_of(seed: int, index: int, split: str = "pretrain", kind: str = "scenes", group: int = GROUP) -> Scene:
    """The scene of picture ``index`` of a set; independent of the set's size and of its workers."""
    own = int(seed) * _SEEDS_PER_SET + index
    if kind == "scenes":
        return sample_scene(own, split)
    number = int(seed) * _SEEDS_PER_SET + index // group
    superclass = CLASSES[np.random.default_rng([41, number]).integers(0, len(CLASSES))]
    identity = sample_identity(superclass, number, split)
    for attempt in range(10_000):
        drawn = sample_scene(own + attempt * 7_919 * _SEEDS_PER_SET, "pretrain")
        if drawn.artwork or drawn.degradation or len(drawn.subjects) != 1:
            continue
        scene = Scene((identity,), drawn.style, drawn.place, drawn.accessories, drawn.framing, seed=own)
        if split == "heldout" or not elements_heldout(scene):
            return scene
    raise RuntimeError("no scene found for this identity")


def captions_of(scene: Scene, variants: int = VARIANTS) -> list[str]:
    """The caption variants a set stores for ``scene``."""
    return [caption(scene, np.random.default_rng([811, scene.seed, variant])) for variant in range(variants)]


def _render_chunk(
    start: int, *, folder: str, count: int, seed: int, split: str, kind: str, group: int
) -> tuple[list[str], np.ndarray, list[int]]:
    images = np.load(Path(folder) / "images.npy", mmap_mode="r+")
    lines, rows, identities = [], [], []
    for index in range(start, min(start + _CHUNK, count)):
        scene = scene_of(seed, index, split, kind, group)
        images[index] = render(scene)
        lines.append(json.dumps(captions_of(scene)))
        rows.append(list(labels(scene).values()))
        identities.append((index // group if kind == "identity" else index) if scene.subjects else -1)
    images.flush()
    return lines, np.asarray(rows, np.uint8), identities


def render_set(
    folder: str | Path, count: int, seed: int, split: str = "pretrain", workers: int = 1, kind: str = "scenes",
    group: int = GROUP,
) -> RenderSet:  # fmt: skip
    """Renders ``count`` pictures into ``folder``, or opens it when the same set is already there and whole.

    ``kind`` "scenes" draws every picture anew; "identity" draws ``count / group`` identities with ``group`` pictures
    each in varied styles, places and poses. The result does not depend on ``workers``.
    """
    folder = Path(folder)
    meta = {
        "version": WORLD_VERSION, "count": count, "seed": seed, "split": split, "kind": kind,
        "group": group if kind == "identity" else 1, "labels": list(LABELS),
    }  # fmt: skip
    mark = folder / "meta.json"
    if mark.exists() and json.loads(mark.read_text()) == meta:
        return RenderSet(folder)
    if kind not in ("scenes", "identity"):
        raise UserError(f"kind {kind!r} is unknown; choose scenes or identity")
    folder.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    for made in (*folder.glob("*.npy"), *folder.glob("*.npz")):
        made.unlink()  # of another set, tables of its captions among them
    np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, SIZE, SIZE, 3)).flush()
    work = partial(_render_chunk, folder=str(folder), count=count, seed=seed, split=split, kind=kind, group=group)
    starts = range(0, count, _CHUNK)
    rows, identities = [], []
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) if workers > 1 else nullcontext()
    with pool as executor, (folder / "captions.jsonl").open("w", encoding="utf-8") as lines:
        parts: Iterator = executor.map(work, starts) if executor is not None else map(work, starts)
        for texts, block, owners in parts:
            lines.write("\n".join(texts) + "\n")
            rows.append(block)
            identities += owners
    table = np.concatenate(rows)
    np.savez(folder / "labels.npz", **{name: table[:, i] for i, name in enumerate(LABELS)})
    np.save(folder / "identities.npy", np.asarray(identities, np.int64))
    partly = folder / "meta.json.part"
    partly.write_text(json.dumps(meta))
    partly.replace(mark)
    return RenderSet(folder)


class RenderSet:
    """A rendered set on disk. ``images`` uint8 [n, 64, 64, 3] memory-mapped, ``labels`` uint8 [n] by name,
    ``identities`` int64 [n] (-1 where no subject is shown), ``meta``."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        mark = self.folder / "meta.json"
        if not mark.exists():
            raise UserError(f"{mark} is missing: the set is not rendered or not finished, render it again")
        self.meta: dict = json.loads(mark.read_text())
        self.images: np.ndarray = np.load(self.folder / "images.npy", mmap_mode="r")
        with np.load(self.folder / "labels.npz") as stored:
            self.labels: dict[str, np.ndarray] = {name: stored[name] for name in stored.files}
        self.identities: np.ndarray = np.load(self.folder / "identities.npy")
        self._lines = (self.folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()

    def __len__(self) -> int:
        return len(self.images)

    def captions(self, index: int) -> list[str]:
        """The caption variants of picture ``index``."""
        return json.loads(self._lines[index])

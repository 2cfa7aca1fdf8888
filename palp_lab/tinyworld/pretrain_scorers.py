"""What the scorers' stages build: tiny CLIP, element reader, identity encoder; none has seen the generator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from palp_lab.metrics.reader import ElementReader
from palp_lab.tinyworld.factors import ACCESSORIES, CLASSES, COLOUR_NAMES, PLACES, STYLES
from palp_lab.tinyworld.identity import sample_identity
from palp_lab.tinyworld.oracle import LABELS
from palp_lab.tinyworld.pretrain_autoencoder import to_pixels
from palp_lab.tinyworld.pretrain_clip import Matching, eight_captions
from palp_lab.tinyworld.pretrain_loop import AbstractTask, load_averaged
from palp_lab.tinyworld.pretrain_reader import UNSEEN, Reading, Recognition, label_table, start_from
from palp_lab.tinyworld.pretrain_stages import SETS, load_shipped, open_set, shipped_segments
from palp_lab.tinyworld.pretrain_text import build_tokenizer, encode_captions
from palp_lab.tinyworld.render import render
from palp_lab.tinyworld.scene import Scene
from palp_lab.tinyworld.sets import scene_of

TaskT = TypeVar("TaskT", bound=AbstractTask)


def build_clip_task(folder: Path, batch: int, bf16: bool, shipped: Path | None = None) -> Matching:
    """The tiny CLIP over the scorers' set; where a reader is trained or shipped, it teaches.

    ``shipped`` is the folder of all shipped weights: the first sitting goes on from the CLIP there.
    """
    rendered = open_set(folder, "scorers")
    teacher = None
    if (folder / "reader" / "checkpoint.pt").exists():
        reading = build_reader_task(folder, 1, False)
        load_averaged(reading, folder / "reader")
        teacher = reading.reader.eval().requires_grad_(False)
    elif shipped is not None:
        teacher = ElementReader.from_folder(shipped / "reader")
    seed, tokenizer = rendered.meta["seed"], build_tokenizer()
    task = Matching(rendered.images, rendered.labels, seed, tokenizer, batch, teacher, bf16=bf16)
    return _go_on(task, task.model, folder, "clip", shipped)


def build_reader_task(folder: Path, batch: int, bf16: bool, shipped: Path | None = None) -> Reading:
    """The element reader over the scorers' set; ``shipped`` as for :func:`build_clip_task`."""
    rendered = open_set(folder, "scorers")
    task = Reading(rendered.images, rendered.labels, batch, bf16)
    return _go_on(task, task.reader, folder, "reader", shipped)


def _go_on(task: TaskT, model: nn.Module, folder: Path, name: str, shipped: Path | None) -> TaskT:
    """Before the first sitting: the shipped weights of ``name`` into ``model``, their lineage into ``task``."""
    if shipped is not None and not (folder / name / "checkpoint.pt").exists():
        load_shipped(shipped, f"{name}/model.safetensors", model)
        task.earlier = shipped_segments(shipped / name)
    return task


def build_identity_task(folder: Path, batch: int, bf16: bool, shipped: Path | None = None) -> Recognition:
    """The identity encoder over the identity set; it starts from the shipped one, else from a trained reader's
    backbone. ``shipped`` as for :func:`build_clip_task`."""
    rendered = open_set(folder, "identity")
    task = Recognition(rendered.images, rendered.identities, rendered.labels["class_"], batch, bf16=bf16)
    if shipped is not None:
        return _go_on(task, task.model, folder, "identity", shipped)
    if (folder / "reader" / "checkpoint.pt").exists():
        reading = build_reader_task(folder, 1, False)
        load_averaged(reading, folder / "reader")
        start_from(task.model, reading.reader)
    return task


def reader_accuracy(reader: ElementReader, images: np.ndarray, labels: dict[str, np.ndarray]) -> dict[str, dict]:
    """Share of right readings per factor, over all pictures that show it and per style; ``n`` counts them.

    An accessory counts where it is worn (its colour must be right, ``present`` asks for the thing alone) and ``absent``
    says how often it is rightly not seen.
    """
    found = reader.read(torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2))
    table, styles = label_table(labels), LABELS["style"]
    whole = (labels["degraded"] == 0) & (labels["class_"] > 0)
    out: dict[str, dict] = {}
    for i, (name, words) in enumerate(LABELS.items()):
        truth, guess = table[:, i].astype(int), found[name].numpy()
        use = (truth != UNSEEN) & (whole if name != "degraded" else labels["class_"] > 0)
        accessory = len(words) == 13 and name not in ("colour", "second_colour")
        worn = use & (truth > 0) if accessory else use
        right = guess == truth
        out[name] = {"all": _mean(right[worn]), "n": int(worn.sum())}
        if accessory:
            out[name]["present"] = _mean(guess[worn] > 0)
            out[name]["absent"] = _mean(right[use & (truth == 0)])
        out[name]["styles"] = {s: _mean(right[worn & (labels["style"] == k)]) for k, s in enumerate(styles)}
    return out


def read_by_style(reader: ElementReader, each: int = 200) -> dict[str, dict[str, float | None]]:
    """Per style the share of right readings of what it shows, in real renders of one subject in full view: style,
    place, class, every accessory (the thing, whatever its colour) in ``each`` pictures, then all accessories in their
    colour, and the coat's colour and pattern."""
    found: dict[str, dict[str, float | None]] = {}
    for style in STYLES:
        scenes = list(_wearing(style, each))
        pictures = torch.from_numpy(np.stack([render(scene) for scene in scenes])).permute(0, 3, 1, 2)
        words = reader.words(pictures)
        truth = [{"style": style, "place": s.place, "class_": s.subjects[0].superclass} for s in scenes]
        found[style] = {
            name: _mean(np.asarray([words[name][i] == one[name] for i, one in enumerate(truth)]))
            for name in ("style", "place", "class_")
        }
        for name in ACCESSORIES:
            worn = [i for i, scene in enumerate(scenes) if scene.accessories[0][0] == name]
            found[style][name] = _mean(np.asarray([words[name][i] != "none" for i in worn]))
        things, coats = [s.accessories[0] for s in scenes], [s.subjects[0] for s in scenes]
        found[style] |= {
            "in its colour": _mean(np.asarray([words[name][i] == hue for i, (name, hue) in enumerate(things)])),
            "coat colour": _mean(np.asarray([words["colour"][i] == coat.colour for i, coat in enumerate(coats)])),
            "coat pattern": _mean(np.asarray([words["pattern"][i] == coat.pattern for i, coat in enumerate(coats)])),
        }
    return found


def _wearing(style: str, each: int) -> Iterator[Scene]:
    """Held-out individuals in full view in one style, ``each`` with every accessory; places and colours in turn."""
    for i in range(each * len(ACCESSORIES)):
        name, kind = ACCESSORIES[i % len(ACCESSORIES)], CLASSES[i // len(ACCESSORIES) % len(CLASSES)]
        worn = ((name, COLOUR_NAMES[i // 7 % len(COLOUR_NAMES)]),)
        yield Scene((sample_identity(kind, i, "heldout"),), style, PLACES[i // 11 % len(PLACES)], worn, seed=i)


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


@torch.no_grad()
def clip_choice(
    task: Matching, images: np.ndarray, seed: int, split: str, rows: range
) -> dict[str, float | int | None]:
    """How often the true description wins among eight that differ in one factor each, and the mean cosines."""
    model, right, cosines, wrong = task.model.eval(), [], [], []
    for row in rows:
        scene = scene_of(seed, row, split)
        if not scene.subjects or scene.degradation:
            continue
        texts = eight_captions(scene, row)
        ids = torch.from_numpy(encode_captions(task.tokenizer, texts).astype(np.int64))
        w = unit(model.get_text_features(input_ids=ids, attention_mask=torch.ones_like(ids)).pooler_output)
        z = unit(model.get_image_features(pixel_values=to_pixels(images[row : row + 1])).pooler_output)
        scores = (z @ w.T)[0]
        right.append(float(scores.argmax() == 0))
        cosines.append(float(scores[0]))
        wrong.append(float(scores[1:].mean()))
    return {
        "right_of_8": _mean(np.asarray(right)), "n": len(right), "cosine_true": _mean(np.asarray(cosines)),
        "cosine_changed": _mean(np.asarray(wrong)),
    }  # fmt: skip


def unit(x: Tensor) -> Tensor:
    """Rows of length one."""
    return torch.nn.functional.normalize(x.float(), dim=-1)


@torch.no_grad()
def identity_retrieval(task: Recognition, images: np.ndarray, identities: np.ndarray, classes: np.ndarray) -> dict:
    """Nearest other picture of the same identity, by cosine; and mean cosines."""
    task.eval()
    z = torch.cat([task.embed(to_pixels(part)) for part in np.array_split(images, max(1, len(images) // 128))])
    scores = (z @ z.T).numpy()
    same = identities[:, None] == identities[None]
    own = np.eye(len(z), dtype=bool)
    alike = classes[:, None] == classes[None]
    best = np.where(own, -2, scores).argmax(1)
    within = np.where(own | ~alike, -2, scores).argmax(1)
    return {
        "retrieval": _mean(identities[best] == identities), "identities": len(np.unique(identities)),
        "retrieval_within_class": _mean(identities[within] == identities),
        "cosine_same": _mean(scores[same & ~own]), "cosine_same_class": _mean(scores[alike & ~same]),
        "cosine_other_class": _mean(scores[~alike]),
    }  # fmt: skip


__all__ = [
    "SETS", "build_clip_task", "build_identity_task", "build_reader_task", "clip_choice", "identity_retrieval",
    "read_by_style", "reader_accuracy", "unit",
]  # fmt: skip

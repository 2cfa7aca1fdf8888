"""What the scorers learn from: which rows, which labels count, and that a sitting goes on from the shipped weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import palp_lab
from palp_lab.tinyworld import LABELS, Scene, labels, render_set, sample_identity
from palp_lab.tinyworld.pretrain_evaluate import elements_found, true_renders
from palp_lab.tinyworld.pretrain_reader import REPEATS, UNSEEN, label_table, often
from palp_lab.tinyworld.pretrain_scorers import build_clip_task, build_identity_task, build_reader_task

WEIGHTS = Path(palp_lab.__file__).parent / "tinyworld" / "weights"
NAMES = list(LABELS)


def rows_of(*scenes: Scene) -> dict[str, np.ndarray]:
    rows = [labels(scene) for scene in scenes]
    return {name: np.asarray([row[name] for row in rows], np.uint8) for name in LABELS}


def test_side_by_side_the_classes_stand_in_their_own_order() -> None:
    cat, robot = sample_identity("cat", 1), sample_identity("robot", 1)
    beside = Scene((robot, cat), relation="next to")
    before = Scene((robot, cat), relation="in front of")
    table = label_table(rows_of(beside, replace(beside, subjects=(cat, robot)), before))
    pair = table[:, [NAMES.index("class_"), NAMES.index("second_class")]]
    words = [[LABELS["class_"][i] for i in row] for row in pair]
    assert words == [["cat", "robot"], ["cat", "robot"], ["robot", "cat"]]
    colour = NAMES.index("colour")
    assert table[:2, colour].tolist() == [UNSEEN, UNSEEN] and LABELS["colour"][table[2, colour]] == robot.colour


def test_pictures_with_small_things_are_read_more_often() -> None:
    cat = sample_identity("cat", 1)
    alone = Scene((cat,))
    two = Scene((cat, sample_identity("dog", 2)), relation="next to")
    rows = often(rows_of(alone, replace(alone, framing="far away"), replace(alone, framing="dark"), two))
    assert np.bincount(rows).tolist() == [1, REPEATS, 1, REPEATS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pretraining")
    render_set(path / "sets" / "scorers", 48, 5)
    render_set(path / "sets" / "identity", 48, 5, kind="identity")
    return path


@pytest.mark.parametrize(
    ("name", "build", "part"),
    [
        ("reader", build_reader_task, "reader"),
        ("clip", build_clip_task, "model"),
        ("identity", build_identity_task, "model"),
    ],
)
def test_a_scorer_goes_on_from_the_shipped_one(folder: Path, name: str, build, part: str) -> None:
    from safetensors.torch import load_file

    task = build(folder, 12, False, WEIGHTS)
    assert task.history() == json.loads((WEIGHTS / name / "lineage.json").read_text())["segments"]
    model = getattr(task, part).state_dict()
    for key, value in load_file(WEIGHTS / name / "model.safetensors").items():
        assert torch.equal(model[key], value.to(model[key].dtype)), key
    fresh = build(folder, 12, False)
    assert fresh.history() == []
    own = getattr(fresh, part).state_dict()
    assert any(not torch.equal(own[key], model[key]) for key in model)


def test_the_shipped_reader_teaches_where_none_is_trained(folder: Path) -> None:
    (teacher,) = build_clip_task(folder, 4, False, WEIGHTS).teacher
    assert teacher is not None and teacher.fingerprint
    assert build_clip_task(folder, 4, False).teacher == (None,)


class Said:
    """Reads the same words off every picture."""

    def __init__(self, **words: str) -> None:
        self.said = {name: words.get(name, "none") for name in LABELS}

    def words(self, images: torch.Tensor) -> dict[str, list[str]]:
        return {name: [word] * len(images) for name, word in self.said.items()}


def test_a_class_is_found_in_either_place_and_both_are_both() -> None:
    texts = ["a photo of a cat next to a robot", "a photo of a cat"]
    pictures = true_renders(texts)
    assert pictures.shape == (2, 3, 64, 64) and pictures.dtype == torch.uint8
    found = elements_found(Said(style="photo", class_="robot", second_class="cat", relation="next to"), pictures, texts)
    shares = {kind: row["found"] for kind, row in found.items()}
    assert shares == {"style": 1, "class": 1, "second class": 1, "both classes": 1, "relation": 1}
    found = elements_found(Said(style="photo", class_="robot"), pictures, texts)
    shares = {kind: row["found"] for kind, row in found.items()}
    assert shares == {"style": 1, "class": 0, "second class": 1, "both classes": 0, "relation": 0}

"""What all layouts share: held-out photos, shots, captions, the record, and what decides a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from palp_lab import keys
from palp_lab.dataset.concept import with_noun
from palp_lab.dataset.dreambench import DreamBenchDataset
from palp_lab.dataset.folder import FolderDataset
from tests.dataset.pictures import photo, photos, real_photos, said


def folder(path: Path, **how: object) -> FolderDataset:
    return FolderDataset(str(path), "cat", resolution=32, **how)  # type: ignore[arg-type]


def roles(dataset: FolderDataset) -> dict[str, str]:
    return {about.file: about.role for about in dataset.concept().pictures}


def test_the_last_photos_by_name_are_held_out(tmp_path: Path) -> None:
    whole = folder(photos(tmp_path, 5)).concept()
    concept = folder(tmp_path, held_out=2).concept()
    assert torch.equal(concept.photos, whole.photos[:3])
    assert torch.equal(concept.held_out, whole.photos[3:])
    assert concept.notes["held_out"] == "the last 2 of 5 in the order of their names"
    assert roles(folder(tmp_path, held_out=2)) == {
        "00.png": "training", "01.png": "training", "02.png": "training", "03.png": "held_out", "04.png": "held_out",
    }  # fmt: skip
    assert whole.held_out is None
    assert len({one.digest for one in (whole, concept)}) == 2


def test_shots_leave_the_held_out_photos_alone(tmp_path: Path) -> None:
    photos(tmp_path, 5)
    one, three = (folder(tmp_path, held_out=1, shots=n).concept() for n in (1, 3))
    assert (len(one.photos), len(three.photos)) == (1, 3)
    assert torch.equal(one.held_out, three.held_out)
    assert one.notes["unused"] == "01.png, 02.png, 03.png"


def test_from_python_a_path_is_as_good_as_its_text(tmp_path: Path) -> None:
    here, masks, kept = photos(tmp_path / "here", 2), photos(tmp_path / "masks", 2), tmp_path / "kept"
    photo(kept / "other.png", seed=9)
    texts = FolderDataset(str(here), "cat", resolution=32, held_out=str(kept), masks=str(masks)).concept()
    paths = FolderDataset(here, "cat", resolution=32, held_out=kept, masks=masks).concept()
    assert paths.digest == texts.digest and paths.held_out_digest == texts.held_out_digest
    assert paths.held_out is not None and torch.equal(paths.masks, texts.masks)
    assert paths.notes == texts.notes


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"held_out": 3}, "dataset.held_out=3: p has 3 photos, and one at least is trained on; hold out 2 at most"),
        ({"held_out": -1}, "dataset.held_out=-1: must be a number of photos or a folder"),
        ({"shots": 3, "held_out": 1}, "dataset.shots=3: p has 2 photos to train on when 1 are held out"),
        ({"shots": 0}, "dataset.shots=0: must be at least 1"),
        ({"resolution": 16}, "dataset.resolution=16: must be at least 32"),
        ({"masks": "a", "segment": "b"}, "set one of them to null"),
    ],
)
def test_numbers_that_cannot_be(tmp_path: Path, how: dict[str, object], line: str) -> None:
    photos(tmp_path / "p", 3)
    assert line in said(lambda: FolderDataset(str(tmp_path / "p"), "cat", **{"resolution": 32, **how}).concept())


def test_a_held_out_photo_is_never_a_training_photo(tmp_path: Path) -> None:
    photos(tmp_path / "train", 2)
    photo(tmp_path / "other" / "new.png", seed=9)
    concept = folder(tmp_path / "train", held_out=str(tmp_path / "other")).concept()
    assert len(concept.held_out) == 1
    assert concept.notes["held_out"] == "the photos of a folder of their own"
    photo(tmp_path / "other" / "copy.png", seed=1)
    line = said(lambda: folder(tmp_path / "train", held_out=str(tmp_path / "other")).concept())
    assert line == "dataset.held_out: copy.png is the training photo 01.png; hold out another, or none"


def test_captions_beside_the_photos(tmp_path: Path) -> None:
    photos(tmp_path, 3)
    for name, text in (("00", "a photo of {} asleep"), ("01", "sks Cat on a sofa"), ("02", "two dogs and a cat\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    concept = folder(tmp_path, captions=True, token="sks", held_out=1).concept()
    assert concept.captions == ("a photo of {} asleep", "{} on a sofa")
    assert [about.caption for about in concept.pictures] == ["a photo of {} asleep", "{} on a sofa", None]
    assert folder(tmp_path).concept().captions is None
    (tmp_path / "01.txt").write_text("a dog")
    assert "01.txt: 'a dog' names neither the class word 'cat' nor 'sks' nor '<v>'" in said(
        folder(tmp_path, captions=True, token="sks").concept
    )
    (tmp_path / "01.txt").write_text(" \n")
    assert "01.txt: is empty" in said(folder(tmp_path, captions=True).concept)
    (tmp_path / "01.txt").unlink()
    assert "01.txt is not there" in said(folder(tmp_path, captions=True).concept)


def test_the_record_is_plain_and_holds_numbers_and_no_paths(tmp_path: Path) -> None:
    photos(tmp_path, 3)
    record = folder(tmp_path, held_out=1).concept().record()
    assert str(tmp_path) not in json.dumps(record)
    assert (record["photos"], record["held_out"], record["masks"]) == (2, 1, False)
    assert record["pictures"][0] == {
        "file": "00.png", "width": 60, "height": 40, "crop": [10, 0, 50, 40], "side": 32, "done": [],
        "role": "training", "caption": None, "masked_share": None,
    }  # fmt: skip


def test_content_decides_and_paths_do_not(tmp_path: Path) -> None:
    for name in ("one", "two"):
        photos(tmp_path / name, 3)

    def inputs(name: str, **how: object) -> dict[str, object]:
        config = {"dataset": {"path": name, "superclass": "cat", "held_out": 1, "masks": None, **how}}
        return keys.train_inputs(config, "model", folder(tmp_path / name, held_out=1, **how).concept(), None)

    assert inputs("one") == inputs("two")
    for path in sorted((tmp_path / "two").glob("*.png")):
        path.with_suffix(".txt").write_text("a cat")
    called = inputs("two", captions=True)
    (tmp_path / "two" / "00.txt").write_text("the cat")
    assert inputs("two", captions=True) != called
    photo(tmp_path / "two" / "01.png", seed=7)
    assert inputs("one") != inputs("two")


def test_held_out_photos_decide_scores_and_no_training(tmp_path: Path) -> None:
    before = folder(photos(tmp_path, 4), held_out=1).concept()
    photo(tmp_path / "03.png", seed=9)
    after = folder(tmp_path, held_out=1).concept()
    assert keys.describe_concept(before) == keys.describe_concept(after)
    assert keys.score_inputs({}, [], before) != keys.score_inputs({}, [], after)


def test_real_photos_are_divided_and_described() -> None:
    dataset = DreamBenchDataset(str(real_photos()), "duck_toy", resolution=64, held_out=1)
    concept = dataset.concept()
    assert (len(concept.photos), len(concept.held_out)) == (3, 1)
    assert all(about.side == 64 and about.crop[2] - about.crop[0] >= 64 for about in concept.pictures)
    assert concept.photos.float().std() > 20


@pytest.mark.parametrize(
    ("sentence", "filled"),
    [
        ("a sketch of {} in Paris", "a sketch of an owl in Paris"),
        ("{} in the snow", "an owl in the snow"),
        ("a photo of a red {} at night", "a photo of a red owl at night"),
        ("a sketch of a {}", "a sketch of a owl"),  # as it was written
        ("the photo of my {}", "the photo of my owl"),
        ("{}", "owl"),
        ("at night, as in Paris", "at night, as in Paris"),
    ],
)
def test_a_slot_without_an_article_stands_for_the_noun_with_one(sentence: str, filled: str) -> None:
    assert with_noun(sentence, "owl") == filled

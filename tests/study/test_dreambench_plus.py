"""The folders that the judges of DreamBench++ read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from palp_lab.report import report
from palp_lab.study.dreambench_plus import lay_out
from palp_lab.study.ledger import collect
from palp_lab.types import UserError
from tests.study.conftest import CONCEPTS, METHODS, PROMPTS
from tests.study.test_report import configured


def test_every_picture_has_its_photo_and_its_prompt(study_folder: Path, tmp_path: Path) -> None:
    results = [result for result in collect([study_folder]) if result.axes["train_seed"] == 0]
    counts = lay_out(results, tmp_path)
    assert counts == dict.fromkeys(sorted(METHODS), len(CONCEPTS) * len(PROMPTS) * 4)
    captions = sorted((tmp_path / "data" / "captions" / "object").glob("*.txt"))
    photos = sorted((tmp_path / "data" / "images" / "object").glob("*.jpg"))
    assert [path.stem for path in captions] == [path.stem for path in photos] == ["00", "01", "02"]
    for method in METHODS:
        place = tmp_path / "samples" / method
        assert (place / "negative_prompt.txt").read_text() == ""
        names = {
            kind: {str(path.relative_to(place / kind).with_suffix("")) for path in (place / kind).rglob("*.*")}
            for kind in ("src_image", "tgt_image", "text")
        }
        assert names["src_image"] == names["tgt_image"] == names["text"]
        for number, caption in enumerate(captions):
            noun, *prompts = caption.read_text().splitlines()
            assert len(prompts) == len(PROMPTS)
            for i, prompt in enumerate(prompts):
                said = place / "text" / f"object_{number:02d}_{noun}" / f"{i}_0.txt"
                assert said.read_text() == prompt and "{}" not in prompt
    with Image.open(next((tmp_path / "samples" / "palp" / "tgt_image").rglob("*.jpg"))) as picture:
        assert picture.format == "JPEG" and picture.size == (64, 64)


def test_two_datasets_with_a_concept_of_one_name_are_two_subjects(study_folder: Path, tmp_path: Path) -> None:
    results = [result for result in collect([study_folder]) if result.axes["train_seed"] == 0]
    cells = [cell for cell in results if (cell.axes["concept"], cell.axes["method"]) == (CONCEPTS[0], "ti_db")]
    others = [replace(cell, run=f"{cell.run}x", axes={**cell.axes, "dataset": "another"}) for cell in cells]
    assert lay_out([*cells, *others], tmp_path) == {"ti_db": 2 * len(PROMPTS) * 4}
    assert len(list((tmp_path / "data" / "images" / "object").glob("*.jpg"))) == 2
    folders = sorted(path.name for path in (tmp_path / "samples" / "ti_db" / "tgt_image").iterdir())
    assert folders == ["object_00_cat", "object_01_cat"]


def test_the_verb_keeps_training_seeds_apart(study_folder: Path, tmp_path: Path) -> None:
    folder = report(configured([study_folder], tmp_path, dreambench_plus=True))
    methods = {path.name for path in (folder / "samples").iterdir()}
    assert methods == {f"{method}_seed{seed}" for method in METHODS for seed in (0, 1)}


def test_without_pictures_there_is_nothing_to_judge(study_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs pictures"):
        lay_out([result.compact() for result in collect([study_folder])], tmp_path)

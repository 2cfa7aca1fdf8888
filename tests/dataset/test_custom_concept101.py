"""CustomConcept101's list of concepts."""

from __future__ import annotations

import json
from pathlib import Path

from palp_lab.dataset.custom_concept101 import CustomConcept101Dataset, find_entry, read_prompts
from tests.dataset.pictures import photos, said


def entry(name: str, noun: str, prompt: str, prompts: str = "prompts/cat.txt") -> dict[str, str]:
    return {
        "instance_prompt": prompt, "class_prompt": noun, "instance_data_dir": f"./benchmark_dataset/{name}",
        "class_data_dir": f"./regularization/{name}", "prompt_filename": prompts,
    }  # fmt: skip


def dataset(folder: Path) -> Path:
    """A root with three concepts, one of them with photos and prompts."""
    listed = [
        entry("pet_cat1", "cat", "photo of a <new1> cat"),
        entry("wearable_sunglasses1", "sunglasses", "photo of <new1> sunglasses"),
        entry("plushie_dice", "dice", "photo of a <new1> dice plushie", "prompts/none.txt"),
    ]
    (folder / "dataset.json").write_text(json.dumps(listed))
    (folder / "prompts").mkdir()
    (folder / "prompts/cat.txt").write_text("photo of a {}.\n{} swimming in a pool. \n\n")
    photos(folder / "benchmark_dataset/pet_cat1", 3)
    return folder


def open_concept(path: Path, name: str | None, **how: object) -> CustomConcept101Dataset:
    return CustomConcept101Dataset(str(path), name, resolution=32, **how)  # type: ignore[arg-type]


def test_a_concept_with_its_class_and_its_caption(tmp_path: Path) -> None:
    concept = open_concept(dataset(tmp_path), "pet_cat1", captions=True, held_out=1).concept()
    assert (concept.name, concept.superclass) == ("pet_cat1", "cat")
    assert concept.captions == ("photo of a {}",) * 2
    assert len(concept.photos) == 2
    assert open_concept(tmp_path, "pet_cat1").concept().captions is None
    assert find_entry(str(tmp_path / "dataset.json"), "pet_cat1") == find_entry(str(tmp_path), "pet_cat1")


def test_captions_as_the_list_has_them(tmp_path: Path) -> None:
    """Without an article, and where the class word is not the whole noun."""
    dataset(tmp_path)
    assert find_entry(str(tmp_path), "wearable_sunglasses1").caption == "photo of {}"
    assert find_entry(str(tmp_path), "plushie_dice").caption == "photo of a {} plushie"


def test_prompts(tmp_path: Path) -> None:
    dataset(tmp_path)
    assert read_prompts(find_entry(str(tmp_path), "pet_cat1")) == ("photo of a {}.", "{} swimming in a pool.")
    assert "none.txt is not there" in said(lambda: read_prompts(find_entry(str(tmp_path), "plushie_dice")))
    (tmp_path / "prompts/cat.txt").write_text("a cat")
    assert "needs exactly one {}" in said(lambda: read_prompts(find_entry(str(tmp_path), "pet_cat1")))


def test_what_is_refused(tmp_path: Path) -> None:
    dataset(tmp_path)
    assert "dataset.concept=pet_cat2: is not in" in said(lambda: open_concept(tmp_path, "pet_cat2"))
    assert "did you mean pet_cat1?" in said(lambda: open_concept(tmp_path, "pet_cat2"))
    assert "choose one of pet_cat1, plushie_dice" in said(lambda: open_concept(tmp_path, None))
    assert "one concept is learned at a time" in said(lambda: open_concept(tmp_path, "pet_cat1+plushie_dice"))
    assert "is not there" in said(lambda: open_concept(tmp_path / "prompts", "pet_cat1"))
    assert "no such folder" in said(open_concept(tmp_path, "plushie_dice").concept)
    several = tmp_path / "dataset_multiconcept.json"
    several.write_text(json.dumps([[entry("a", "cat", "x"), entry("b", "dog", "y"), {"prompt_filename_compose": "z"}]]))
    assert "lists 1 combinations of several concepts" in said(lambda: open_concept(several, "a"))
    two = "photo of a <new1> cat and a <new2> dog"
    (tmp_path / "dataset.json").write_text(json.dumps([entry("both", "cat", two)]))
    assert "both learns <new1>, <new2>" in said(lambda: open_concept(tmp_path, "both"))
    (tmp_path / "dataset.json").write_text(json.dumps([{"class_prompt": "cat"}]))
    assert "an entry has no instance_data_dir" in said(lambda: open_concept(tmp_path, "both"))
    (tmp_path / "dataset.json").write_text("{")
    assert "cannot be read as JSON" in said(lambda: open_concept(tmp_path, "both"))

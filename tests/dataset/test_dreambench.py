"""The DreamBooth dataset: its table, its two lists of prompts, and their quirks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from palp_lab.composition import compose, conf_folder
from palp_lab.dataset.dreambench import TABLE, DreamBenchDataset, kind_of, read_classes, read_prompts
from tests.dataset.pictures import photo, real_photos, said

TEXT = """Classes

subject_name,class
cat,cat
bear, stuffed animal

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token),
"a {0} {1} in someone's  garden".format(unique_token, class_token), 'a red {0} {1}'.format(unique_token, class_token)
]

Live Subject Prompts:

prompt_list = [
  'a {0} {1} wearing a red hat' .format(unique_token, class_token)
  'a wet {0} {1}'.format(unique_token, class_token)]
"""


def table(folder: Path, text: str = TEXT, newline: str = "\n") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / TABLE).write_bytes(text.replace("\n", newline).encode("utf-8-sig"))
    return folder / TABLE


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_classes_and_prompts_are_read_from_the_file(tmp_path: Path, newline: str) -> None:
    """Marks at the start, other line ends, either quote, two prompts in a line, a missing comma."""
    path = table(tmp_path, newline=newline)
    assert read_classes(path) == {"cat": "cat", "bear": "stuffed animal"}
    assert read_prompts(path) == {
        "object": ("a {} in the jungle", "a {} in someone's garden", "a red {}"),
        "live": ("a {} wearing a red hat", "a wet {}"),
    }


def test_the_class_noun_comes_from_the_table(tmp_path: Path) -> None:
    table(tmp_path)
    photo(tmp_path / "bear/00.jpg")
    concept = DreamBenchDataset(str(tmp_path), "bear", resolution=32).concept()
    assert (concept.name, concept.superclass) == ("bear", "stuffed animal")
    assert "dataset.subject=dog: must be one of bear, cat" in said(DreamBenchDataset(str(tmp_path), "dog").concept)
    assert "dataset.root: has no value" in said(DreamBenchDataset(None).concept)
    assert f"dataset.subject={tmp_path / 'cat'}: no such folder" in said(DreamBenchDataset(str(tmp_path)).concept)


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "is not there; dataset.root must hold" in said(lambda: read_classes(tmp_path / TABLE))
    path = table(tmp_path, TEXT.replace("subject_name,class", "names"))
    assert "has no table" in said(lambda: read_classes(path))
    table(tmp_path, TEXT.replace("Live Subject", "Lively"))
    assert "has no list 'Live Subject Prompts'" in said(lambda: read_prompts(path))
    table(tmp_path, TEXT.replace("a red {0} {1}", "a {0} red {1}"))
    assert "'a {0} red {1}' needs {0} {1}" in said(lambda: read_prompts(path))
    table(tmp_path, "subject_name,class\n\nPrompts")
    assert "is empty" in said(lambda: read_classes(path))


def test_the_dataset_itself() -> None:
    """30 subjects, 9 of them live, 25 prompts each: arXiv 2208.12242, section 4."""
    root = real_photos()
    classes, prompts = read_classes(root / TABLE), read_prompts(root / TABLE)
    assert len(classes) == 30
    assert {name for name in classes if (root / name).is_dir()} == set(classes)
    live = [name for name, noun in classes.items() if kind_of(noun) == "live"]
    assert live == ["cat", "cat2", "dog", "dog2", "dog3", "dog5", "dog6", "dog7", "dog8"]
    assert {kind: len(some) for kind, some in prompts.items()} == {"object": 25, "live": 25}
    assert "a {} in a chef outfit" in prompts["live"]
    assert "a {} floating in an ocean of milk" in prompts["object"]
    assert classes["wolf_plushie"] == "stuffed animal"
    swept = OmegaConf.load(conf_folder() / "study/dreambench.yaml").hydra.sweeper.params["dataset.subject"]
    assert swept.split(",") == list(classes), "the study lists the file's subjects"


def test_the_study_is_the_paper_s_protocol_with_held_out_photos() -> None:
    config = compose("run", "study=dreambench", "dataset.root=somewhere")
    assert (config.labels.dataset, config.generate.seeds, config.dataset.held_out) == ("dreambench", 4, 1)
    assert config.prompts.subject == config.dataset.subject == "cat"
    assert compose("run", "study=dreambench", "model=tiny", "dataset.root=x").labels.model == "tiny"


@pytest.mark.slow
def test_the_study_lists_its_cells(tmp_path: Path) -> None:
    """30 subjects, from the command to the plan, on the embedded model."""
    from tests.micro_lab import environment

    words = ["-m", "study=dreambench", f"dataset.root={real_photos()}", "model=tiny", "metrics=tiny", "method=ti_db"]
    words += [f"output={tmp_path}", "dry_run=true"]
    done = subprocess.run(
        [sys.executable, "-m", "palp_lab", "run", *words],
        capture_output=True, text=True, env=environment(), timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "90 cells, " in done.stdout, "three training seeds of each"
    assert len([line for line in done.stdout.splitlines() if "  ti_db  " in line]) == 90

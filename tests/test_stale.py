"""Nothing that was made before answers for what is asked now: what changes a result changes the key it is kept by."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from palp_lab import keys, parts
from palp_lab.cell import Cell
from palp_lab.memory import known_result
from palp_lab.metrics.alignment import TextAlignment
from palp_lab.metrics.base import AbstractMetric
from palp_lab.metrics.protocols import Protocol
from palp_lab.model import open_model
from palp_lab.result_folder import result_folder
from palp_lab.run import run
from palp_lab.study.result import Result, load_result
from tests.dataset.pictures import photos
from tests.micro_lab import MicroLab, micro_lab  # noqa: F401

OWN_DATASET = """
from palp_lab.dataset.tiny import TinyDataset

class Own(TinyDataset):
    def true_renders(self, sentence, seeds):
        return super().true_renders(sentence, seeds)
"""
OWN_MODEL = """
from palp_lab.model import open_model

def own(path, device="cpu", dtype="float32", **options):
    model = open_model(path, device, dtype)
    return model
"""


def cell(lab: MicroLab, folder: Path, *overrides: str) -> Cell:
    return Cell(lab.compose("method=ti_db", f"output={folder}", *overrides))


def keys_of(made: Cell) -> dict[str, str]:
    steps: dict[str, int | str] = {"train": 0, "pictures": "class_word", "scores": made.steps[-1], "bounds": 0}
    return {"run": made.run, **{kind: made.stage_key(kind, step) for kind, step in steps.items()}}


def differing(one: Cell, other: Cell) -> set[str]:
    return {kind for kind, key in keys_of(one).items() if keys_of(other)[kind] != key}


def test_which_bounds_are_asked_for_decides_bounds_alone(micro_lab: MicroLab, tmp_path: Path) -> None:  # noqa: F811
    whole, few = cell(micro_lab, tmp_path), cell(micro_lab, tmp_path, "+metrics.bounds=[training_photos]")
    assert differing(whole, few) == {"run", "bounds"}


def test_which_drift_a_prompt_shows_decides_scores(micro_lab: MicroLab, tmp_path: Path) -> None:  # noqa: F811
    """The same words for both columns: only what is said of them differs."""
    named = cell(micro_lab, tmp_path)
    other = ("prompts.drift_with_class_word=[]", '+prompts.drift_without_class_word=["a photo of a cat"]')
    assert {"run", "scores"} <= differing(named, cell(micro_lab, tmp_path, *other))


@pytest.mark.parametrize("stage", ["pictures", "scores"])
def test_a_stage_of_another_version_is_another_cell(
    stage: str,
    micro_lab: MicroLab,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or a ledger would answer with what the mended code no longer gives."""
    before = keys_of(cell(micro_lab, tmp_path))
    monkeypatch.setitem(keys.VERSIONS, stage, keys.VERSIONS[stage] + 1)
    after = keys_of(cell(micro_lab, tmp_path))
    assert after["run"] != before["run"] and after[stage] != before[stage] and after["train"] == before["train"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of one's own parts, on the path while the test runs."""
    folder = tmp_path / "stale_own"
    folder.mkdir()
    (folder / "dataset.py").write_text(OWN_DATASET)
    (folder / "model.py").write_text(OWN_MODEL)
    monkeypatch.setenv("PALP_LAB_TARGETS", "stale_own")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield folder
    for name in [name for name in sys.modules if name.startswith("stale_own")]:
        del sys.modules[name]
    parts._open.clear()


@pytest.mark.parametrize(
    ("part", "line", "mended", "decides"),
    [
        (
            "dataset", "super().true_renders(sentence, seeds)", "super().true_renders(sentence, seeds).flip(-1)",
            {"run", "train", "scores", "bounds"},
        ),
        (
            "model", "return model", "model.resolution = model.resolution\n    return model",
            {"run", "train", "pictures", "scores", "bounds"},
        ),
    ],
)  # fmt: skip
def test_a_part_of_ones_own_that_was_mended_is_asked_again(
    part: str,
    line: str,
    mended: str,
    decides: set[str],
    own: Path,
    micro_lab: MicroLab,  # noqa: F811
    tmp_path: Path,
) -> None:
    target = {"dataset": "dataset._target_=stale_own.dataset.Own", "model": "model._target_=stale_own.model.own"}[part]

    def opened() -> dict[str, str]:
        parts._open.clear()
        return keys_of(cell(micro_lab, tmp_path, target))

    before = opened()
    path = own / f"{part}.py"
    path.write_text(path.read_text().replace(line, mended))
    importlib.reload(sys.modules[f"stale_own.{part}"])
    after = opened()
    assert {kind for kind in before if before[kind] != after[kind]} == decides


class Bright(AbstractMetric):
    """A metric of one's own that is no dataclass."""

    name, axis, level, higher_is_better = "bright", "text", "image", True  # type: ignore[assignment]

    def __init__(self, threshold: float) -> None:
        self.threshold, self.table = threshold, torch.zeros(2)

    def measure(self, evidence: Any) -> Any:
        raise NotImplementedError


def test_what_a_metric_is_built_with_decides_its_numbers() -> None:
    def settings(metric: AbstractMetric) -> str:
        return Protocol("own", "1", {"clip": None}, {"m": metric}, None).hashes()["settings"]

    assert settings(Bright(0.1)) == settings(Bright(0.1)) != settings(Bright(0.9))
    assert settings(TextAlignment("clip")) == settings(TextAlignment("clip"))


def test_another_padding_is_another_model(micro_path: Path, tmp_path: Path) -> None:
    """ "!" or the end of text: the words of a prompt are the same, what the denoiser reads is not."""
    copy = shutil.copytree(micro_path, tmp_path / "model")
    told = copy / "tokenizer" / "tokenizer_config.json"
    mine = open_model(micro_path)
    words = json.loads(told.read_text())
    words["pad_token"] = mine.text.tokenizer.convert_ids_to_tokens([0])[0]
    told.write_text(json.dumps(words))
    other = open_model(copy)
    assert not torch.equal(mine.base_text(["a cat"]).tokens, other.base_text(["a cat"]).tokens)
    assert mine.fingerprint != other.fingerprint


@dataclass(frozen=True)
class Asked:
    """The same photos under two nouns, or two descriptions, and one ledger."""

    one: tuple[str, ...]
    other: tuple[str, ...]


@pytest.mark.parametrize(
    "asked",
    [
        Asked(("dataset.superclass=cat",), ("dataset.superclass=dog",)),
        Asked(
            ("dataset.superclass=cat", "dataset.description=spotted red cat"),
            ("dataset.superclass=cat", "dataset.description=plain blue cat"),
        ),
    ],
    ids=["noun", "description"],
)
def test_a_ledger_never_answers_with_the_bounds_of_other_words(
    asked: Asked,
    micro_lab: MicroLab,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The untuned model asked for a cat is no bound of a dog, though the photos are the same."""
    photos(tmp_path / "photos", 2)
    place = ("dataset=folder", f"dataset.path={tmp_path / 'photos'}", f"ledger={tmp_path / 'results.jsonl'}")

    def made(*words: str) -> tuple[Result, Result | None]:
        config = micro_lab.compose("method=ti_db", f"output={tmp_path}", *place, *words)
        run(config)
        found = Cell(config)
        return load_result(result_folder(found) / "result.json"), known_result(found)

    for fresh, known in (made(*asked.one), made(*asked.other)):
        assert known is not None and len(known.bounds) == len(fresh.bounds)
        theirs = {(b.name, b.prompt): b.metrics["text_alignment"].value for b in known.bounds}
        for bound in fresh.bounds:
            assert theirs[bound.name, bound.prompt] == pytest.approx(bound.metrics["text_alignment"].value, abs=1e-5)

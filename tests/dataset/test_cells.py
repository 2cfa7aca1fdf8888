"""Photos on disk through a whole cell: captions and masks train it, held-out photos score it, the result tells."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from palp_lab import parts
from palp_lab.cell import Cell
from palp_lab.dataset.concept import AbstractDataset
from palp_lab.dataset.imagefolder import METADATA
from palp_lab.engine.feed import Feed
from palp_lab.result_folder import RESULT, result_folder
from palp_lab.run import run
from palp_lab.study.result import load_result
from palp_lab.types import UserError
from tests.dataset.pictures import photos
from tests.micro_lab import MicroLab


def folder(root: Path) -> Path:
    photos(root / "photos", 3)
    texts = ("a cat asleep", "the cat on a sofa", "a cat at night")
    lines = [f'{{"file_name": "{i:02}.png", "text": "{text}"}}' for i, text in enumerate(texts)]
    (root / "photos" / METADATA).write_text("\n".join(lines))
    (root / "masks").mkdir()
    for number in range(2):
        mask = Image.new("L", (60, 40), 0)
        mask.paste(255, (15, 0, 45, 40))
        mask.save(root / "masks" / f"{number:02}.png")
    return root


def overrides(root: Path, output: Path) -> list[str]:
    return [
        "dataset=imagefolder", f"dataset.path={root / 'photos'}", "dataset.superclass=cat", "dataset.resolution=32",
        "dataset.held_out=1", f"dataset.masks={root / 'masks'}", "method=ti_db", "losses.reconstruction.masked=true",
        f"output={output}", "trainer.max_steps=2",
    ]  # fmt: skip


def test_a_cell_of_photos(micro_lab: MicroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    real = Feed.draw
    monkeypatch.setattr(Feed, "draw", lambda self, *given: drawn.append(real(self, *given)) or drawn[-1])
    config = micro_lab.compose(*overrides(folder(tmp_path / "here"), tmp_path / "output"))
    run(config)
    assert {sentence for draw in drawn for sentence in draw.sentences} == {"a {} asleep", "the {} on a sofa"}
    assert all(torch.is_tensor(draw.mask) and 0 < draw.mask.mean() < 1 for draw in drawn)
    result = load_result(result_folder(cell := Cell(config)) / RESULT)
    assert (result.data["photos"], result.data["held_out"], result.data["masks"]) == (2, 1, True)
    assert result.data["notes"] == {
        "held_out": "the last 1 of 3 in the order of their names", "masks": "from a folder of their own",
    }  # fmt: skip
    assert result.data["pictures"][1] == {
        "file": "01.png", "width": 60, "height": 40, "crop": [10, 0, 50, 40], "side": 32, "done": [],
        "role": "training", "caption": "the {} on a sofa", "masked_share": 0.75,
    }  # fmt: skip
    assert {bound.name for bound in result.bounds} >= {"held_out_photos", "training_photos"}
    moved = shutil.copytree(tmp_path / "here", tmp_path / "there")
    again = Cell(micro_lab.compose(*overrides(moved, tmp_path / "output")))
    assert again.run == cell.run, "the same photos elsewhere are the same cell"
    text = (moved / "photos" / METADATA).read_text()
    (moved / "photos" / METADATA).write_text(text.replace("asleep", "awake"))
    parts._open.clear()  # a process reads photos once
    other = Cell(micro_lab.compose(*overrides(moved, tmp_path / "output")))
    assert other.stage_key("train") != cell.stage_key("train")


def test_a_recipe_of_the_target_needs_no_captions(micro_lab: MicroLab, tmp_path: Path) -> None:
    given = overrides(folder(tmp_path / "here"), tmp_path / "output")
    target = "target='a sketch of a {} in the snow'"
    with pytest.raises(UserError, match=r"dataset\.captions: this recipe calls the photos by the target"):
        run(micro_lab.compose(*given, "method=target_as_caption", target))


def test_prompts_of_a_file_are_part_of_the_cell(micro_lab: MicroLab, tmp_path: Path) -> None:
    """The same file elsewhere is the same cell; another sentence under the same name is another."""
    from tests.dataset.test_dreambench import TEXT, table

    runs = []
    for name, text in (("one", TEXT), ("two", TEXT), ("three", TEXT.replace("a wet", "a dry"))):
        table(tmp_path / name, text)
        photos(tmp_path / name / "cat", 2)
        given = ("dataset=dreambench", "prompts=dreambench", f"dataset.root={tmp_path / name}", "dataset.resolution=32")
        runs.append(Cell(micro_lab.compose(*given, "dataset.shots=null", "method=ti_db")).run)
    assert runs[0] == runs[1] != runs[2]


def test_steps_that_are_not_reached_change_no_cell(
    micro_lab: MicroLab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [*overrides(folder(tmp_path / "here"), tmp_path / "output"), "trainer.max_steps=4"]
    one, other = (Cell(micro_lab.compose(*words, f"checkpoints={given}")) for given in ("[2]", "[2,4,50]"))
    assert one.steps == other.steps == [2, 4] and one.run == other.run
    assert one.stage_key("train") == other.stage_key("train")
    assert "checkpoints: step 50 is not reached with trainer.max_steps=4, and left out" in caplog.text
    with pytest.raises(UserError, match="checkpoints: -1 is no step"):
        Cell(micro_lab.compose(*words, "checkpoints=[-1]"))


def test_scorers_that_are_not_here_are_told_where_there_are_some(
    micro_lab: MicroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = micro_lab.compose(*overrides(folder(tmp_path / "here"), tmp_path / "output"))
    config.metrics.embedders.clip.path = str(tmp_path / "nowhere")
    parts._open.clear()
    with pytest.raises(UserError, match=r"metrics\.embedders\.clip.*nowhere") as told:
        parts.open_protocol(config)
    assert "metrics=tiny" not in str(told.value), "the micro model is none of the embedded world"
    config.model.path = "tiny"
    with pytest.raises(UserError, match="; metrics=tiny measures with the scorers of the embedded world"):
        parts.open_protocol(config)


def test_a_dataset_of_another_kind_is_refused(micro_lab: MicroLab, tmp_path: Path) -> None:
    config = micro_lab.compose(*overrides(folder(tmp_path / "here"), tmp_path / "output"))
    assert isinstance(parts.open_dataset(config), AbstractDataset)
    with pytest.raises(UserError, match=r"dataset: builtins\.dict must inherit from palp_lab\.dataset\.concept\."):
        parts.inheriting({}, AbstractDataset, "dataset")


def test_photos_that_are_changed_between_two_cells_of_a_process_are_read_again(
    micro_lab: MicroLab, tmp_path: Path
) -> None:
    """As in a notebook: another number of them, another content, a mask, a caption."""
    words = [*overrides(folder(tmp_path), tmp_path / "out"), "method=ti_db"]

    def cell() -> Cell:
        return Cell(micro_lab.compose(*words))

    first = cell()
    assert cell().concept is first.concept, "photos that stay are read once for all cells of a sweep"
    Image.new("L", (60, 40), 255).save(tmp_path / "masks" / "00.png")
    masked = cell()
    assert masked.concept.digest != first.concept.digest and masked.run != first.run
    told = tmp_path / "photos" / METADATA
    told.write_text(told.read_text().replace("asleep", "awake"))
    assert cell().concept.captions != first.concept.captions

"""Which pictures and logs go into which row: what has a curve of its own has a row of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from PIL import Image

from palp_lab.study.gathering import sheet_blocks, strip_rows, training_logs
from palp_lab.study.result import Result


def pictured(cell: Result, folder: Path, colour: str) -> Result:
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8), colour).save(folder / "0.png")
    records = tuple(replace(record, images=("0.png",)) for record in cell.records)
    return replace(cell, records=records, folder=folder)


def test_two_settings_of_a_method_have_a_row_and_a_log_each(study: list[Result], tmp_path: Path) -> None:
    """Once the sheet showed one row for both, with the pictures of either."""
    first, second = [cell for cell in study if cell.axes["method"] == "ti_db"][:1] * 2
    log = {"columns": {"step": [0, 1], "reconstruction/value": [1.0, 0.5]}}
    plain = replace(pictured(first, tmp_path / "a", "red"), training_log=log)
    with_term = replace(
        pictured(second, tmp_path / "b", "blue"),
        run="another",
        axes={**second.axes, "losses": "[reconstruction,key_locking]"},
        training_log=log,
    )
    prompt = first.records[0].prompt
    (block,) = sheet_blocks([plain, with_term], [prompt])
    shown = {row.label: row.pictures[0] for row in block.rows}
    assert shown["TI + DB"] == (tmp_path / "a" / "0.png",)
    assert shown["TI + DB · reconstruction + key locking"] == (tmp_path / "b" / "0.png",)
    assert set(training_logs([plain, with_term])) == {"ti_db", "ti_db · losses [reconstruction,key_locking]"}


def test_two_datasets_with_a_concept_of_one_name_have_a_block_each(study: list[Result], tmp_path: Path) -> None:
    """Side by side in one block they were pictures of one animal by one method, of another by the next."""
    cells = {str(cell.axes["method"]): cell for cell in study}
    mine = pictured(cells["palp"], tmp_path / "a", "red")
    theirs = pictured(cells["ti_db"], tmp_path / "b", "blue")
    other = replace(theirs, axes={**theirs.axes, "dataset": "dreambench"})
    concept, prompt = mine.axes["concept"], mine.records[0].prompt
    blocks = sheet_blocks([mine, other], [prompt])
    assert [block.heading for block in blocks] == [f"{concept} (dreambench)", f"{concept} (tiny)"]
    assert [[row.pictures[0][0].parent.name for row in block.rows] for block in blocks] == [["b"], ["a"]]
    (block,) = sheet_blocks([mine, theirs], [prompt])
    assert (block.heading, len(block.rows)) == (concept, 2), "one dataset: nothing to tell apart"


def test_the_strip_shows_one_subject(study: list[Result], tmp_path: Path) -> None:
    cells = []
    for name, dataset in (("palp", "tiny"), ("ti_db", "dreambench")):
        cell = next(cell for cell in study if cell.axes["method"] == name)
        cell = replace(pictured(cell, tmp_path / name, "red"), axes={**cell.axes, "dataset": dataset, "concept": "cat"})
        said = {"caption": "one noise", "sentence": "a photo of {}", "pictures": {name: {"0": "0.png"}}}
        (tmp_path / name / "strip.json").write_text(json.dumps(said))
        cells.append(cell)
    found = strip_rows(cells)
    assert found is not None and [label for label, _, _ in found[0]] == ["TI + DB"] and found[2] == ["PALP"]
    found = strip_rows([replace(cell, axes={**cell.axes, "dataset": "tiny"}) for cell in cells])
    assert found is not None and [label for label, _, _ in found[0]] == ["TI + DB", "PALP"] and not found[2]


def test_the_sheet_shows_the_setting_that_the_tables_hold(study: list[Result], tmp_path: Path) -> None:
    """Two settings as often as each other: which was shown hung on the order of the records."""
    cells = {str(cell.axes["method"]): cell for cell in study if cell.axes["concept"] == study[0].axes["concept"]}

    def at(name: str, *guidances: float) -> Result:
        cell = pictured(cells[name], tmp_path / name, "red")
        knobs = [{"guidance": guidance, "strength": 1.0} for guidance in guidances]
        pairs = [(record, setting) for setting in knobs for record in cell.records]
        records = [replace(r, knobs=told, images=(f"{told['guidance']}.png",)) for r, told in pairs]
        bounds = [replace(bound, images=(f"{guidances[0]}.png",)) for bound in cell.bounds]
        return replace(cell, records=tuple(records), bounds=tuple(bounds))

    results = [at("ti_db", 3.0, 7.5), at("textual_inversion", 3.0), at("palp", 7.5)]
    prompt = cells["palp"].axes["target"]
    for some in (results, results[::-1]):
        (block,) = sheet_blocks(some, [str(prompt)])
        shown = {row.label: ([path.stem for path in row.pictures[0]], row.note) for row in block.rows}
        assert shown["TI + DB"] == (["7.5"], "step 500")
        assert shown["PALP"] == (["7.5"], "step 500, tuned for each prompt")
        assert shown["Textual Inversion"] == (["3.0"], "step 500, guidance 3, strength 1")
        assert shown["class word"][0] == ["7.5"]

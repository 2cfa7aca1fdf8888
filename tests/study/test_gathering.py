"""Which pictures and logs go into which row: what has a curve of its own has a row of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from palp_lab.study.gathering import sheet_blocks, training_logs
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

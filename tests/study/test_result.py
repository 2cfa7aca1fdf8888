"""The schema of result.json: what is written is read back, what is wrong is named by file and key."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palp_lab.study.result import MetricValue, Result, load_result, save_result
from palp_lab.types import UserError


@pytest.fixture
def result(cell: Callable[..., Result]) -> Result:
    return cell("palp", "cat 11", 0, "a sketch of {} in Paris")


def test_a_result_survives_the_file(result: Result, tmp_path: Path) -> None:
    path = save_result(result, tmp_path / "deep" / "result.json")
    again = load_result(path)
    assert again == result
    assert again.folder == path.parent
    assert [file.name for file in path.parent.iterdir()] == ["result.json"], "no temporary file stays"


def test_not_measured_is_null_in_the_file(result: Result) -> None:
    metrics = json.loads(result.to_json())["records"][0]["metrics"]
    assert metrics["drift_without_class_word"] == {"level": "set", "value": None, "per_image": None, "n": 0}


def test_nan_is_refused_when_writing(result: Result) -> None:
    bad = replace(result.records[0], metrics={"identity": MetricValue("image", float("nan"), None, 1)})
    with pytest.raises(
        UserError, match=r"records\[0\]\.metrics\.identity\.value is nan; what was not measured is null"
    ):
        replace(result, records=(bad,)).to_json()


def change(result: Result, edit: Callable[[dict[str, Any]], object]) -> str:
    values = json.loads(result.to_json())
    edit(values)
    return json.dumps(values)


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda v: v.update(schema="palp_lab.result/9"), "schema is 'palp_lab.result/9', this version reads"),
        (lambda v: v.pop("run"), "run is missing"),
        (lambda v: v.update(recrods=[]), "recrods is not a key of this schema; did you mean 'records'?"),
        (lambda v: v["axes"].pop("method"), "axes.method is missing"),
        (
            lambda v: v["records"][2].update(step="ten"),
            r"records\[2\].step must be a whole number of at least 0, found 'ten'",
        ),
        (lambda v: v["records"][0].update(own_target=1), r"records\[0\].own_target must be true or false, found 1"),
        (
            lambda v: v["records"][1]["metrics"]["copy"].update(level="picture"),
            r"records\[1\].metrics.copy.level must be one of image, pair, set, found 'picture'",
        ),
        (lambda v: v["bounds"][0].update(name="clas_word"), r"bounds\[0\].name must be one of class_word"),
        (lambda v: v["cost"].update(seconds=float("inf")), "cost.seconds is inf; what was not measured is null"),
        (lambda v: v.update(records={}), "records must be a list, found an object"),
    ],
)
def test_what_is_wrong_is_named(result: Result, edit: Callable[[dict[str, Any]], object], line: str) -> None:
    with pytest.raises(UserError, match=f"^here.json: {line}") as caught:
        Result.from_json(change(result, edit), where="here.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"schema": 1}'])
def test_what_is_not_a_result_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"result\.json: "):
        load_result(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_result(tmp_path / "result.json")


def test_compact_keeps_the_numbers_and_drops_the_paths(result: Result) -> None:
    pictured = replace(result, records=(replace(result.records[0], images=("images/a.png",)),))
    compact = pictured.compact()
    assert compact.records[0].images == ()
    assert compact.records[0].metrics == pictured.records[0].metrics
    assert compact.training_log is None

"""Every metric that can be asked for has a direction, the one its own class says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from palp_lab.build import build
from palp_lab.composition import conf_folder
from palp_lab.study.directions import direction_of

PRESETS = sorted((conf_folder() / "metrics").glob("*.yaml"))
SCHEMA = Path(__file__).parents[2] / "docs" / "result_schema.md"


def asked_for(preset: Path) -> dict[str, Any]:
    """The metrics a preset names, as they lie in its file."""
    return dict(OmegaConf.load(preset).get("metrics") or {})


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_metric_of_a_preset_has_the_direction_of_its_class(preset: Path) -> None:
    said = {}
    for name, node in asked_for(preset).items():
        metric = build(node, f"metrics.metrics.{name}")
        for called in getattr(metric, "names", None) or (name,):
            said[called] = metric.higher_is_better
    assert said
    assert {name: direction_of(name).higher_is_better for name in said} == said


def test_the_schema_s_table_says_the_same_and_forgets_none() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (higher|lower|neither) \|", SCHEMA.read_text(encoding="utf-8"), re.M)
    listed = {name: better for names, better in rows for name in re.findall(r"\w+", names)}
    words = {True: "higher", False: "lower", None: "neither"}
    assert listed == {name: words[direction_of(name).higher_is_better] for name in listed}
    assert {name for preset in PRESETS for name in asked_for(preset)} - {"drift"} <= set(listed)

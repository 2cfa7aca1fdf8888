"""Which parts train when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from palp_lab.adapter import read_adapter
from palp_lab.engine.stages import Stage, Stages
from palp_lab.types import Kind, UserError
from tests.losses.toy import ToyEdits, toy_adapter


def test_a_stage_lasts_until_its_step() -> None:
    stages = Stages([{"trains": "tokens", "until": 3}, {"trains": ["edits"], "until": 5}, {}])
    assert [stages.at(step).trains for step in (0, 2, 3, 4, 5, 99)] == [
        ("tokens",), ("tokens",), ("edits",), ("edits",), ("tokens", "edits"), ("tokens", "edits"),
    ]  # fmt: skip
    assert Stages().at(0) == Stage()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"trains": "words"}], "trains=words"),
        ([{"trains": "tokens"}, {}], "rising order"),
        ([{"until": 5}, {"until": 3}, {}], "rising order"),
        ([{"trains": "tokens", "until": 3}, {"until": 6}], "the last one has none"),
        ([{"train": "tokens", "until": 3}, {"trains": "edits"}], "train is no key of a stage; there are trains and"),
        ([{"trains": "edits", "lr": 1e-3}], "lr is no key of a stage"),
        *(([{"until": until}, {}], f"until={until}: must be a whole number") for until in (0, -4, 2.5, "3", True)),
    ],
)
def test_wrong_rows_are_named(rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(UserError, match=f"stages: .*{said}"):
        Stages(rows)


def test_frozen_parts_do_not_move_by_a_bit(train: Any) -> None:
    outcome = train(given={"stages": [{"trains": "tokens", "until": 3}, {"trains": "edits"}], "steps": [3]})
    middle, last = (read_adapter(outcome.adapters[step])[0] for step in (3, 6))
    start = dict(toy_adapter(Kind.V, moved=False).parts())
    assert torch.equal(middle["edits.up"], start["edits.up"])
    assert not torch.equal(middle["tokens.vector"], start["tokens.vector"])
    assert torch.equal(middle["tokens.vector"], last["tokens.vector"])
    assert not torch.equal(middle["edits.up"], last["edits.up"])


def test_stages_count_steps_and_not_micro_batches(train: Any) -> None:
    given = {"stages": [{"trains": "tokens", "until": 3}, {"trains": "edits"}], "steps": [3]}
    middle = read_adapter(train(given=given, accumulate=2).adapters[3])[0]
    start = dict(toy_adapter(Kind.V, moved=False).parts())
    assert torch.equal(middle["edits.up"], start["edits.up"])
    assert not torch.equal(middle["tokens.vector"], start["tokens.vector"])


def test_a_stage_that_is_never_reached_is_said(train: Any) -> None:
    stages = [{"trains": "tokens", "until": 6}, {"trains": "edits"}]
    late = "stages: what follows step 6 is never trained, for trainer.max_steps=6"
    assert train(given={"stages": stages}).report[-1] == late
    assert not any(line.startswith("stages") for line in train(given={"stages": stages}, max_steps=7).report)


def test_a_stage_with_nothing_to_train_is_refused_before_the_first_step(
    train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As rare_adjective with edits=none: the word would be trained for nothing."""
    monkeypatch.setattr(ToyEdits, "parts", lambda self: ())
    stages = [{"trains": "tokens", "until": 3}, {"trains": "edits"}]
    with pytest.raises(UserError, match=r"stages: from step 3 on edits shall train, but only tokens can; .*edits=lora"):
        train(given={"stages": stages}, folder=tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.ckpt"))
    train(given={"stages": stages}, max_steps=3)

"""Stopping and going on with a model of single precision: what the toy in float64 cannot show."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from palp_lab.adapter import read_adapter
from palp_lab.edits.key_value import KeyValueEdits
from palp_lab.edits.lora import LoraEdits
from palp_lab.model.unet import UNetModel
from palp_lab.train import TrainingOutcome
from tests.engine.test_fit import Killed, killed_at, losses
from tests.test_train import go, settings


def rows(outcome: TrainingOutcome) -> list[dict[str, str]]:
    with outcome.log.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("precision", "edits", "moved"),
    [
        ("bf16", {}, "edits."),
        ("32", {"text_encoder": True}, "edits.text_encoder."),
        ("bf16", {"text_encoder": True}, "edits.text_encoder."),
        ("32", None, "edits."),
    ],
    ids=["bf16", "text encoder", "text encoder in bf16", "key_value"],
)
def test_a_resumed_model_is_bit_for_bit_uninterrupted(
    micro: UNetModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    edits: dict[str, Any] | None,
    moved: str,
) -> None:
    def train(folder: str, steps: tuple[int, ...] = ()) -> TrainingOutcome:
        parts = KeyValueEdits() if edits is None else LoraEdits(rank=2, **edits)
        how = settings(max_steps=3, precision=precision)
        return go(micro, tmp_path / folder, losses(), how=how, edits=parts, steps=steps)

    whole = train("whole", (1,))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(2, patch, "after Checkpoints")
        train("cut")
    resumed = train("cut")
    first, one, two = (read_adapter(path)[0] for path in (whole.adapters[1], whole.last, resumed.last))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert rows(whole) == rows(resumed)
    assert any(name.startswith(moved) and not torch.equal(first[name], one[name]) for name in one), "all else is idle"


def test_bf16_computes_otherwise_and_nearly_the_same(micro: UNetModel, tmp_path: Path) -> None:
    """Before anything is learned only the arithmetic differs."""
    full, low = (
        rows(go(micro, tmp_path / precision, losses(), how=settings(max_steps=1, precision=precision)))[0]
        for precision in ("32", "bf16")
    )
    for name in ("loss", "reconstruction/value", "prompt_alignment/value"):
        assert low[name] != full[name]
        assert float(low[name]) == pytest.approx(float(full[name]), rel=0.02), name

"""Text encoders in files: names that every version of transformers opens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from palp_lab.layouts import name_customarily, with_text_model, without_text_model

SHIPPED = sorted((Path(__file__).parents[1] / "palp_lab" / "tinyworld" / "weights").glob("*/text_encoder*"))
STATE = {"embeddings.weight": torch.arange(4.0), "final_layer_norm.bias": torch.ones(2, dtype=torch.float16)}


def written(folder: Path, state: dict[str, torch.Tensor], kind: str = "clip_text_model", name: str = "model") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    save_file(state, folder / f"{name}.safetensors", {"format": "pt"})
    return folder / f"{name}.safetensors"


def test_a_name_is_the_same_there_and_back() -> None:
    assert with_text_model("encoder.layers.0") == with_text_model("text_model.encoder.layers.0")
    assert without_text_model(with_text_model("encoder.layers.0")) == "encoder.layers.0"
    assert with_text_model("text_projection.weight") == "text_projection.weight"


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_shipped_text_encoders_open_in_every_version(folder: Path) -> None:
    """transformers 5.0 to 5.5 leave what has no `text_model.` at random values."""
    with safe_open(folder / "model.safetensors", "pt") as opened:
        assert all(name == with_text_model(name) for name in opened.keys()), folder  # noqa: SIM118


def test_files_are_renamed_and_keep_their_bytes(tmp_path: Path) -> None:
    flat = written(tmp_path / "text_encoder", STATE)
    shard = written(tmp_path / "text_encoder_2", STATE, name="model-00001-of-00001")
    weight_map = dict.fromkeys(["text_projection.weight", *STATE], shard.name)
    listed = shard.with_name("model.safetensors.index.json")
    listed.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    other = written(tmp_path / "text_encoder_3", STATE, kind="t5")
    name_customarily(tmp_path)
    for file in (flat, shard):
        found = load_file(file)
        assert set(found) == {f"text_model.{name}" for name in STATE}
        assert all(torch.equal(found[f"text_model.{name}"], tensor) for name, tensor in STATE.items())
        assert found["text_model.final_layer_norm.bias"].dtype == torch.float16
    with safe_open(flat, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    names = set(json.loads(listed.read_text())["weight_map"])
    assert names == {"text_projection.weight", *(f"text_model.{name}" for name in STATE)}
    assert set(load_file(other)) == set(STATE)
    before = flat.read_bytes()
    name_customarily(tmp_path)
    assert flat.read_bytes() == before

"""The verb pretrain, from nothing to shipped folders that stock libraries open; and its error lines."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from palp_lab.cli import main
from palp_lab.pretrain import STAGES
from palp_lab.tinyworld import WORLD_VERSION, render_set
from palp_lab.types import UserError

SMALL = ["pretrain.share=0.001", "steps=2", "pretrain.evaluate_prompts=2", "device=cpu"]


def run(folder: Path, *words: str) -> int:
    return main(["pretrain", f"output={folder}", *words])


@pytest.mark.slow
def test_all_stages_from_nothing_to_stock_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, *SMALL, "fresh=true") == 0
    shipped = tmp_path / "pretrain" / "weights"
    assert {path.name for path in shipped.iterdir()} == {
        "tiny", "tiny_small", "tiny_flow", "tiny_flow_unet", "clip", "identity", "reader", "scores.json",
    }  # fmt: skip
    for name in ("tiny", "tiny_small", "tiny_flow", "tiny_flow_unet", "clip", "identity", "reader"):
        lineage = json.loads((shipped / name / "lineage.json").read_text())["segments"]
        assert [(s["device"], s["ranks"], s["to"]) for s in lineage] == [("cpu", 1, 2)]
        assert "| training | 2 steps" in (shipped / name / "README.md").read_text()
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(shipped / "tiny_small")
    picture = pipeline("a photo of a cat", num_inference_steps=2, output_type="np").images[0]
    assert picture.shape == (64, 64, 3) and np.isfinite(picture).all()
    # A second sitting of one stage goes on from its checkpoint.
    assert run(tmp_path, *SMALL, "stage=reader") == 0
    assert "reader: at step 4" in capsys.readouterr().out


@pytest.mark.slow
def test_a_stage_goes_on_from_the_shipped_weights(tmp_path: Path) -> None:
    from palp_lab.pretrain import shipped_pipeline
    from palp_lab.tinyworld.pretrain_loop import load_checkpoint

    weights = shipped_pipeline()
    assert weights is not None
    earlier = json.loads((weights / "lineage.json").read_text())["segments"]
    assert run(tmp_path, *SMALL, "stage=generator") == 0
    state = load_checkpoint(tmp_path / "pretrain" / "generator")
    assert state is not None
    assert state["segments"][:-1] == earlier and state["segments"][-1]["samples"] == 2 * 16
    from safetensors.torch import load_file

    before = load_file(weights / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.weight"].float()
    assert torch.allclose(state["model"]["unet.conv_in.weight"], before, atol=1e-2)

    smaller = shipped_pipeline("tiny_small")
    assert smaller is not None
    assert run(tmp_path, *SMALL, "stage=generator_small") == 0
    state = load_checkpoint(tmp_path / "pretrain" / "generator_small")
    assert state is not None
    assert state["segments"][:-1] == json.loads((smaller / "lineage.json").read_text())["segments"]

    flow = shipped_pipeline("tiny_flow_unet")
    assert flow is not None
    assert run(tmp_path, *SMALL, "stage=flow_unet") == 0
    state = load_checkpoint(tmp_path / "pretrain" / "flow_unet")
    assert state is not None
    assert state["segments"][:-1] == json.loads((flow / "lineage.json").read_text())["segments"]


def test_all_stages_keep_the_shipped_autoencoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped UNets, which every stage after it goes on with, read its latents and no other's."""
    from safetensors.torch import load_file

    from palp_lab.pretrain import shipped_pipeline

    monkeypatch.setattr("palp_lab.pretrain.STAGES", ("sets", "autoencoder"))
    assert run(tmp_path, *SMALL) == 0
    assert "autoencoder: the shipped one, which is not trained" in capsys.readouterr().out
    folder, weights = tmp_path / "pretrain" / "autoencoder", shipped_pipeline()
    assert weights is not None and not (folder / "checkpoint.pt").exists()
    name = "diffusion_pytorch_model.safetensors"
    shipped, own = load_file(weights / "vae" / name), load_file(folder / "model" / name)
    assert own.keys() == shipped.keys() and all(torch.equal(own[key], shipped[key].float()) for key in own)


def test_a_signal_ends_the_command_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-trained autoencoder is not frozen, and nothing is built on it."""
    from palp_lab.tinyworld.pretrain_autoencoder import Reconstruction
    from palp_lab.tinyworld.pretrain_loop import is_finished

    words = [word.replace("steps=2", "steps=4") for word in SMALL]
    folder, draw = tmp_path / "pretrain", Reconstruction.draw

    def interrupted(task: Reconstruction, rng: torch.Generator) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return draw(task, rng)

    monkeypatch.setattr("palp_lab.pretrain.STAGES", ("sets", "autoencoder", "latents"))
    with monkeypatch.context() as inner:
        inner.setattr(Reconstruction, "draw", interrupted)
        assert run(tmp_path, *words, "fresh=true") == 130
    said = capsys.readouterr()
    assert "autoencoder: stopped at step 1, before its plan was done" in said.out and "the same command" in said.err
    assert not (folder / "autoencoder" / "model").exists() and not (folder / "latents.npy").exists()
    assert run(tmp_path, *words, "fresh=true") == 0
    said = capsys.readouterr()
    assert "stage=all: goes on with autoencoder" in said.out and "autoencoder: at step 4\n" in said.out
    assert is_finished(folder / "autoencoder") and (folder / "latents.npy").exists()
    assert not (folder / "stage.txt").exists(), "a further sitting of all stages begins with the first"


def test_one_command_at_a_time_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pretrain"
    folder.mkdir()
    with (folder / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert run(tmp_path, *SMALL, "stage=ship") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"folder={folder}: another pretrain is at work in it" in error


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["stage=generater"], "stage=generater: no such stage; did you mean generator"),
        (["ranks=0"], "ranks=0: give 1 or more"),
        (["minutes=-1"], "minutes=-1: give more than 0"),
        (["pretrain.share=2"], "pretrain.share=2: give a share"),
        (["device=mps"], "device=mps: pretraining runs on cpu or cuda"),
    ],
)
def test_wrong_values_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert run(tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and line.split(";")[0] in error


def test_stages_that_miss_their_input_say_what_to_run(tmp_path: Path) -> None:
    from palp_lab.tinyworld.pretrain_stages import build_generator_task, open_set

    with pytest.raises(UserError, match="stage=sets first"):
        open_set(tmp_path, "scorers")
    render_set(tmp_path / "sets" / "scorers", 4, 1)
    mark = tmp_path / "sets" / "scorers" / "meta.json"
    mark.write_text(mark.read_text(encoding="utf-8").replace(f'"version": {WORLD_VERSION}', '"version": 1'))
    with pytest.raises(UserError, match=r"drawn by version 1 of the world, .* stage=sets again"):
        open_set(tmp_path, "scorers")
    with pytest.raises(UserError, match="stage=latents first"):
        build_generator_task(tmp_path, "generator", 4, False)


def test_every_stage_is_documented() -> None:
    text = (Path(__file__).parents[2] / "conf" / "pretrain.yaml").read_text()
    assert all(stage in text for stage in STAGES)

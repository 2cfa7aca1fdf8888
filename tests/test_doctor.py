"""The doctor: says what is there, and what to do where something is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from palp_lab.composition import compose
from palp_lab.doctor import doctor, presets, scorers
from palp_lab.model.folder import lacking


def examine(*overrides: str) -> int:
    """Runs the doctor and returns its exit status."""
    try:
        doctor(compose("doctor", *overrides))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_a_healthy_machine(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = examine("device=cpu", "free_gigabytes=0")
    said = capsys.readouterr().out
    assert status == 0, said
    for subject in ("python", "libraries", "device", "threads", "disk", "model", "wandb"):
        assert f"ok   {subject}" in said
    assert "64 px" in said and "GB of weights in float32" in said
    assert "ok   tiny            here" in said


def test_presets_say_what_is_missing_and_where_it_comes_from(
    output: Path, micro_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub's cache is looked into, nothing is downloaded, and what is not there is no fault of the machine."""
    import huggingface_hub
    from omegaconf import OmegaConf

    from palp_lab.composition import conf_folder

    paths = {file.stem: OmegaConf.load(file).path for file in (conf_folder() / "model").glob("*.yaml")}
    cached = {paths["sd15"]: str(micro_path / "model_index.json")}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda where, name: cached.get(where))
    said = {finding.subject: finding for finding in presets()}
    assert said.keys() == paths.keys() and not any(finding.fix for finding in said.values())
    assert said["tiny"].found == "here" and said["sd15"].found.startswith("here; 4.3 GB")
    assert "not here (model_index.json): hf download stabilityai/stable-diffusion-xl" in said["sdxl"].found
    assert "13.9 GB" in said["sdxl"].found
    assert said["sd15"].there and not said["sdxl"].there


def test_scorers_say_whether_they_are_here(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a hub's cache configuration and weights count, of a folder that it is one."""
    import huggingface_hub

    cached = {
        "openai/clip-vit-base-patch32": {"config.json", "model.safetensors"},
        "facebook/dino-vits16": {"config.json"},
    }
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda where, name: name if name in cached.get(where, ()) else None
    )
    said = {finding.found.split(":")[0]: finding for finding in scorers(compose("doctor", "device=cpu"))}
    assert not any(finding.fix for finding in said.values())
    here = {path for path, finding in said.items() if finding.there}
    assert here == {"clip", "identity", "reader", "openai/clip-vit-base-patch32"}
    assert said["facebook/dino-vits16"].found.endswith("hf download facebook/dino-vits16 where there is a network")
    assert examine("device=cpu", "free_gigabytes=0", f"metrics.embedders.clip.path={tmp_path}") == 1
    assert (
        f"-> give metrics.embedders the folder a transformers model was saved to ({tmp_path})"
        in capsys.readouterr().out
    )


def test_a_preset_of_which_only_the_configuration_is_cached_is_not_here(micro_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(micro_path, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    assert lacking(micro_path) == []
    assert set(lacking(folder)) == {"unet", "vae", "text_encoder"}
    (folder / "vae" / "diffusion_pytorch_model.safetensors").symlink_to(tmp_path / "gone")
    assert "vae" in lacking(folder)


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        (["device=toaster"], "must be auto, cpu, cuda or mps"),
        (["threads=100000"], "threads="),
        (["threads=0"], "threads="),
        (["free_gigabytes=1000000000"], "free some"),
        (["model.path=nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_what_is_wrong_comes_with_its_fix(
    overrides: list[str], fix: str, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert examine("device=cpu", *overrides) == 1
    said = capsys.readouterr().out.splitlines()
    wrong = [i for i, line in enumerate(said) if line.startswith("fix ")]
    assert wrong
    assert any("->" in said[i + 1] and fix in said[i + 1] for i in wrong), said


def test_wandb_online_needs_a_key(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(output / "none"))
    assert examine("device=cpu", "logger=wandb") == 1
    assert "wandb login" in capsys.readouterr().out
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    examine("device=cpu", "logger=wandb")
    assert "ok   wandb           online" in capsys.readouterr().out


def test_tensorboard_is_looked_for(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palp_lab.doctor.find_spec", lambda name: None)
    assert examine("device=cpu", "logger=tensorboard") == 1
    assert "pip install 'palp-lab[tensorboard]'" in capsys.readouterr().out
    monkeypatch.setattr("palp_lab.doctor.find_spec", lambda name: name == "tensorboardX" or None)
    examine("device=cpu", "logger=tensorboard")
    assert f"ok   tensorboard     tensorboard --logdir {output}" in capsys.readouterr().out


def test_no_check_stops_the_others(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken device is one line; the rest is still looked at."""
    examine("device=toaster")
    said = capsys.readouterr().out
    assert "fix  model" in said
    assert "wandb" in said

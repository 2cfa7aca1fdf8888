"""Checkpoints in one file: what they hold is what the folder holds, and what must not be opened is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import save_file

from palp_lab.diffusion.prediction import Kind
from palp_lab.model import open_model
from palp_lab.model.pipeline import stock_pipeline
from palp_lab.types import UserError
from tests.model import sd3_pipelines
from tests.model.original_layout import one_file


def without_weights(folder: Path, to: Path) -> Path:
    """The configuration and tokenizers of a pipeline, as a person without the hub would keep them."""
    return Path(shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors")))


@pytest.fixture(scope="module", params=["micro_path", "micro_v_path", "micro_sdxl_path"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The folder, its weights as one file, and its configuration alone."""
    folder = request.getfixturevalue(request.param)
    here = tmp_path_factory.mktemp("file")
    save_file(one_file(stock_pipeline(open_model(folder))), here / "model.safetensors")
    return folder, here / "model.safetensors", without_weights(folder, here / "config")


def test_a_file_is_the_folder_it_was_made_from(case: tuple[Path, Path, Path]) -> None:
    folder, file, config = case
    one, other = open_model(folder), open_model(file, config=config)
    assert other.fingerprint == one.fingerprint, "all weights, names, the schedule and the vocabularies"
    assert type(other) is type(one) and other.kind is one.kind and other.resolution == one.resolution
    x_t, t = torch.randn(1, *one.latent_shape, generator=torch.Generator().manual_seed(0)), torch.tensor([400])
    with torch.no_grad():
        found = other.predict(x_t, t, other.base_text(["a cat in paris"])).raw
        wanted = one.predict(x_t, t, one.base_text(["a cat in paris"])).raw
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)  # equal weights may lie otherwise in memory


def test_it_is_opened_in_the_dtype_that_was_asked_for(case: tuple[Path, Path, Path]) -> None:
    _, file, config = case
    model: Any = open_model(file, config=config, dtype="bfloat16")
    assert model.dtype == model.autoencoder.dtype == model.texts[0].table.dtype == torch.bfloat16


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor], Path]:
    """A folder of Stable Diffusion 3 with T5, its weights as a file has them, and its configuration alone."""
    here = tmp_path_factory.mktemp("sd3")
    folder = sd3_pipelines.build(here / "folder", identity=True)
    return folder, one_file(StableDiffusion3Pipeline.from_pretrained(folder)), without_weights(folder, here / "config")


def test_a_file_of_stable_diffusion_3_with_and_without_t5(
    sd3: tuple[Path, dict[str, torch.Tensor], Path], tmp_path: Path
) -> None:
    folder, weights, config = sd3
    save_file(weights, whole := tmp_path / "whole.safetensors")
    for t5 in (True, False):
        one = open_model(folder, t5=t5)
        assert open_model(whole, config=config, t5=t5).fingerprint == one.fingerprint
    clips = {name: weight for name, weight in weights.items() if "t5xxl" not in name}
    save_file(clips, bare := tmp_path / "incl_clips.safetensors")
    assert open_model(bare, config=config, t5=False).fingerprint == one.fingerprint
    assert "model.t5=false" in refused(bare, config=config)


def test_what_t5_keeps_in_float32_stays_there(sd3: tuple[Path, dict[str, torch.Tensor], Path], tmp_path: Path) -> None:
    folder, weights, config = sd3
    save_file(weights, whole := tmp_path / "whole.safetensors")
    one, other = (open_model(path, config=c, dtype="float16") for path, c in ((folder, None), (whole, config)))
    third = [model.pipeline_parts()["text_encoder_3"] for model in (one, other)]
    kept = [{name: weight.dtype for name, weight in encoder.named_parameters()} for encoder in third]
    assert kept[0] == kept[1] and set(kept[0].values()) == {torch.float16, torch.float32}


@pytest.mark.parametrize("base", ["micro_path", "micro_sdxl_path"])
def test_marks_of_a_file_say_what_its_weights_do_not_show(
    base: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """As fine-tunes of SDXL carry them; the configuration they are opened with knows nothing of it."""
    folder = request.getfixturevalue(base)
    weights, config = one_file(stock_pipeline(open_model(folder))), without_weights(folder, tmp_path / "config")
    empty = {name: torch.zeros(0) for name in ("v_pred", "ztsnr")}
    save_file(weights | {"v_pred": empty["v_pred"]}, v := tmp_path / "v.safetensors")
    save_file(weights | empty, zero := tmp_path / "zero.safetensors")
    plain, told, whole = open_model(folder), open_model(v, config=config), open_model(zero, config=config)
    assert (plain.kind, told.kind, whole.kind) == (Kind.EPS, Kind.V, Kind.V)
    assert open_model(v, config=config, prediction="epsilon").kind is Kind.EPS, "the user knows better"
    signal = [float(one.scheduler("ddim").alphas_cumprod[-1]) for one in (plain, told, whole)]
    assert signal[0] == signal[1] > 0.001 and signal[2] == 0
    assert float(whole.path.alphas_cumprod[-1]) == 0, "trained on the schedule it is sampled on"
    assert int(whole.scheduler("ddim").timesteps[0]) == 999, "sampling begins where there is no signal left"


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        open_model(path, **options)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.fixture(scope="module")
def file(micro_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return one_file(stock_pipeline(open_model(micro_path)))


def in_cache(folder: Path, cache: Path, branch: str = "main", parts: tuple[str, ...] = ("*",)) -> Path:
    """The configuration of a pipeline where the hub's client keeps `owner/name`: of all parts, or of some."""
    home = cache / "models--owner--name"
    snapshot = home / "snapshots" / ("0" * 40)
    without_weights(folder, snapshot)
    for part in snapshot.iterdir():
        if part.is_dir() and not any(part.match(name) for name in parts):
            shutil.rmtree(part)
    (home / "refs").mkdir()
    (home / "refs" / branch).write_text(snapshot.name)
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def saved(file: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    save_file(file, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_hub_id_needs_no_weights_in_the_cache(saved: Path, cache: Path, micro_path: Path) -> None:
    in_cache(micro_path, cache)
    assert open_model(saved, config="owner/name").fingerprint == open_model(micro_path).fingerprint


SOME = ("tokenizer", "scheduler")
"""What reading a table of contents, a tokenizer and a scheduler leaves in the cache."""


def test_of_a_hub_id_all_but_the_weights_is_fetched(
    saved: Path, cache: Path, micro_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import filter_repo_objects

    snapshot = in_cache(micro_path, cache, parts=SOME)

    def download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        assert (repository, revision) == ("owner/name", "main")
        names = [str(path.relative_to(micro_path)) for path in micro_path.rglob("*") if path.is_file()]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            (snapshot / name).parent.mkdir(exist_ok=True)
            shutil.copy(micro_path / name, snapshot / name)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    opened = open_model(saved, config="owner/name", revision="main")
    assert opened.fingerprint == open_model(micro_path).fingerprint
    assert not list(snapshot.rglob("*.safetensors"))


def test_a_part_of_a_hub_id_without_a_network_is_one_line(saved: Path, cache: Path, micro_path: Path) -> None:
    snapshot = in_cache(micro_path, cache, parts=SOME)
    with pytest.raises(UserError) as caught:
        open_model(saved, config="owner/name")
    said = str(caught.value)
    assert said.startswith("model.config=owner/name is here without the configuration of its text_encoder, unet, vae; ")
    assert "run `hf download owner/name --include '*.json'" in said and "\n" not in said
    with pytest.raises(UserError, match=r"without the configuration of its text_encoder, unet, vae; give a folder"):
        open_model(saved, config=snapshot)


def test_a_revision_is_that_of_the_configuration(saved: Path, cache: Path, micro_path: Path) -> None:
    in_cache(micro_path, cache, branch="v2")
    assert open_model(saved, config="owner/name", revision="v2").resolution == 32
    with pytest.raises(UserError, match=r"model\.config=owner/name is not here and the hub cannot be reached"):
        open_model(saved, config="owner/name")


def test_a_tokenizer_without_its_vocabulary_is_said(saved: Path, micro_path: Path, tmp_path: Path) -> None:
    config = without_weights(micro_path, tmp_path / "config")
    for name in ("tokenizer.json", "vocab.json"):
        (config / "tokenizer" / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"model\.config=.*without the configuration of its tokenizer; give a folder"):
        open_model(saved, config=config)


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.BIN"])
def test_pickled_files_are_refused_unopened(name: str, micro_path: Path, tmp_path: Path) -> None:
    assert "pickled" in refused(tmp_path / name, config=micro_path)


def test_what_is_missing_is_said(file: dict[str, torch.Tensor], micro_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    assert "does not exist" in refused(path, config=micro_path)
    save_file(file, path)
    assert "add model.config=" in refused(path)
    with pytest.raises(UserError, match=r"model\.config=.*does not exist"):
        open_model(path, config=tmp_path / "nowhere")
    path.write_bytes(path.read_bytes()[:1000])
    assert "not a readable" in refused(path, config=micro_path)


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        "first_stage_model.decoder.up.1.block.0.conv1.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight",
    ],
)
def test_weights_that_the_file_lacks_are_never_random(
    name: str, file: dict[str, torch.Tensor], micro_path: Path, tmp_path: Path
) -> None:
    save_file({key: value for key, value in file.items() if key != name}, tmp_path / "model.safetensors")
    said = refused(tmp_path / "model.safetensors", config=micro_path)
    assert "no weights for" in said or "does not fit" in said


def test_the_wrong_configuration_is_said(
    file: dict[str, torch.Tensor], micro_path: Path, micro_sdxl_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(file, path)
    assert "holds a StableDiffusionPipeline" in refused(path, config=micro_sdxl_path)
    wide = {**file, "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(12, 4, 3, 3)}
    save_file(wide, path)
    assert "does not fit" in refused(path, config=micro_path)


def test_other_files_are_said_to_be_what_they_are(micro_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_file({"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(2)}, path)
    assert "is a LoRA" in refused(path, config=micro_path)
    save_file({"something": torch.zeros(2)}, path)
    assert "no checkpoint whose layout is known" in refused(path, config=micro_path)

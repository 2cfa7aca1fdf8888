from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from palp_lab.diffusion.path import RectifiedFlow
from palp_lab.engine.footprint import Counting
from palp_lab.model import open_model
from palp_lab.model.folder import fingerprint, resolve
from palp_lab.model.pipeline import stock_pipeline
from palp_lab.model.schedulers import make_scheduler
from palp_lab.model.unet import UNetModel
from palp_lab.types import Capability, Kind, UserError


def copied(path: Path, to: Path) -> Path:
    return Path(shutil.copytree(path, to / "model"))


def test_kind_and_shapes_come_from_the_folder(micro: UNetModel, micro_v: UNetModel) -> None:
    assert (micro.kind, micro_v.kind) == (Kind.EPS, Kind.V)
    assert micro.latent_shape == (4, 8, 8) and micro.resolution == 32
    assert micro.path.steps == 1000 and Capability.PER_SITE_TEXT in micro.provides
    assert not any(p.requires_grad for p in micro.base.parameters())
    assert not micro.base.training and not micro.autoencoder.training and not micro.text.encoder.training


def test_pictures_there_and_back(micro: UNetModel) -> None:
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    latents = micro.encode_image(pixels)
    assert latents.mean.shape == (2, *micro.latent_shape) and (latents.std > 0).all()
    factor = micro.autoencoder.config.scaling_factor
    stock = micro.autoencoder.encode(pixels).latent_dist
    torch.testing.assert_close(latents.mean, stock.mean * factor)
    torch.testing.assert_close(latents.std, stock.std * factor)
    out = micro.decode_image(latents.mean)
    torch.testing.assert_close(out, micro.autoencoder.decode(latents.mean / factor).sample.clamp(-1, 1))
    assert not out.requires_grad and out.abs().max() <= 1


@pytest.mark.parametrize(("side", "rows"), [(63, [3]), (64, [1, 1, 1])])
def test_large_pictures_are_decoded_one_at_a_time(
    micro: UNetModel, monkeypatch: pytest.MonkeyPatch, side: int, rows: list[int]
) -> None:
    """From 256 px on; a picture is then the same bits whatever lies beside it."""
    latents = torch.randn(3, 4, side, side, generator=torch.Generator().manual_seed(0))
    decode, seen = micro.autoencoder.decode, []
    monkeypatch.setattr(micro.autoencoder, "decode", lambda part: seen.append(len(part)) or decode(part))
    pixels = micro.decode_image(latents)
    assert seen == rows and pixels.shape == (3, 3, 4 * side, 4 * side)
    one_by_one = torch.cat([micro.decode_image(latent[None]) for latent in latents])
    torch.testing.assert_close(pixels, one_by_one, rtol=0, atol=1e-4)
    assert len(rows) == 1 or torch.equal(pixels, one_by_one)


def test_decoding_large_pictures_takes_the_memory_of_one(micro: UNetModel) -> None:
    """But for the pictures themselves."""
    peaks = {}
    for rows in (1, 8):
        with Counting(shapes_only=True) as count:
            micro.decode_image(count.zeros(rows, 4, 64, 64, device=micro.device))
        peaks[rows] = count.peak
    assert peaks[8] < 2.5 * peaks[1]


def test_latent_draws_follow_the_generator(micro: UNetModel) -> None:
    latents = micro.encode_image(torch.rand(1, 3, 32, 32))
    one, same = (latents.sample(torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, same)
    assert not torch.equal(one, latents.sample(torch.Generator().manual_seed(6)))


def test_fingerprint_knows_weights_schedule_heads_and_scale_and_nothing_else(micro_path: Path, tmp_path: Path) -> None:
    first = UNetModel.open(micro_path).fingerprint
    other = copied(micro_path, tmp_path)
    assert UNetModel.open(other).fingerprint == first
    seen = {first}
    for file, change in (
        ("scheduler/scheduler_config.json", {"beta_end": 0.02}),
        ("vae/config.json", {"scaling_factor": 0.5}),
        ("unet/config.json", {"attention_head_dim": 4}),
    ):
        config = other / file
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
        seen.add(UNetModel.open(other).fingerprint)
    assert len(seen) == 4


def test_half_precision_parts_take_and_give_float32(micro_path: Path) -> None:
    model = open_model(micro_path, dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    x_t = torch.randn(1, *model.latent_shape)
    assert model.predict(x_t, torch.tensor([3]), model.base_text(["a cat"])).raw.dtype == torch.float32
    assert model.encode_image(torch.zeros(1, 3, 32, 32)).mean.dtype == torch.float32
    assert model.word_vectors("cat")[0].dtype == torch.float32


def test_autocast_is_close_to_float32_and_not_it(micro_path: Path, micro: UNetModel) -> None:
    model = UNetModel.open(micro_path, autocast=True)
    x_t, t, cond = torch.randn(1, *model.latent_shape), torch.tensor([300]), micro.base_text(["a cat"])
    with torch.no_grad():
        low, full = model.predict(x_t, t, cond).raw, micro.predict(x_t, t, cond).raw
    assert low.dtype == torch.float32 and not torch.equal(low, full)
    torch.testing.assert_close(low, full, rtol=0.1, atol=0.1)


def test_channels_last_changes_nothing_but_the_layout(micro_path: Path, micro: UNetModel) -> None:
    model = UNetModel.open(micro_path, channels_last=True)
    x_t, t, cond = torch.randn(1, *model.latent_shape), torch.tensor([300]), micro.base_text(["a cat"])
    with torch.no_grad():
        torch.testing.assert_close(
            model.predict(x_t, t, cond).raw, micro.predict(x_t, t, cond).raw, rtol=1e-4, atol=1e-5
        )


def test_using_another_denoiser_is_undone(micro: UNetModel) -> None:
    import copy

    other = copy.deepcopy(micro.base)
    with pytest.raises(RuntimeError), micro.using(other):
        assert micro.denoiser is other
        raise RuntimeError
    assert micro.denoiser is micro.base


def refused(path: object, tmp_path: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        open_model(str(path), **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


def test_wrong_folders_say_what_to_do(micro_path: Path, tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere", tmp_path)
    assert "does not exist" in refused("tinny", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no model_index.json" in refused(tmp_path / "empty", tmp_path)
    file = tmp_path / "model.gguf"
    file.write_bytes(b"x")
    assert "is a file" in refused(file, tmp_path)
    said = refused("nobody/nothing", tmp_path)
    assert "hub cannot be reached" in said and "hf download nobody/nothing" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("GatedRepoError", "accept its terms"),
        ("RepositoryNotFoundError", "check the spelling"),
        ("RevisionNotFoundError", "check the spelling"),
        ("OfflineModeIsEnabled", "hub cannot be reached"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_the_hub_refuses_is_one_line_that_says_what_to_do(
    name: str, said: str, wrapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own errors, as they come and as diffusers wraps them."""
    from huggingface_hub import errors

    kind = getattr(errors, name)

    def download(repository: str, revision: str | None) -> str:
        error = kind.__new__(kind, "403")
        error.args = ("403",)
        if wrapped:
            raise OSError("something about a repository") from error
        raise error

    monkeypatch.setattr("palp_lab.model.folder._download", download)
    message = refused("owner/model", tmp_path)
    assert said in message and "owner/model" in message


def test_a_variant_that_is_not_there_is_said(micro_path: Path, tmp_path: Path) -> None:
    folder = copied(micro_path, tmp_path)
    assert "model.variant=fp16" in refused(folder, tmp_path, variant="fp16")
    for part in ("unet", "vae", "text_encoder"):
        for weights in (folder / part).glob("*.safetensors"):
            weights.rename(weights.with_name(f"{weights.stem}.fp16.safetensors"))
    assert "of its text_encoder" in (said := refused(folder, tmp_path))
    assert "model.variant=null" in said and "has the variant fp16; give that" in said
    assert "has the variant fp16; give that" in refused(folder, tmp_path, variant="bf16")
    half = open_model(folder, variant="fp16")
    assert half.fingerprint == open_model(micro_path).fingerprint


def test_both_layouts_of_the_text_encoder_are_one_model(micro_path: Path, tmp_path: Path) -> None:
    """Flat, as transformers 5 writes it, and below `text_model`, as every older file has it."""
    from safetensors.torch import load_file, save_file

    folder = copied(micro_path, tmp_path)
    weights = folder / "text_encoder" / "model.safetensors"
    state = load_file(weights)
    nested = any(name.startswith("text_model.") for name in state)
    other = {name.removeprefix("text_model.") if nested else f"text_model.{name}": w for name, w in state.items()}
    assert other.keys() != state.keys()
    save_file(other, weights, {"format": "pt"})
    assert open_model(folder).fingerprint == open_model(micro_path).fingerprint


def test_a_fingerprint_knows_nothing_of_the_level_around_a_text_encoder() -> None:
    """transformers 5.6 took it away; a base model is the same before and after."""
    inner = torch.nn.Linear(2, 2)
    outer = torch.nn.Module()
    outer.text_model = inner
    assert fingerprint([inner], {}) == fingerprint([outer], {})
    outer.other = torch.nn.Linear(2, 2)
    assert fingerprint([inner], {}) != fingerprint([outer], {})


def test_damaged_folders_name_the_part(micro_path: Path, tmp_path: Path) -> None:
    folder = copied(micro_path, tmp_path)
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "(unet)" in refused(folder, tmp_path)
    weights.unlink()
    assert "(unet)" in refused(folder, tmp_path)
    (folder / "model_index.json").write_text("{")
    assert "damaged" in refused(folder, tmp_path)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_not_there_are_named(micro_path: Path, tmp_path: Path, part: str) -> None:
    """The libraries would leave them at random values, or at none."""
    from safetensors.torch import load_file, save_file

    folder = copied(micro_path, tmp_path)
    file = next((folder / part).glob("*.safetensors"))
    state = load_file(file)
    lost = next(name for name in sorted(state) if name.endswith("bias"))
    state.pop(lost)
    save_file(state, file, {"format": "pt"})
    said = refused(folder, tmp_path)
    assert f"({part}): its weights lack " in said and lost.removeprefix("text_model.") in said and "(1 such)" in said


def test_other_families_and_predictions_are_refused(micro_path: Path, tmp_path: Path) -> None:
    folder = copied(micro_path, tmp_path)
    index, config = folder / "model_index.json", folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "sample"}))
    assert "prediction_type is 'sample'" in refused(folder, tmp_path)
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "KandinskyPipeline"))
    assert "KandinskyPipeline" in refused(folder, tmp_path)


def test_a_flow_is_known_by_its_scheduler(micro_flow_path: Path, micro_path: Path, tmp_path: Path) -> None:
    model = open_model(micro_flow_path)
    assert model.kind is Kind.FLOW and isinstance(model.path, RectifiedFlow) and model.path.shift == 2
    folder = copied(micro_path, tmp_path)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}))
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("DDIMScheduler", "FlowMatchEulerDiscreteScheduler"))
    assert open_model(folder).kind is Kind.FLOW
    solver = {"_class_name": "UniPCMultistepScheduler", "num_train_timesteps": 1000}
    config.write_text(json.dumps({**solver, "prediction_type": "flow_prediction"}))
    index.write_text(index.read_text().replace("FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"))
    assert "without use_flow_sigmas" in refused(folder, tmp_path)


def test_what_a_file_does_not_say_can_be_told(micro_path: Path, tmp_path: Path) -> None:
    """As fine-tuned single files do: the configuration they are read with is that of the base they came from."""
    plain, v = open_model(micro_path), open_model(micro_path, prediction="v_prediction")
    assert (plain.kind, v.kind) == (Kind.EPS, Kind.V) and plain.fingerprint != v.fingerprint
    assert torch.equal(plain.path.alpha(torch.tensor([500])), v.path.alpha(torch.tensor([500])))
    flow = open_model(micro_path, prediction="flow_prediction")
    assert flow.kind is Kind.FLOW and isinstance(flow.path, RectifiedFlow) and flow.path.steps == 1000
    assert "model.prediction=noise: must be epsilon" in refused(micro_path, tmp_path, prediction="noise")
    # What goes back to diffusers says so too, and the stock pipeline draws with it.
    pipe = stock_pipeline(flow)
    assert pipe.scheduler.config.prediction_type == "flow_prediction"
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a cat", num_inference_steps=2, output_type="latent").images.isfinite().all()


def test_shipped_names_are_folders_of_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("palp_lab.model.folder.SHIPPED", tmp_path)
    (tmp_path / "tiny").mkdir()
    assert resolve("tiny") == str(tmp_path / "tiny")
    assert resolve("owner/name") == "owner/name"


def test_old_scheduler_files_do_not_clip_latents() -> None:
    old = {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    assert make_scheduler("ddim", old).config.clip_sample is False
    assert make_scheduler("ddim", {**old, "clip_sample": True}).config.clip_sample is True


def test_an_unknown_scheduler_lists_the_known() -> None:
    with pytest.raises(UserError, match=r"ddim, dpm\+\+"):
        make_scheduler("plms", {})


@pytest.mark.parametrize(
    ("name", "told", "says"),
    [
        ("IPNDMScheduler", {"prediction_type": "v_prediction"}, "v_prediction"),
        ("HeunDiscreteScheduler", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ],
)
def test_a_sampler_that_would_misread_the_model_is_refused(name: str, told: dict[str, object], says: str) -> None:
    """Stepped as noise, or begun where the model's schedule does not begin, its pictures would be wrong in silence."""
    with pytest.raises(UserError, match=says):
        make_scheduler(name, told)
    assert make_scheduler(name, {"prediction_type": "epsilon"}).config.num_train_timesteps == 1000
    assert make_scheduler("dpm++", told).config.num_train_timesteps == 1000


def test_what_a_scheduler_file_leaves_open_is_part_of_the_fingerprint(micro_path: Path, tmp_path: Path) -> None:
    """Samplers fill it in each in its own way, so pictures differ from those of a file that has the defaults written
    out; that a newer diffusers knows more settings changes nothing."""
    other = copied(micro_path, tmp_path)
    config = other / "scheduler/scheduler_config.json"
    told = json.loads(config.read_text())
    found = []
    for key in (None, "timestep_spacing", "clip_sample", "rescale_betas_zero_snr"):
        config.write_text(json.dumps({name: value for name, value in told.items() if name != key}))
        found.append(UNetModel.open(other).fingerprint)
    assert len(set(found[:3])) == 3 and found[3] == found[0]


def test_a_hub_out_of_reach_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt costs half a minute, and a sweep has a cell for every one; what has come since is found."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    asked = []

    def download(repository: str, revision: str | None) -> str:
        asked.append(repository)
        raise OfflineModeIsEnabled("no")

    monkeypatch.setattr("palp_lab.model.folder._download", download)
    first, second = refused("owner/model", tmp_path), refused("owner/model", tmp_path)
    assert first == second and "hub cannot be reached" in first and asked == ["owner/model"]
    monkeypatch.setattr("palp_lab.model.folder.in_cache", lambda repository, name: tmp_path / name)
    refused("owner/model", tmp_path)
    assert len(asked) == 2

"""Networks: what transformers gives, loaded once, known by their weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    PreTrainedConfig,
    ViTConfig,
    ViTModel,
)

from palp_lab.metrics.embedders import ClipEmbedder, VisionEmbedder, features, folder_fingerprint, network_folder, rest
from palp_lab.metrics.lpips import LpipsEmbedder
from palp_lab.metrics.preprocessing import preprocessing
from palp_lab.types import UserError
from tests.metrics.conftest import noise_pictures, write_clip, write_preprocessor
from tests.micro import LENGTH

NARROW = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


def test_clip_features_are_the_projected_ones(clip_path: Path) -> None:
    clip = ClipEmbedder(clip_path)
    model = CLIPModel.from_pretrained(clip_path)
    images = noise_pictures(70)
    with torch.no_grad():
        pixels = clip.preprocessing(images)
        pooled = model.vision_model(pixel_values=pixels).pooler_output
        expected = model.visual_projection(pooled)
    assert clip.images(images).shape == (70, 12)
    torch.testing.assert_close(clip.images(images), expected, atol=1e-5, rtol=1e-4)


def test_text_features_do_not_depend_on_their_neighbours(clip_path: Path) -> None:
    clip = ClipEmbedder(clip_path)
    short, long = "a cat", "a photo of a red cat wearing a hat in the snow at night"
    alone = ClipEmbedder(clip_path).texts([short])
    torch.testing.assert_close(clip.texts([long, short, short]), torch.cat([clip.texts([long]), alone, alone]))


def test_a_long_prompt_is_cut_with_the_end_of_text_kept(clip_path: Path) -> None:
    """torchmetrics' CLIPScore cuts it off, and CLIP then reads the sentence at a place that was never trained."""
    clip, model = ClipEmbedder(clip_path), CLIPModel.from_pretrained(clip_path)
    words = CLIPTokenizer.from_pretrained(clip_path)
    prompt = "a red cat in the snow " * 20
    ids = [*words(prompt)["input_ids"][: LENGTH - 1], words.eos_token_id]
    with torch.no_grad():
        expected = model.get_text_features(input_ids=torch.tensor([ids])).pooler_output
    torch.testing.assert_close(clip.texts([prompt]), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("eos", [2, 49407], ids=["as published", "as it is"])
def test_the_true_tokenizer_is_read_at_the_end_of_text(palp_lab_data: Path, tmp_path: Path, eos: int) -> None:
    """CLIP's published configuration names another end-of-text token than its tokenizer has; both are read right."""
    words = CLIPTokenizer.from_pretrained(palp_lab_data / "skeletons" / "sd14" / "tokenizer")
    text = {
        "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "eos_token_id": eos,
    }  # fmt: skip
    vision = {**NARROW, "intermediate_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    write_preprocessor(tmp_path)
    clip, model = ClipEmbedder(tmp_path), CLIPModel.from_pretrained(tmp_path)
    long = "a red cat in the snow " * 20
    by_hand = [[49406, 320, 1125, 539, 320, 2368, 49407], [*words(long)["input_ids"][:76], 49407]]
    with torch.no_grad():
        last = [model.text_model(torch.tensor([ids])).last_hidden_state[:, len(ids) - 1] for ids in by_hand]
        expected = model.text_projection(torch.cat(last))
    torch.testing.assert_close(clip.texts(["a photo of a cat", long]), expected, atol=1e-5, rtol=1e-4)


def test_convolutional_networks_give_their_pooled_map(resnet_path: Path) -> None:
    vision, images = VisionEmbedder(resnet_path), noise_pictures(3)
    with torch.no_grad():
        expected = vision.model(pixel_values=vision.preprocessing(images)).last_hidden_state.mean((2, 3))
    torch.testing.assert_close(vision.images(images), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match="does not read text"):
        vision.texts(["a cat"])


@pytest.mark.parametrize("pooled", [True, False])
def test_dino_gives_its_class_token_and_needs_no_pooler(tmp_path: Path, pooled: bool) -> None:
    model = ViTModel(ViTConfig(**NARROW, intermediate_size=32), add_pooling_layer=pooled).eval()
    model.save_pretrained(tmp_path)
    write_preprocessor(tmp_path)
    vision, images = VisionEmbedder(tmp_path), noise_pictures(2)
    with torch.no_grad():
        output = model(pixel_values=vision.preprocessing(images))
    torch.testing.assert_close(vision.images(images), output.last_hidden_state[:, 0])
    assert vision.model.pooler is None


def test_dinov2_gives_its_class_token(tmp_path: Path) -> None:
    model = Dinov2Model(Dinov2Config(**NARROW)).eval()
    model.save_pretrained(tmp_path)
    write_preprocessor(tmp_path, image_processor_type="BitImageProcessor")
    vision, images = VisionEmbedder(tmp_path), noise_pictures(2)
    with torch.no_grad():
        output = model(pixel_values=vision.preprocessing(images))
    torch.testing.assert_close(vision.images(images), output.last_hidden_state[:, 0])


CLIP_B32 = CLIPConfig(
    text_config={"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8},
    vision_config={"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "patch_size": 32},
)
CLIP_L14 = CLIPConfig(
    text_config={"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    vision_config={
        "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
        "patch_size": 14,
    },
    projection_dim=768,
)  # fmt: skip
DINO_S16 = ViTConfig(hidden_size=384, intermediate_size=1536, num_attention_heads=6, patch_size=16)
DINOV2_S14 = Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14)


@pytest.mark.parametrize(
    ("kind", "config", "parameters", "width"),
    [
        # arXiv 2103.00020, table 20 (dimensions), and the sizes of the released weights
        (CLIPModel, CLIP_B32, 151_277_313, 512),
        (CLIPModel, CLIP_L14, 427_616_513, 768),
        # arXiv 2104.14294, table 1: 21 million; arXiv 2304.07193: 22 million
        (ViTModel, DINO_S16, 21_665_664, 384),
        (Dinov2Model, DINOV2_S14, 22_056_576, 384),
    ],
    ids=["clip_b32", "clip_l14", "dino_s16", "dinov2_s14"],
)
def test_true_sizes(kind: type, config: PreTrainedConfig, parameters: int, width: int) -> None:
    """The architectures of the published weights, without weights: how many numbers, how wide a feature."""
    pixels = torch.empty((2, 3, 224, 224), device="meta")
    with torch.device("meta"):
        model = kind(config, add_pooling_layer=False) if kind is ViTModel else kind(config)
    assert sum(p.numel() for p in model.parameters()) == parameters
    if kind is CLIPModel:
        assert features(model.get_image_features(pixel_values=pixels)).shape == (2, width)
    else:
        assert model(pixel_values=pixels).last_hidden_state[:, 0].shape == (2, width)


def test_weights_that_would_stay_random_are_refused(tmp_path: Path) -> None:
    ViTModel(ViTConfig(**NARROW, intermediate_size=32), add_pooling_layer=False).save_pretrained(tmp_path)
    write_preprocessor(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if k != "layernorm.weight"}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack layernorm\.weight .*stay random") as error:
        VisionEmbedder(tmp_path)
    assert "\n" not in str(error.value)


def test_a_clip_is_no_vision_network_alone(clip_path: Path) -> None:
    with pytest.raises(UserError, match="ClipEmbedder"):
        VisionEmbedder(clip_path)


def test_another_preprocessing_than_the_folders_can_be_given(clip_path: Path) -> None:
    mine = preprocessing((0.5,) * 3, (0.5,) * 3, size=32)
    images = noise_pictures(2, size=(48, 48))
    given = ClipEmbedder(clip_path, preprocessing=mine)
    assert given.preprocessing == mine
    assert not torch.allclose(given.images(images), ClipEmbedder(clip_path).images(images))


def test_a_network_is_loaded_once_and_never_trained(clip_path: Path) -> None:
    one, two = ClipEmbedder(clip_path), ClipEmbedder(clip_path)
    assert one.model is two.model
    assert not one.model.training
    assert not any(p.requires_grad for p in one.model.parameters())
    assert next(one.model.parameters()).dtype == torch.float32


def test_the_fingerprint_follows_the_weights(clip_path: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip_path, tmp_path / "copy")
    other = write_clip(tmp_path / "other", seed=5)
    assert folder_fingerprint(copy) == folder_fingerprint(clip_path)
    assert folder_fingerprint(other) != folder_fingerprint(clip_path)
    (copy / "preprocessor_config.json").write_text((copy / "preprocessor_config.json").read_text() + " ")
    assert folder_fingerprint(copy) != folder_fingerprint(clip_path)


def test_a_replaced_network_is_loaded_anew(tmp_path: Path) -> None:
    images = noise_pictures(1)
    before = ClipEmbedder(write_clip(tmp_path, seed=1)).images(images)
    after = ClipEmbedder(write_clip(tmp_path, seed=2)).images(images)
    assert not torch.allclose(before, after)


def test_a_hub_name_without_a_network_is_one_line() -> None:
    with pytest.raises(UserError, match="neither a folder nor to be had from the hub") as error:
        ClipEmbedder("nobody/no-such-clip")
    assert "\n" not in str(error.value)
    assert "hf download nobody/no-such-clip --local-dir my_folder" in str(error.value)


def test_the_hub_is_asked_for_pickled_weights_only_where_there_are_no_others(
    clip_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns[-1])
        return str(clip_path if name == "some/clip" else tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert network_folder("some/clip") == clip_path
    assert asked == ["model.safetensors"]
    with pytest.raises(UserError, match="neither model"):
        network_folder("some/nothing")
    assert asked[1:] == ["model.safetensors", "pytorch_model.bin"]


def test_a_missing_or_damaged_network_is_one_line(tmp_path: Path, clip_path: Path) -> None:
    with pytest.raises(UserError, match="no network there"):
        network_folder(tmp_path / "nowhere")
    damaged = shutil.copytree(clip_path, tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be opened") as error:
        ClipEmbedder(damaged)
    assert "\n" not in str(error.value)


def test_a_prompt_the_scorer_cannot_read_whole_is_said_once(clip_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    embedder = ClipEmbedder(clip_path)
    long = "a photo of a cat " + "in the snow " * 40
    with caplog.at_level("WARNING"):
        embedder.texts([long, "a photo of a cat"])
        embedder.texts([long])
    (line,) = [record.getMessage() for record in caplog.records]
    assert "the scorer reads the first" in line and long in line


def test_networks_leave_the_accelerator_to_a_training_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened on the CPU, brought to their device by the first picture, sent away by `rest`."""
    moved: list[str] = []

    class Moving(torch.nn.Module):
        def to(self, device: object) -> Moving:  # type: ignore[override]
            moved.append(str(device))
            return self

    monkeypatch.setattr("palp_lab.metrics.embedders._LOADED", {("lpips", "x"): (Moving(), "x"), ("hash", "y"): "z"})
    rest()
    assert moved == ["cpu"]
    monkeypatch.setattr(Moving, "forward", lambda self, pixels: pixels.flatten(1))
    embedder = LpipsEmbedder(Moving(), "x", torch.device("cpu"), 8)  # type: ignore[arg-type]
    embedder.device = "cuda:7"  # type: ignore[assignment]
    embedder.preprocessing = lambda part: SimpleNamespace(to=lambda _: part)  # type: ignore[assignment]
    embedder.images(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    assert moved == ["cpu", "cuda:7"]

"""Networks: what transformers gives, loaded once, known by their weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from palp_lab.metrics.embedders import ClipEmbedder, VisionEmbedder, folder_fingerprint, network_folder
from palp_lab.types import UserError
from tests.metrics.conftest import noise_pictures, write_clip, write_preprocessor
from tests.micro import LENGTH


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


def test_convolutional_networks_give_their_pooled_map(resnet_path: Path) -> None:
    vision, images = VisionEmbedder(resnet_path), noise_pictures(3)
    with torch.no_grad():
        expected = vision.model(pixel_values=vision.preprocessing(images)).last_hidden_state.mean((2, 3))
    torch.testing.assert_close(vision.images(images), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match="does not read text"):
        vision.texts(["a cat"])


def test_transformers_give_their_class_token(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    ViTModel(config).save_pretrained(tmp_path)
    write_preprocessor(tmp_path)
    vision, images = VisionEmbedder(tmp_path), noise_pictures(2)
    with torch.no_grad():
        output = vision.model(pixel_values=vision.preprocessing(images))
    torch.testing.assert_close(vision.images(images), output.last_hidden_state[:, 0])
    assert not torch.allclose(vision.images(images), output.pooler_output)


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


def test_a_missing_or_damaged_network_is_one_line(tmp_path: Path, clip_path: Path) -> None:
    with pytest.raises(UserError, match="no network there"):
        network_folder(tmp_path / "nowhere")
    damaged = shutil.copytree(clip_path, tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be opened") as error:
        ClipEmbedder(damaged)
    assert "\n" not in str(error.value)

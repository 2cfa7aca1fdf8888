"""Random networks in folders, as transformers saves them, and readers and pictures to measure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from tests.micro import LENGTH, tokenizer

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def write_preprocessor(folder: Path, **values: object) -> None:
    wanted = {
        "do_resize": True, "size": {"shortest_edge": 32}, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32}, "do_rescale": True, "do_normalize": True,
        "image_mean": MEAN, "image_std": STD, "image_processor_type": "CLIPImageProcessor", **values,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(wanted))


def write_clip(folder: Path, seed: int = 0) -> Path:
    from transformers import CLIPConfig, CLIPModel

    words = tokenizer()
    text = {
        "vocab_size": len(words), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": LENGTH, "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    write_preprocessor(folder)
    return folder


def write_resnet(folder: Path, seed: int = 1) -> Path:
    from transformers import ResNetConfig, ResNetModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"))
    model.save_pretrained(folder)
    write_preprocessor(folder, size={"height": 32, "width": 32}, do_center_crop=False, resample=2)
    return folder


@pytest.fixture(scope="session")
def clip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def resnet_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_resnet(tmp_path_factory.mktemp("resnet"))


def noise_pictures(count: int, seed: int = 0, size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    """Smooth random pictures, so that networks see more than white noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 4, 4), generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False)
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)


class BrightnessReader:
    """Reads a place off the brightness and a hat off the red: enough to prove what is done with a reading."""

    labels: Mapping[str, Sequence[str]] = {
        "style": ["photo", "sketch"], "place": ["plain", "snow", "night"], "class_": ["none", "cat", "dog"],
        "second_class": ["none", "cat", "dog"], "relation": ["none", "next to"], "hat": ["none", "red", "blue"],
    }  # fmt: skip
    fingerprint = "brightness"

    def words(self, images: torch.Tensor) -> Mapping[str, Sequence[str]]:
        level = images.float().mean((1, 2, 3))
        count = len(images)
        return {
            "style": ["photo"] * count,
            "place": ["snow" if v > 170 else "night" if v < 85 else "plain" for v in level],
            "class_": ["cat"] * count,
            "second_class": ["none"] * count,
            "relation": ["none"] * count,
            "hat": ["red" if v > 128 else "none" for v in images[:, 0].float().mean((1, 2))],
        }

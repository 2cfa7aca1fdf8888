"""The shipped protocols on narrow networks of the published classes: what each column is, computed another way."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTModel,
)

from palp_lab.build import build
from palp_lab.cli_help import groups
from palp_lab.composition import compose, conf_folder
from palp_lab.metrics.diversity import squared_distances
from palp_lab.metrics.protocols import ABSENT, COLUMNS, Protocol, References
from palp_lab.study.directions import known_metrics
from palp_lab.types import UserError
from tests.metrics.conftest import noise_pictures, write_preprocessor
from tests.metrics.test_lpips import alexnet, heads
from tests.micro import LENGTH, tokenizer

PUBLISHED = ("palp", "dreambooth", "custom_diffusion", "textual_inversion")
SENTENCE, IMAGES, PHOTOS = "a sketch of a {} in the snow", noise_pictures(3, size=(96, 96)), noise_pictures(2, seed=7)
NARROW = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 224, "patch_size": 56}
"""Networks are narrow, pictures as large as the published networks see them: the preprocessing is the true one."""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, words = tmp_path_factory.mktemp("networks"), tokenizer()
    text = {
        "vocab_size": len(words), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": LENGTH, "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id,
    }  # fmt: skip
    clip = CLIPConfig(text_config=text, vision_config={**NARROW, "intermediate_size": 32}, projection_dim=12)
    made = {
        "clip": CLIPModel(clip), "clip_l14": CLIPModel(clip), "identity": ViTModel(ViTConfig(**NARROW)),
        "dinov2": Dinov2Model(Dinov2Config(**NARROW)),
    }  # fmt: skip
    for name, model in made.items():
        model.save_pretrained(root / name)
        words.save_pretrained(root / name)
        write_preprocessor(root / name, size={"shortest_edge": 224}, crop_size=224)
    torch.save(alexnet(), root / "alexnet.pth")
    torch.save(heads(), root / "heads.pth")
    return {path.stem: path for path in root.iterdir()}


@cache
def composed(name: str) -> DictConfig:
    return compose("run", f"metrics={name}", "device=cpu")


def opened(name: str, networks: dict[str, Path], **changes: object) -> Protocol:
    """A shipped protocol on the narrow networks, with keys below `metrics` changed."""
    config = deepcopy(composed(name))
    for space, node in config.metrics.embedders.items():
        if "path" in node:
            node.path = str(networks[str(space)])
    for key, value in changes.items():
        OmegaConf.update(config, f"metrics.{key.replace('__', '.')}", value)
    return build(config.metrics, "metrics")


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x.double(), dim=-1)


@pytest.mark.parametrize("name", groups(conf_folder())["metrics"])
def test_every_column_has_a_direction_and_says_what_it_compares_with(name: str) -> None:
    metrics = composed(name).metrics.metrics
    assert set(metrics) <= set(known_metrics())
    for key, node in metrics.items():
        for where, ending in COLUMNS.items():
            assert str(key).endswith(ending) is (node.get("against") == where)
        if name in PUBLISHED:
            assert node.get("against") in (None, "training"), "published protocols score against the photos they had"


@pytest.mark.parametrize("name", groups(conf_folder())["metrics"])
def test_every_protocol_and_column_is_documented(name: str) -> None:
    page = (conf_folder().parent / "docs" / "protocols.md").read_text(encoding="utf-8")
    rows = "\n".join(line for line in page.splitlines() if line.startswith("| `"))
    assert [column for column in (name, *composed(name).metrics.metrics) if f"`{column}`" not in rows] == []


def test_ours_has_every_likeness_against_training_and_against_held_out_photos(networks: dict[str, Path]) -> None:
    protocol = opened("photos", networks)
    held_out = noise_pictures(2, seed=8)
    scores = protocol.measure(IMAGES, SENTENCE, "cat", References(PHOTOS, held_out))
    for name in ("image_alignment", "identity", "identity_dinov2"):
        space = {"image_alignment": "clip", "identity": "identity"}.get(name, "dinov2")
        seen = [unit(protocol.see(space, some)) for some in (IMAGES, PHOTOS, held_out)]
        assert scores[name].value == pytest.approx(float((seen[0] @ seen[1].T).mean()))
        assert scores[f"{name}_held_out"].value == pytest.approx(float((seen[0] @ seen[2].T).mean()))
    alone = protocol.measure(IMAGES, SENTENCE, "cat", References(PHOTOS))
    assert alone["identity"].value == scores["identity"].value
    assert alone["identity_held_out"].value is None, "not measured, rather than against something else"


def test_columns_cannot_be_mixed_up(networks: dict[str, Path]) -> None:
    for column, against in (("identity_held_out", "training"), ("identity", "held_out"), ("identity", "true_renders")):
        with pytest.raises(UserError, match="mixed up"):
            opened("photos", networks, **{f"metrics__{column}__against": against})


def test_palp_reads_each_element_alone(networks: dict[str, Path]) -> None:
    protocol = opened("palp", networks)
    scores = protocol.measure(IMAGES, SENTENCE, "cat", References(PHOTOS))
    assert list(scores) == [
        "text_alignment", "style_alignment", "class_alignment", "ambiance_1_alignment", "ambiance_2_alignment",
        "image_alignment",
    ]  # fmt: skip
    model, words = CLIPModel.from_pretrained(networks["clip"]), CLIPTokenizer.from_pretrained(networks["clip"])
    seen = unit(protocol.see("clip", IMAGES))
    columns = {
        "text_alignment": "a sketch of a cat in the snow", "style_alignment": "a sketch", "class_alignment": "a cat",
        "ambiance_1_alignment": "in the snow",
    }  # fmt: skip
    for name, text in columns.items():
        with torch.no_grad():
            read = model.get_text_features(**words(text, return_tensors="pt")).pooler_output
        assert scores[name].per_image == pytest.approx((seen @ unit(read)[0]).tolist(), abs=1e-6)
    assert (scores["ambiance_2_alignment"].value, scores["ambiance_2_alignment"].n) == (None, 0)


def test_dreambooth_has_five_columns_and_no_div_without_lpips(networks: dict[str, Path]) -> None:
    files = {f"embedders__lpips__{key}": str(networks[key]) for key in ("alexnet", "heads")}
    protocol, poorer = opened("dreambooth", networks, **files), opened("dreambooth", networks)
    scores = protocol.measure(IMAGES, SENTENCE, "cat", References(PHOTOS))
    drift = {"subject": "drift", "twins": IMAGES, "class_word": True}
    pres = protocol.measure(IMAGES, "a photo of a cat", "cat", References(PHOTOS), **drift)["class_collapse"]
    dino = [unit(protocol.see("identity", some)) for some in (IMAGES, PHOTOS)]
    assert pres.value == pytest.approx(float((dino[0] @ dino[1].T).mean()))
    assert scores["identity"].value == pytest.approx(pres.value)
    network = protocol.embedders["lpips"]
    assert network is not None
    assert scores["diversity_lpips"].value == pytest.approx(float(squared_distances(network.images(IMAGES)).mean()))
    without = poorer.measure(IMAGES, SENTENCE, "cat", References(PHOTOS))
    assert (without["diversity_lpips"].value, without["diversity_lpips"].n) == (None, 0)
    assert without["identity"].value == scores["identity"].value
    assert poorer.hashes()["lpips"] == ABSENT != protocol.hashes()["lpips"]


def test_custom_diffusions_text_alignment_is_clipscore(networks: dict[str, Path]) -> None:
    protocol = opened("custom_diffusion", networks)
    scores = protocol.measure(IMAGES, SENTENCE, "cat", References(PHOTOS))
    plain = scores["text_alignment"].per_image
    assert plain is not None
    assert scores["clipscore"].per_image == pytest.approx([2.5 * max(v or 0.0, 0.0) for v in plain])


def test_textual_inversion_puts_nothing_in_the_placeholders_place(networks: dict[str, Path]) -> None:
    protocol = opened("textual_inversion", networks)
    assert protocol.text("a photo of {} in the snow", "cat") == "a photo of in the snow"
    palp = opened("palp", networks)
    smooth, sharp = palp.see("clip", IMAGES), protocol.see("clip", IMAGES)
    assert not torch.allclose(smooth, sharp), "floats are resized without antialiasing"
    assert list(protocol.metrics) == ["text_alignment", "image_alignment"]


def test_what_published_protocols_show_their_networks() -> None:
    """CLIP at 224; DINO 256 cut to 224 with ImageNet's statistics, whatever the folder's own file says."""
    for name in PUBLISHED:
        embedders = composed(name).metrics.embedders
        assert embedders.clip.path == "openai/clip-vit-base-patch32"
        assert (embedders.clip.preprocessing.shortest, embedders.clip.preprocessing.crop) == (224, 224)
        if "identity" in embedders:
            how = embedders.identity.preprocessing
            assert embedders.identity.path == "facebook/dino-vits16"
            assert (how.shortest, how.crop, how.filter, how["mean"][0]) == (256, 224, "bicubic", 0.485)


def test_a_network_left_out_is_not_measured(networks: dict[str, Path]) -> None:
    protocol = opened("photos", networks, embedders__clip_l14=None)
    scores = protocol.measure(IMAGES, SENTENCE, "cat", References(PHOTOS))
    assert scores["text_alignment_l14"].value is None
    assert scores["text_alignment"].value is not None

"""Published dimensions: the presets' architectures without weights, and random weights of small ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from palp_lab.composition import compose, conf_folder
from palp_lab.model import family_of, open_model
from palp_lab.model.dimensions import RandomParts, stand_in_tokenizer, weight_bytes
from palp_lab.model.folder import Folder, component_class
from palp_lab.model.sdxl import SdxlModel
from palp_lab.model.unet import UNetModel
from palp_lab.types import UserError

PRESETS = sorted(
    path.stem for path in (conf_folder() / "model").glob("*.yaml") if "\ndimensions:" in path.read_text("utf-8")
)
META = torch.device("meta")


def dimensions(preset: str) -> dict[str, Any]:
    return OmegaConf.to_container(compose("run", f"model={preset}").model.dimensions, resolve=True)  # type: ignore[return-value]


def test_every_published_model_carries_them() -> None:
    assert {"sd14", "sd21", "sdxl"} <= set(PRESETS)
    assert dimensions("sd15") == dimensions("sd14")


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_parts_have_the_numbers_of_the_released_checkpoints(preset: str) -> None:
    parts = RandomParts(dimensions(preset), META)
    counted = {
        name: sum(p.numel() for p in parts.load(name, torch.float16).parameters())
        for name in dimensions(preset)["parameters"]
    }
    assert counted == dimensions(preset)["parameters"]


SMALL = {
    "unet": {"block_out_channels": [8, 16], "norm_num_groups": 4, "sample_size": 8, "layers_per_block": 1,
             "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
             "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
             "attention_head_dim": 2, "cross_attention_dim": 16},
    "vae": {"block_out_channels": [8, 8], "norm_num_groups": 4, "layers_per_block": 1,
            "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2},
    "text_encoder": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                     "vocab_size": 600},
    "tokenizer": {"size": 600},
}  # fmt: skip


def small() -> dict[str, Any]:
    whole = dimensions("sd14")
    return {
        name: {**block, **SMALL.get(name, {})} if isinstance(block, dict) else block for name, block in whole.items()
    }


def test_random_weights_are_a_model_like_any_other() -> None:
    one, same = (open_model("random", dimensions=small()) for _ in range(2))
    assert one.fingerprint == same.fingerprint, "the weights depend on the dimensions alone"
    x_t, cond = torch.randn(1, *one.latent_shape), one.base_text(["a photo of a cat"])
    assert torch.isfinite(one.predict(x_t, torch.tensor([3]), cond).raw).all()
    assert one.resolution == 16 and open_model("random", dimensions=small(), dtype="bfloat16").dtype == torch.bfloat16


def test_random_weights_may_have_true_tokenizers(micro_path: Path) -> None:
    model: Any = open_model("random", dimensions=small(), config=micro_path)
    assert model.pieces("cat") == open_model(micro_path).pieces("cat")


def test_without_dimensions_there_is_nothing_to_build() -> None:
    with pytest.raises(UserError, match=r"model\.dimensions"):
        open_model("random")
    with pytest.raises(UserError, match="class NoSuchThing"):
        open_model("random", dimensions={**small(), "unet": {"class": "NoSuchThing"}})
    lacking = {name: block for name, block in small().items() if name != "vae"}
    with pytest.raises(UserError, match="has no vae"):
        open_model("random", dimensions=lacking)


def test_the_stand_in_tokenizer_has_the_size_and_reads_everything() -> None:
    from transformers import CLIPTokenizer

    words = stand_in_tokenizer(CLIPTokenizer, size=49408, length=77, pad="!")
    assert len(words) == 49408 and (words.bos_token_id, words.eos_token_id) == (49406, 49407)
    ids = words("a naïve 猫!", add_special_tokens=False).input_ids
    assert ids and words.unk_token_id not in ids and max(ids) < 512
    assert words.pad_token == "!" and words.pad_token_id < 512


def test_bytes_of_the_weights() -> None:
    assert weight_bytes(dimensions("sd14"), torch.float32) == 4 * (859_520_964 + 83_653_863 + 123_060_480)
    assert weight_bytes(dimensions("sdxl"), torch.float16) == 2 * 3_468_837_867


def test_an_open_model_knows_what_it_holds(micro: UNetModel, micro_sdxl: SdxlModel) -> None:
    parts = [micro.base, micro.autoencoder, micro.text.encoder]
    assert micro.weight_bytes == 4 * sum(p.numel() for part in parts for p in part.parameters())
    assert micro_sdxl.weight_bytes > 4 * sum(p.numel() for text in micro_sdxl.texts for p in text.encoder.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["sd14", "sd21", "sdxl"])
def test_they_are_the_published_configuration_files(preset: str, palp_lab_data: Path) -> None:
    """Every weight has the published name and shape, and every key that is written down is what the files say."""
    folder = palp_lab_data / "skeletons" / preset
    known = Folder.find(folder)
    parts = RandomParts(dimensions(preset), META)
    model = family_of(parts).read(parts, torch.float32, META)
    assert family_of(known) is type(model)
    for name in dimensions(preset)["parameters"]:
        library, kind = known.index[name]
        found = component_class(kind)
        assert parts.index[name] == [library, kind]
        with META:
            if library == "diffusers":
                published = found.from_config(found.load_config(folder, subfolder=name))
            else:
                published = found(found.config_class.from_pretrained(folder / name))
        mine = model.base if name == "unet" else model.pipeline_parts()[name]
        assert {n: w.shape for n, w in mine.state_dict().items()} == {
            n: w.shape for n, w in published.state_dict().items()
        }
        for key, value in parts.blocks[name].items():
            theirs = getattr(published.config, key)
            assert (list(theirs) if isinstance(theirs, tuple) else theirs) == value, (name, key)
    schedule = known.load("scheduler").config
    for key, value in parts.blocks["scheduler"].items():
        assert schedule[key] == value, key
    heads = [site.heads for site in model.sites]
    assert {site.channels // n for site, n in zip(model.sites, heads, strict=True)} == (
        {40, 80, 160} if preset == "sd14" else {64}
    )

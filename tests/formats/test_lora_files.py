"""The same updates from every spelling, alpha from wherever it stands, and one line for what does not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_kohya

from palp_lab.formats.lora_files import Layers, is_lora, read_lora
from palp_lab.formats.low_rank import METADATA, LowRank, peft_words, to_diffusers, to_kohya, to_peft, with_rank
from palp_lab.formats.names import ldm_paths
from palp_lab.model.pipeline import adaptable_layers
from palp_lab.model.unet import UNetModel
from palp_lab.types import UserError

CROSS = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV = "up_blocks.1.attentions.0.proj_in"
WIDE = "down_blocks.1.resnets.0.conv1"
WORD = "encoder.layers.1.self_attn.q_proj"
MLP = "encoder.layers.0.mlp.fc1"


@pytest.fixture(scope="module")
def layers(micro_path: Path) -> Layers:
    return Layers("model.path=micro", adaptable_layers(UNetModel.open(micro_path)), 1)


def update(layers: Layers, part: str, path: str, rank: int = 2, alpha: float = 2.0) -> LowRank:
    """A random update of the shape of a layer."""
    weight: Any = layers.parts[part][path].weight
    draw = torch.Generator().manual_seed(len(path) + rank)
    down = torch.randn(rank, *weight.shape[1:], generator=draw)
    return LowRank(down, torch.randn(len(weight), rank, *(1,) * (weight.ndim - 2), generator=draw), alpha)


@pytest.fixture(scope="module")
def updates(layers: Layers) -> dict[str, dict[str, LowRank]]:
    return {
        "denoiser": {path: update(layers, "denoiser", path) for path in (CROSS, OUT)},
        "text_encoder": {WORD: update(layers, "text_encoder", WORD)},
    }


def read(tensors: Mapping[str, Any], layers: Layers, header: Mapping[str, str] | None = None) -> Any:
    assert is_lora(tensors)
    return read_lora("mine.safetensors", tensors, header or {}, layers, None)


def same(found: Any, wanted: Any, alpha: float | None = None) -> None:
    assert {part: set(some) for part, some in found.items()} == {part: set(some) for part, some in wanted.items()}
    for part, some in wanted.items():
        for path, own in some.items():
            other = found[part][path]
            assert torch.equal(own.down, other.down) and torch.equal(own.up, other.up)
            assert other.alpha == (own.alpha if alpha is None else alpha)


def peft_names(updates: Any, denoiser: str = "unet") -> dict[str, Any]:
    """As the training scripts hold them before they are saved."""
    found = {}
    for part, some in updates.items():
        prefix = denoiser if part == "denoiser" else part
        found |= {f"{prefix}.{name}": weight for name, weight in to_peft(some)[0].items()}
    return found


def test_what_diffusers_and_its_converters_write(layers: Layers, updates: Any) -> None:
    names = peft_names(updates)
    same(read(names, layers), updates)
    new = convert_state_dict_to_diffusers(dict(names))
    assert any(".lora.down." in name for name in new) and any("lora_linear_layer" in name for name in new)
    same(read(new, layers), updates)
    kohya = convert_state_dict_to_kohya(dict(names))
    assert any(name.startswith("lora_unet_") for name in kohya) and any(name.endswith(".alpha") for name in kohya)
    same(read(kohya, layers), updates)


def test_old_processors_and_the_level_text_model(layers: Layers, updates: Any) -> None:
    old = {}
    for path, own in updates["denoiser"].items():
        at, _, last = path.removesuffix(".0").rpartition(".")
        old[f"unet.{at}.processor.{last}_lora.down.weight"] = own.down
        old[f"unet.{at}.processor.{last}_lora.up.weight"] = own.up
    text, word = "text_encoder.text_model.encoder.layers.1.self_attn.to_q_lora", updates["text_encoder"][WORD]
    old |= {f"{text}.down.weight": word.down, f"{text}.up.weight": word.up}
    same(read(old, layers), updates)
    bare = {name.removeprefix("unet."): value for name, value in old.items() if name.startswith("unet.")}
    same(read(bare, layers), {"denoiser": updates["denoiser"]})


def test_alpha_from_the_header_and_from_tensors(layers: Layers, updates: Any) -> None:
    names = peft_names(updates)
    told = {"unet.r": 2, "unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_out.0": 1}}
    found = read(names, layers, {METADATA: json.dumps(told)})
    assert [found["denoiser"][path].alpha for path in (CROSS, OUT)] == [8, 1]
    assert found["text_encoder"][WORD].alpha == 2, "nothing is said of it: the rank"
    found = read(names | {f"unet.{CROSS}.alpha": torch.tensor(4.0)}, layers)
    assert [found["denoiser"][path].alpha for path in (CROSS, OUT)] == [4, 2]
    rooted = {"unet.r": 4, "unet.lora_alpha": 8, "unet.use_rslora": True}
    assert read(names, layers, {METADATA: json.dumps(rooted)})["denoiser"][CROSS].alpha == pytest.approx(8 * 2**0.5)


@pytest.mark.parametrize("level", ["", "text_model."])
def test_an_alpha_by_layer_of_a_text_encoder_in_either_layout(layers: Layers, updates: Any, level: str) -> None:
    """Older versions of transformers have a level `text_model.`, and peft writes whole paths into its patterns."""
    names = peft_names(updates)
    told = {"lora_alpha": 2, "alpha_pattern": {f"{level}{WORD}": 8}}
    header = {METADATA: json.dumps({f"text_encoder.{key}": value for key, value in told.items()})}
    assert read(names, layers, header)["text_encoder"][WORD].alpha == 8
    found = read_lora("mine.safetensors", names, {}, layers, told)
    assert [found["text_encoder"][WORD].alpha, found["denoiser"][CROSS].alpha] == [8, 2]


@pytest.mark.parametrize(
    "told", ["{", '{"unet.lora_alpha": null}', '{"unet.lora_alpha": 1, "unet.alpha_pattern": {"(": 2}}']
)
def test_a_header_that_cannot_be_read(layers: Layers, updates: Any, told: str) -> None:
    with pytest.raises(UserError, match=r"mine\.safetensors: what is said of its alpha"):
        read(peft_names(updates), layers, {METADATA: told})


def test_our_own_files_with_ranks_and_alphas_by_layer(layers: Layers) -> None:
    mixed = {
        "denoiser": {
            CROSS: update(layers, "denoiser", CROSS, 2, 1.0),
            OUT: update(layers, "denoiser", OUT, 4, 3.5),
            CONV: update(layers, "denoiser", CONV, 2, 1.0),
            WIDE: update(layers, "denoiser", WIDE, 2, 1.0),
        },
        "text_encoder": {WORD: update(layers, "text_encoder", WORD, 3, 1.0), MLP: update(layers, "text_encoder", MLP)},
    }
    tensors, header = to_diffusers(mixed, "unet", {"use_rslora": False})
    assert all(name.startswith(("unet.", "text_encoder.text_model.")) for name in tensors)
    same(read(tensors, layers, header), mixed)
    plain, _ = to_kohya(mixed, {}, "mia")
    assert "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha" in plain
    same(read(plain, layers), mixed)
    original, header = to_kohya(mixed, ldm_paths(layers.parts["denoiser"], 1), "mia")
    assert "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k.lora_down.weight" in original
    assert header["ss_network_dim"] == "2" and "ss_base_model_version" not in header
    families = {family: to_kohya(mixed, {}, "mia", family)[1] for family in ("sd_v1", "sd_v2", "sdxl_base_v1-0")}
    assert [(name, header["ss_base_model_version"], header["ss_v2"]) for name, header in families.items()] == [
        ("sd_v1", "sd_v1", "False"), ("sd_v2", "sd_v2", "True"), ("sdxl_base_v1-0", "sdxl_base_v1-0", "False"),
    ]  # fmt: skip
    same(read(original, layers), mixed)


def test_linear_layers_that_were_convolutions_elsewhere(layers: Layers) -> None:
    own = update(layers, "denoiser", CONV)
    assert own.down.ndim == 4
    word = "lora_unet_up_blocks_1_attentions_0_proj_in"
    flat = {f"{word}.lora_down.weight": own.down[..., 0, 0], f"{word}.lora_up.weight": own.up[..., 0, 0]}
    same(read(flat, layers), {"denoiser": {CONV: own}})
    tall = update(layers, "denoiser", CROSS)
    word = f"lora_unet_{CROSS.replace('.', '_')}"
    deep = {f"{word}.lora_down.weight": tall.down[..., None, None], f"{word}.lora_up.weight": tall.up[..., None, None]}
    same(read(deep, layers), {"denoiser": {CROSS: tall}})


def test_filling_a_rank_up_changes_nothing(layers: Layers) -> None:
    own = update(layers, "denoiser", CROSS, 2, 3.0)
    wide = with_rank(own, 5, 10.0)
    delta = (wide.up @ wide.down) * (wide.alpha / wide.rank)
    torch.testing.assert_close(delta, (own.up @ own.down) * 1.5)
    assert peft_words({CROSS: wide})["r"] == 5


STRANGERS = {
    "DoRA": (f"unet.{CROSS}.lora_magnitude_vector", torch.ones(2)),
    "LoHa": ("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a", torch.ones(2)),
    "middle factor": ("lora_unet_mid_block_resnets_0_conv1.lora_mid.weight", torch.ones(2)),
    "bundled": ("bundle_emb.mia.string_to_param.*", torch.ones(2)),
    "no part of a LoRA": ("unet.conv_in.bias", torch.ones(2)),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_other_kinds_of_updates_are_refused_by_name(layers: Layers, updates: Any, kind: str) -> None:
    name, value = STRANGERS[kind]
    with pytest.raises(UserError, match=rf"mine\.safetensors: .*{kind}") as error:
        read({**peft_names(updates), name: value}, layers)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("width", "base"), [(768, "1\\.x.*sd15"), (1024, "2\\.x.*sd21"), (2048, "SDXL.*sdxl"), (333, "width 333")]
)
def test_another_base_is_named_by_the_text_it_reads(layers: Layers, width: int, base: str) -> None:
    wrong = {f"unet.{CROSS}.lora_A.weight": torch.ones(2, width), f"unet.{CROSS}.lora_B.weight": torch.ones(8, 2)}
    with pytest.raises(UserError, match=rf"mine\.safetensors: unet\.{CROSS}.*model\.path=micro.*{base}"):
        read(wrong, layers)


def test_layers_the_model_has_not(layers: Layers, updates: Any) -> None:
    strange = {"lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": torch.ones(2, 16)}
    strange |= {name.replace("down", "up"): torch.ones(16, 2) for name in strange}
    with pytest.raises(UserError, match=r"has no layer for lora_te2_.*made for SDXL"):
        read(strange, layers)
    flux = {f"transformer.single_transformer_blocks.0.attn.to_q.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    with pytest.raises(UserError, match="made for a transformer such as FLUX"):
        read(flux, layers)


@pytest.mark.parametrize("kind", ["pissa", "pissa_niter_16", "olora", "loftq"])
def test_factors_of_a_base_that_was_changed(layers: Layers, updates: Any, kind: str) -> None:
    header = {METADATA: json.dumps({"unet.lora_alpha": 2, "unet.init_lora_weights": kind})}
    with pytest.raises(UserError, match=rf"mine\.safetensors: unet\.init_lora_weights={kind} changed the base's own"):
        read(peft_names(updates), layers, header)
    for kept in (True, "gaussian", "eva", "orthogonal"):
        read(peft_names(updates), layers, {METADATA: json.dumps({"unet.init_lora_weights": kept})})


def test_a_layer_given_twice(layers: Layers, updates: Any) -> None:
    """By two adapters of peft, in two tools' spellings, and under both of kohya's names for the first text encoder."""
    names = peft_names(updates)
    kohya, _ = to_kohya(updates, {}, "mia")
    named = {name.replace(".weight", ".second.weight"): value for name, value in names.items()}
    first = {name.replace("lora_te_", "lora_te1_"): value for name, value in kohya.items()}
    for more in (named, kohya):
        with pytest.raises(UserError, match=r"mine\.safetensors: \S+ and \S+ give one layer twice; keep one LoRA"):
            read({**names, **more}, layers)
    with pytest.raises(UserError, match=r"lora_te_text_model\S+ and lora_te1_text_model\S+ give one layer twice"):
        read({**kohya, **first}, layers)


def test_half_a_pair_and_alpha_alone(layers: Layers, updates: Any) -> None:
    names = peft_names(updates)
    with pytest.raises(UserError, match=r"has no other half"):
        read({name: value for name, value in names.items() if "lora_B" not in name}, layers)
    with pytest.raises(UserError, match=r"\.alpha has no factors"):
        read({**names, "unet.mid_block.attentions.0.proj_in.alpha": torch.tensor(1.0)}, layers)

"""Custom Diffusion's weights: a file diffusers' own classes wrote comes back, ours is whole, and others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor

from palp_lab.formats.custom_diffusion_files import (
    is_custom_diffusion,
    read_custom_diffusion,
    to_custom_diffusion,
    trained,
)
from palp_lab.formats.weights import read_weights
from palp_lab.model.pipeline import adaptable_layers, attention_paths, stock_denoiser
from palp_lab.model.unet import UNetModel
from palp_lab.types import UserError


def with_processors(model: UNetModel, train_q_out: bool) -> Any:
    """diffusers' UNet as its Custom Diffusion script sets it up before training."""
    unet = stock_denoiser(model)
    processors = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name in unet.attn_processors:
            attention = unet.get_submodule(name.removesuffix(".processor"))
            cross = attention.is_cross_attention
            processors[name] = CustomDiffusionAttnProcessor(
                train_kv=cross,
                train_q_out=cross and train_q_out,
                hidden_size=attention.to_q.out_features if cross else None,
                cross_attention_dim=attention.to_k.in_features if cross else None,
            )
        unet.set_attn_processor(processors)
    return unet


@pytest.mark.parametrize("whole", [False, True])
def test_what_diffusers_wrote_is_read(micro: UNetModel, tmp_path: Path, whole: bool) -> None:
    unet = with_processors(micro, whole)
    unet.save_attn_procs(tmp_path, safe_serialization=False)
    data, _ = read_weights(tmp_path / "pytorch_custom_diffusion_weights.bin")
    assert is_custom_diffusion(data)
    sites = [site.path for site in micro.sites]
    layers = adaptable_layers(micro)["denoiser"]
    weights, words = read_custom_diffusion("mine.bin", data, layers, sites)
    assert not words and len(trained(weights, sites)) == (5 if whole else 2)
    own = unet.get_submodule(f"{sites[3]}.processor")
    assert torch.equal(weights[f"{sites[3]}.to_v.weight"], own.to_v_custom_diffusion.weight)
    if whole:
        assert torch.equal(weights[f"{sites[3]}.to_out.0.bias"], own.to_out_custom_diffusion[0].bias)
    ours = to_custom_diffusion(weights, attention_paths(micro), torch.float32)
    empty = {name for name, value in ours.items() if not len(value)}
    assert empty == {f"{path}.processor" for path in attention_paths(micro) if path not in sites}
    again, _ = read_custom_diffusion("mine.safetensors", ours, layers, sites)
    assert all(torch.equal(again[name], weights[name]) for name in weights) and again.keys() == weights.keys()


def test_the_authors_delta_brings_its_word(micro: UNetModel) -> None:
    sites = [site.path for site in micro.sites]
    layers = adaptable_layers(micro)["denoiser"]
    named = {f"{at}.{kind}.weight": layers[f"{at}.{kind}"].weight * 2 for at in sites for kind in ("to_k", "to_v")}
    delta: dict[str, Any] = {"unet": named, "modifier_token": {"<new1>": torch.ones(16)}}
    weights, words = read_custom_diffusion("delta.bin", delta, layers, sites)
    assert list(words) == ["<new1>"] and weights.keys() == named.keys()
    with pytest.raises(UserError, match="text_encoder was trained"):
        read_custom_diffusion("delta.bin", delta | {"text_encoder": {}}, layers, sites)
    first = next(iter(named))
    with pytest.raises(UserError, match="compressed"):
        read_custom_diffusion("delta.bin", delta | {"unet": named | {first: {"u": 1, "v": 2}}}, layers, sites)
    with pytest.raises(UserError, match=rf"delta\.bin: {first} is \(3, 3\) and the model has"):
        read_custom_diffusion("delta.bin", delta | {"unet": named | {first: torch.ones(3, 3)}}, layers, sites)
    some = {name: value for name, value in named.items() if name != first}
    with pytest.raises(UserError, match="not those of every cross-attention"):
        read_custom_diffusion("delta.bin", delta | {"unet": some}, layers, sites)

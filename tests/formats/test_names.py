"""Layers under the names of other tools: each has one, and the blocks are counted as the original code counts them."""

from __future__ import annotations

import pytest

from palp_lab.formats.names import flat, ldm_path, ldm_paths

SDXL = {
    "conv_in": "input_blocks.0.0",
    "down_blocks.0.resnets.1.conv1": "input_blocks.2.0.in_layers.2",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_k": "input_blocks.4.1.transformer_blocks.1.attn1.to_k",
    "down_blocks.2.attentions.1.proj_in": "input_blocks.8.1.proj_in",
    "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
    "mid_block.attentions.0.proj_out": "middle_block.1.proj_out",
    "up_blocks.0.attentions.2.proj_in": "output_blocks.2.1.proj_in",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
    "up_blocks.2.resnets.0.conv_shortcut": "output_blocks.6.0.skip_connection",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
}
"""Layers of SDXL's UNet (two layers per block) and their names in its original checkpoint."""


@pytest.mark.parametrize(("path", "name"), SDXL.items())
def test_layers_of_sdxl_have_their_original_names(path: str, name: str) -> None:
    assert ldm_path(path, 2) == name


def test_every_layer_of_a_unet_has_a_name_of_its_own(micro) -> None:  # type: ignore[no-untyped-def]
    paths = [path for path, module in micro.base.named_modules() if path and not list(module.children())]
    names = ldm_paths(paths, micro.base.config.layers_per_block)
    assert len(set(names.values())) == len(paths)


def test_kohya_writes_one_word() -> None:
    assert flat("lora_unet", "mid_block.attentions.0.proj_in") == "lora_unet_mid_block_attentions_0_proj_in"

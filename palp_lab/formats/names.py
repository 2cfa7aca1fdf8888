"""How other tools spell the layers of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable

RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
"""Layers of a residual block: diffusers' names and those of the original code."""
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def ldm_path(path: str, layers: int, attends: bool = True) -> str:
    """A layer of a UNet under the names of the original latent-diffusion code, which kohya's tools use for SDXL.

    `layers` is the UNet's layers_per_block; `attends` says that the block has attention (its upsampler stands behind).

    Source: openaimodel.py of github.com/CompVis/latent-diffusion, the order its constructor appends blocks in.
    """
    if path in ENDS:
        return ENDS[path]
    if found := MIDDLE.fullmatch(path):
        kind, number, rest = found.groups()
        place = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{_inner(kind, rest)}"
    if not (found := BLOCK.fullmatch(path)):
        return path
    side, block, kind, number, rest = found.groups()
    start = int(block) * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{start + layers + 1}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{start + layers}.{2 if attends else 1}.{rest}"
    first = "input_blocks" if side == "down_blocks" else "output_blocks"
    index = start + int(number) + (1 if side == "down_blocks" else 0)
    return f"{first}.{index}.{1 if kind == 'attentions' else 0}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    return RESNET.get(rest, rest) if kind == "resnets" else rest


def ldm_paths(paths: Iterable[str], layers: int) -> dict[str, str]:
    """The original code's name of every layer of a UNet."""
    paths = list(paths)
    attending = {path.split(".attentions.")[0] for path in paths if ".attentions." in path}
    return {path: ldm_path(path, layers, ".".join(path.split(".")[:2]) in attending) for path in paths}


def flat(prefix: str, path: str) -> str:
    """kohya's spelling: one word, dots as underscores, e.g. lora_unet_mid_block_attentions_0_proj_in."""
    return f"{prefix}_{path.replace('.', '_')}"

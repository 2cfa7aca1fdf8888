"""Weights of a diffusers folder under the names of the original code bases, as one file would hold them.

Written from the modules of the original repositories (CompVis' ldm, Stability's sgm, open_clip), not from diffusers'
conversion, which it is to prove.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
OUTSIDE = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
RESBLOCK = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip


def one_file(pipeline: Any) -> dict[str, Tensor]:
    """All weights of a stock pipeline as a checkpoint of the original layout."""
    if "transformer" in pipeline.components:
        return {name: weight.clone().contiguous() for name, weight in stable_diffusion_3(pipeline)}
    found = {f"model.diffusion_model.{name}": w for name, w in unet(pipeline.unet)}
    found |= {f"first_stage_model.{name}": w for name, w in autoencoder(pipeline.vae)}
    clip = flat(pipeline.text_encoder)
    if "text_encoder_2" in pipeline.components:
        found |= {f"conditioner.embedders.0.transformer.text_model.{name}": w for name, w in clip.items()}
        found |= {f"conditioner.embedders.1.model.{name}": w for name, w in open_clip(pipeline.text_encoder_2)}
    else:
        found |= {f"cond_stage_model.transformer.text_model.{name}": w for name, w in clip.items()}
        length = clip["embeddings.position_embedding.weight"].shape[0]
        found["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(length)[None]
    return {name: weight.clone().contiguous() for name, weight in found.items()}


MMDIT = {
    "pos_embed.pos_embed": "pos_embed", "pos_embed.proj": "x_embedder.proj", "context_embedder": "context_embedder",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0", "proj_out": "final_layer.linear",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
}  # fmt: skip
JOINT = {
    "norm1.linear": "x_block.adaLN_modulation.1", "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2", "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2", "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj", "attn2.to_out.0": "x_block.attn2.proj",
    "attn.norm_q": "x_block.attn.ln_q", "attn.norm_k": "x_block.attn.ln_k", "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k", "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
}  # fmt: skip
JOINED = {
    "x_block.attn": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn2": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "context_block.attn": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}  # fmt: skip


def stable_diffusion_3(pipeline: Any) -> Iterator[tuple[str, Tensor]]:
    """sd3-ref's names: one matrix for queries, keys and values; where a block only scales and shifts, the shift is
    first."""
    state, last = pipeline.transformer.state_dict(), len(pipeline.transformer.transformer_blocks) - 1
    for name, weight in state.items():
        path, _, kind = name.rpartition(".")
        inside = re.fullmatch(r"transformer_blocks\.(\d+)\.(.*)", path)
        if name in MMDIT:
            yield f"model.diffusion_model.{MMDIT[name]}", weight
        elif inside is None:
            swapped = torch.cat(weight.chunk(2)[::-1]) if path == "norm_out.linear" else weight
            yield f"model.diffusion_model.{MMDIT[path]}.{kind}", swapped
        elif inside[2] in JOINT:
            two = int(inside[1]) == last and inside[2] == "norm1_context.linear"
            swapped = torch.cat(weight.chunk(2)[::-1]) if two else weight
            yield f"model.diffusion_model.joint_blocks.{inside[1]}.{JOINT[inside[2]]}.{kind}", swapped
        elif (block := next((block for block, parts in JOINED.items() if inside[2] == parts[0]), None)) is not None:
            joined = [state[f"transformer_blocks.{inside[1]}.{part}.{kind}"] for part in JOINED[block]]
            yield f"model.diffusion_model.joint_blocks.{inside[1]}.{block}.qkv.{kind}", torch.cat(joined)
    for name, weight in autoencoder(pipeline.vae):
        yield f"first_stage_model.{name}", weight
    for part, there in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g")):
        for name, weight in flat(getattr(pipeline, part)).items():
            inner = name if name.startswith("text_projection") else f"text_model.{name}"
            yield f"text_encoders.{there}.transformer.{inner}", weight
    if pipeline.text_encoder_3 is not None:
        for name, weight in pipeline.text_encoder_3.state_dict().items():
            if name != "encoder.embed_tokens.weight":  # the same as shared.weight
                yield f"text_encoders.t5xxl.transformer.{name}", weight


def flat(encoder: Any) -> dict[str, Tensor]:
    """A text encoder's weights without the `text_model.` that some of transformers' classes and versions put before."""
    return {name.removeprefix("text_model."): weight for name, weight in encoder.state_dict().items()}


def unet(model: Any) -> Iterator[tuple[str, Tensor]]:
    """input_blocks count every layer and every downsampling; output_blocks hold the upsampling beside their last."""
    place: dict[str, str] = dict(OUTSIDE)
    number = 1
    for level, block in enumerate(model.down_blocks):
        attentions = len(getattr(block, "attentions", ()))
        for layer in range(len(block.resnets)):
            place[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{number}.0"
            if attentions:
                place[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        if block.downsamplers:
            place[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    place |= {
        "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }  # fmt: skip
    number = 0
    for level, block in enumerate(model.up_blocks):
        attentions = len(getattr(block, "attentions", ()))
        for layer in range(len(block.resnets)):
            place[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{number}.0"
            if attentions:
                place[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{number}.1"
            number += 1
        if block.upsamplers:
            place[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{number - 1}.{2 if attentions else 1}.conv"
    for name, weight in model.state_dict().items():
        here = next(path for path in place if name.startswith(f"{path}."))
        rest = name.removeprefix(f"{here}.")
        if ".resnets." in here:
            inner, _, kind = rest.rpartition(".")
            rest = f"{RESNET[inner]}.{kind}"
        yield f"{place[here]}.{rest}", weight


def autoencoder(model: Any) -> Iterator[tuple[str, Tensor]]:
    """down and up count from the finest level; attention is made of convolutions of one pixel."""
    levels = len(model.encoder.down_blocks)
    for name, weight in model.state_dict().items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f"up.{levels - 1 - int(m[1])}.upsample.", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        if "mid_block.attentions.0" in new:
            new = new.replace("mid_block.attentions.0", "mid.attn_1")
            for ours, original in (("group_norm", "norm"), ("to_out.0", "proj_out")):
                new = new.replace(f"attn_1.{ours}", f"attn_1.{original}")
            new = re.sub(r"attn_1\.to_([qkv])", r"attn_1.\1", new)
            if weight.ndim == 2:
                weight = weight[:, :, None, None]
        yield new, weight


def open_clip(encoder: Any) -> Iterator[tuple[str, Tensor]]:
    """One matrix for queries, keys and values; the projection lies the other way round."""
    state = flat(encoder)
    yield "positional_embedding", state["embeddings.position_embedding.weight"]
    yield "token_embedding.weight", state["embeddings.token_embedding.weight"]
    yield "ln_final.weight", state["final_layer_norm.weight"]
    yield "ln_final.bias", state["final_layer_norm.bias"]
    yield "text_projection", state["text_projection.weight"].T
    yield "logit_scale", torch.tensor(4.6)
    for number in range(encoder.config.num_hidden_layers):
        here, there = f"encoder.layers.{number}", f"transformer.resblocks.{number}"
        for kind in ("weight", "bias"):
            joined = [state[f"{here}.self_attn.{one}_proj.{kind}"] for one in "qkv"]
            yield f"{there}.attn.in_proj_{kind}", torch.cat(joined)
            for ours, original in RESBLOCK.items():
                yield f"{there}.{original}.{kind}", state[f"{here}.{ours}.{kind}"]

"""The tiny flow models as ordinary folders: of a StableDiffusion3Pipeline and of a StableDiffusionPipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, StableDiffusion3Pipeline, StableDiffusionPipeline
from diffusers.models.attention_processor import JointAttnProcessor2_0
from torch import nn

from palp_lab.layouts import name_customarily
from palp_lab.tinyworld.pretrain_flow import build_flow_scheduler, build_flow_task
from palp_lab.tinyworld.pretrain_flow_unet import build_flow_unet_scheduler, build_flow_unet_task
from palp_lab.tinyworld.pretrain_loop import load_averaged
from palp_lab.tinyworld.pretrain_pipeline import stable_diffusion
from palp_lab.tinyworld.pretrain_text import build_tokenizer


def assemble_flow(folder: Path) -> tuple[StableDiffusion3Pipeline, dict]:
    """The pipeline of the averaged weights of stage "flow", without T5, and its bookkeeping."""
    task = build_flow_task(folder, 1, False)
    about = load_averaged(task, folder / "flow")
    task.transformer.set_attn_processor(JointAttnProcessor2_0())
    autoencoder = AutoencoderKL.from_pretrained(folder / "autoencoder" / "model")
    autoencoder.register_to_config(shift_factor=0.0)  # Stable Diffusion 3's pipeline adds it, none or not
    pipeline = StableDiffusion3Pipeline(
        vae=autoencoder,
        text_encoder=task.text.eval(),
        tokenizer=build_tokenizer(),
        text_encoder_2=task.text_2.eval(),
        tokenizer_2=build_tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
        transformer=task.transformer.eval(),
        scheduler=build_flow_scheduler(),
    )
    return pipeline, about


def assemble_flow_unet(folder: Path) -> tuple[StableDiffusionPipeline, dict]:
    """The pipeline of the averaged weights of stage "flow_unet" and its bookkeeping."""
    task = build_flow_unet_task(folder, 1, False)
    about = load_averaged(task, folder / "flow_unet")
    return stable_diffusion(folder, task.unet, task.text, build_flow_unet_scheduler()), about


def save_flow(pipeline: Any, target: Path) -> None:
    """Saves everything in half precision. The text encoders' configurations say float32, which is what transformers
    then opens them in, as diffusers does the rest."""
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    try:
        for part in parts:
            part.half()
        pipeline.save_pretrained(target)
    finally:
        for part in parts:
            part.float()
    for path in target.glob("text_encoder*/config.json"):
        config = {**json.loads(path.read_text(encoding="utf-8")), "dtype": "float32"}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    name_customarily(target)

"""Trained parts as an ordinary StableDiffusionPipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from transformers import CLIPTextModel

from palp_lab.tinyworld.pretrain_generator import build_scheduler
from palp_lab.tinyworld.pretrain_loop import load_averaged
from palp_lab.tinyworld.pretrain_stages import build_generator_task
from palp_lab.tinyworld.pretrain_text import build_tokenizer


def assemble(folder: Path, name: str) -> tuple[StableDiffusionPipeline, dict]:
    """The pipeline of the averaged weights of stage "generator" or "generator_small", and its bookkeeping."""
    task = build_generator_task(folder, name, 1, False)
    about = load_averaged(task, folder / name)
    return stable_diffusion(folder, task.unet, task.text, build_scheduler()).to(torch.float32), about


def stable_diffusion(
    folder: Path, unet: UNet2DConditionModel, text: CLIPTextModel, scheduler: Any
) -> StableDiffusionPipeline:
    """The stock pipeline of a trained UNet and text encoder over the autoencoder in `folder`."""
    unet.set_attn_processor(AttnProcessor2_0())
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "autoencoder" / "model"),
        text_encoder=text.eval(),
        tokenizer=build_tokenizer(),
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )

"""Narrow random pipelines of Stable Diffusion 3's classes with every feature on: what its tests run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.micro import LENGTH, WORDS, tokenizer

WIDTHS = (16, 24)
"""Of the two CLIP text encoders."""
CONTEXT = 48
"""Width of the transformer's text: wider than both CLIPs together, so that they are filled up with zeros."""


def t5_tokenizer(words: str = WORDS) -> Any:
    """A T5 tokenizer with a piece for every word and every letter."""
    from transformers import T5Tokenizer

    signs = "abcdefghijklmnopqrstuvwxyz<>,.!'-"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", -3.0) for word in dict.fromkeys(words.split())] + [(sign, -6.0) for sign in signs]
    return T5Tokenizer(vocab=pieces, extra_ids=0, additional_special_tokens=None)


def clip_text(words: Any, width: int, seed: int, projected: int) -> Any:
    """A CLIP text encoder with a projection, of two layers."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=LENGTH, projection_dim=projected,
            bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
        )
    )  # fmt: skip


def build(folder: Path, t5: bool = True, shift: float = 3.0, seed: int = 0, identity: bool = False) -> Path:
    """Writes a pipeline of 32 px: latents 16 x 8 x 8 in patches of 2, three blocks with normalised queries and keys,
    the first with a second attention (3.5), positions cut from a larger table, scaled and shifted latents. With
    `identity` the first text encoder's projection changes nothing, as diffusers takes it to be in a single file."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import T5Config, T5EncoderModel

    words, pieces = tokenizer(), t5_tokenizer()
    projected = [WIDTHS[0] - (0 if identity else 4), WIDTHS[1] - 4]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=16, out_channels=16, num_layers=3, attention_head_dim=8,
            num_attention_heads=4, joint_attention_dim=CONTEXT, caption_projection_dim=32,
            pooled_projection_dim=sum(projected), pos_embed_max_size=12, dual_attention_layers=(0,),
            qk_norm="rms_norm",
        )  # fmt: skip
        autoencoder = AutoencoderKL(
            block_out_channels=(8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, latent_channels=16, norm_num_groups=4,
            sample_size=32, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False,
        )  # fmt: skip
        clips = [clip_text(words, width, seed + number, projected[number]) for number, width in enumerate(WIDTHS)]
        if identity:
            torch.nn.init.eye_(clips[0].text_projection.weight)
        third = T5EncoderModel(
            T5Config(
                vocab_size=len(pieces), d_model=CONTEXT, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
                feed_forward_proj="gated-gelu",
            )
        )  # fmt: skip
        with torch.no_grad():  # random gates are nearly closed: larger ones make every branch matter
            for name, weight in transformer.named_parameters():
                weight.mul_(6 if "norm1" in name and name.endswith("weight") else 2 if "context" in name else 1)
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=shift), vae=autoencoder,
        text_encoder=clips[0], tokenizer=words, text_encoder_2=clips[1], tokenizer_2=tokenizer(),
        text_encoder_3=third if t5 else None, tokenizer_3=pieces if t5 else None,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder

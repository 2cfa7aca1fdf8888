"""A random Stable Diffusion XL pipeline of some ten thousand weights, with every feature of the family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from palp_lab.model.sdxl import SdxlModel
from tests.micro import LENGTH, tokenizer

WIDTHS = (16, 24)
"""Of the two text encoders."""
POOLED = 12
SIZES = 8
"""Numbers each of the six sizes is embedded in."""


def text_encoder(kind: Any, words: Any, width: int, **more: Any) -> Any:
    from transformers import CLIPTextConfig

    return kind(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3,
            num_attention_heads=2, max_position_embeddings=LENGTH, projection_dim=POOLED,
            bos_token_id=words.bos_token_id, eos_token_id=2, pad_token_id=1, **more,
        )
    )  # fmt: skip


def build(folder: Path, seed: int = 2, zeros_for_empty: bool = True) -> Path:
    """Writes a random pipeline: 32 px, latents 4 x 16 x 16, 8 sites (one level without attention, two layers per
    transformer), two text encoders of different widths, pads and activations, both with the old EOS."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    words, other_words = tokenizer(), tokenizer()
    other_words.pad_token = "!"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=[1, 2], attention_head_dim=[1, 2], use_linear_projection=True,
            cross_attention_dim=sum(WIDTHS), addition_embed_type="text_time", addition_time_embed_dim=SIZES,
            projection_class_embeddings_input_dim=POOLED + 6 * SIZES,
        )  # fmt: skip
        autoencoder = AutoencoderKL(
            block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=32,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            scaling_factor=0.13025, force_upcast=True,
        )  # fmt: skip
        first = text_encoder(CLIPTextModel, words, WIDTHS[0], hidden_act="quick_gelu")
        second = text_encoder(CLIPTextModelWithProjection, other_words, WIDTHS[1], hidden_act="gelu")
        # Random attention hardly looks at the text; larger weights make a prompt matter in tests.
        with torch.no_grad():
            for name, weight in unet.named_parameters():
                if ("attn2" in name or "add_embedding" in name) and name.endswith("weight"):
                    weight.mul_(3)
    scheduler = EulerDiscreteScheduler.from_config(
        {
            "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "timestep_spacing": "leading", "steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False,
        }
    )  # fmt: skip
    pipeline = StableDiffusionXLPipeline(
        vae=autoencoder, text_encoder=first, text_encoder_2=second, tokenizer=words, tokenizer_2=other_words,
        unet=unet, scheduler=scheduler, force_zeros_for_empty_prompt=zeros_for_empty, add_watermarker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def micro_sdxl_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random micro SDXL pipeline. Read only."""
    return build(tmp_path_factory.mktemp("micro") / "sdxl")


@pytest.fixture
def micro_sdxl(micro_sdxl_path: Path) -> SdxlModel:
    """A fresh model on the micro SDXL pipeline, on the CPU in float32."""
    return SdxlModel.open(micro_sdxl_path)

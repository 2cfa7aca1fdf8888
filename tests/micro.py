"""A random Stable Diffusion pipeline of some ten thousand weights, built in a second: what fast tests run on."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from palp_lab.model.unet import UNetModel

WORDS = (
    "a an the of in on at with and by to is next front inspired photo picture painting sketch drawing render "
    "watercolor close up cropped dark bright clean dirty good bad small large nice weird cool rendition far away "
    "cat dog bird fish horse mouse bear robot car boat house cup vase hat scarf glasses bow tie crown "
    "snow paris beach forest night city desert garden street room sea field "
    "red green blue yellow orange purple pink black white grey spotted striped plain"
)
LENGTH = 32


def tokenizer(words: str = WORDS):
    """A CLIP tokenizer in which every one of `words` is a single token and any other text falls into bytes."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = learn_merges(words.split())
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), *(a + b for a, b in merges)]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair encoding until every word is one piece. Ties go to the first pair in the alphabet: the trainer of
    `tokenizers` breaks them differently from run to run."""
    split = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges = []
    while pairs := Counter(pair for word in split for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = [_merged(word, best) for word in split]
    return merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def build(folder: Path, prediction: str = "epsilon", seed: int = 0) -> Path:
    """Writes a random pipeline: 32 px, latents 4 x 8 x 8, three levels with cross-attention (10 sites), 32 tokens."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
        UniPCMultistepScheduler,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    words = tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16, 16),
            down_block_types=("CrossAttnDownBlock2D",) * 3,
            up_block_types=("CrossAttnUpBlock2D",) * 3,
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        autoencoder = AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=32,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=LENGTH,
                bos_token_id=words.bos_token_id,
                eos_token_id=words.eos_token_id,
                pad_token_id=words.pad_token_id,
            )
        )
        # Random attention hardly looks at the text; larger keys, queries and values make a prompt matter in tests.
        with torch.no_grad():
            for name, weight in unet.named_parameters():
                if "attn2" in name and name.endswith("weight"):
                    weight.mul_(3)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    if prediction == "flow_prediction":
        scheduler = UniPCMultistepScheduler(prediction_type=prediction, use_flow_sigmas=True, flow_shift=2.0)
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def micro_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random micro pipeline that predicts noise. Read only."""
    return build(tmp_path_factory.mktemp("micro") / "eps")


@pytest.fixture(scope="session")
def micro_v_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random micro pipeline that predicts v. Read only."""
    return build(tmp_path_factory.mktemp("micro") / "v", prediction="v_prediction", seed=1)


@pytest.fixture(scope="session")
def micro_flow_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random micro pipeline on a straight path, shifted by 2. Read only."""
    return build(tmp_path_factory.mktemp("micro") / "flow", prediction="flow_prediction", seed=1)


@pytest.fixture
def micro(micro_path: Path) -> UNetModel:
    """A fresh model on the micro pipeline, on the CPU in float32."""
    return UNetModel.open(micro_path)


@pytest.fixture
def micro_v(micro_v_path: Path) -> UNetModel:
    """As `micro`, predicting v."""
    return UNetModel.open(micro_v_path)

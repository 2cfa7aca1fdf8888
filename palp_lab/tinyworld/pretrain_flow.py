"""The tiny flow model: a narrow SD3 transformer over the tiny models' latents, trained by flow matching."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from palp_lab.tinyworld.pretrain_autoencoder import CHANNELS
from palp_lab.tinyworld.pretrain_generator import EMPTY, STEPS
from palp_lab.tinyworld.pretrain_loop import AbstractTask, Batch, load_averaged
from palp_lab.tinyworld.pretrain_stages import build_generator_task, token_table
from palp_lab.tinyworld.pretrain_text import WIDTH, build_tokenizer, encode_captions, text_config
from palp_lab.types import UserError

BLOCKS, HEADS, HEAD = 4, 4, 32
"""Blocks of joint attention, heads and their width: 64 patches of 2 x 2 latents, 2.2 M parameters. Ours."""

SECOND = 64
"""Width of the second text encoder. Ours."""

ABSENT = 256
"""Tokens of zeros that StableDiffusion3Pipeline puts in the place of a T5 encoder that is not there (its default
max_sequence_length). They are all alike, so that one of them, counted so often, is exactly as good."""


def build_flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Straight paths without shift: the shift of SD3 makes up for large pictures (arXiv 2403.03206, section 5.3.2)."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=STEPS, shift=1.0)


def build_transformer() -> SD3Transformer2DModel:
    """A randomly initialised transformer whose residual branches and output start at zero."""
    width, context = HEADS * HEAD, WIDTH + SECOND
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=CHANNELS, out_channels=CHANNELS, num_layers=BLOCKS,
        attention_head_dim=HEAD, num_attention_heads=HEADS, joint_attention_dim=context,
        caption_projection_dim=width, pooled_projection_dim=context, pos_embed_max_size=8, qk_norm="rms_norm",
    )  # fmt: skip
    for block in transformer.transformer_blocks:
        for norm in (block.norm1, block.norm1_context):
            nn.init.zeros_(norm.linear.weight)
            nn.init.zeros_(norm.linear.bias)
        gates = [block.norm1] if block.context_pre_only else [block.norm1, block.norm1_context]
        for norm in gates:  # shift, scale, gate of attention, then of the perceptron: the gates start open
            with torch.no_grad():
                norm.linear.bias.view(6, width)[[2, 5]] = 1.0
        branches = [block.attn.to_out[0], block.ff.net[2]]
        branches += [] if block.context_pre_only else [block.attn.to_add_out, block.ff_context.net[2]]
        for layer in branches:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    for layer in (transformer.norm_out.linear, transformer.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return transformer


def build_text_encoders(tokenizer: CLIPTokenizer) -> tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection]:
    """The generator's architecture with a projection that starts as the identity (as CLIP-L has in SD3), and a narrow
    second one of two layers."""
    first = CLIPTextModelWithProjection(text_config(tokenizer))
    nn.init.eye_(first.text_projection.weight)
    return first, CLIPTextModelWithProjection(text_config(tokenizer, SECOND, layers=2, heads=2))


class MatrixJointAttention:
    """Joint attention in its matrix form, which is faster to differentiate on a CPU than the fused one. The last text
    token is counted `ABSENT` times. Bound to no module; final."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any
    ) -> tuple[Tensor, Tensor]:
        batch, patches, _width = hidden_states.shape

        def parted(x: Tensor, norm: Any) -> Tensor:
            x = x.view(batch, -1, attn.heads, HEAD).transpose(1, 2)
            return x if norm is None else norm(x)

        text = encoder_hidden_states
        seen, told = parted(attn.to_q(hidden_states), attn.norm_q), parted(attn.add_q_proj(text), attn.norm_added_q)
        query = torch.cat([seen, told], 2)
        seen, told = parted(attn.to_k(hidden_states), attn.norm_k), parted(attn.add_k_proj(text), attn.norm_added_k)
        key = torch.cat([seen, told], 2)
        value = torch.cat([parted(attn.to_v(hidden_states), None), parted(attn.add_v_proj(text), None)], 2)
        scores = (query * HEAD**-0.5) @ key.transpose(-1, -2)
        often = torch.zeros(scores.shape[-1], dtype=scores.dtype, device=scores.device)
        often[-1] = math.log(ABSENT)
        mixed = ((scores + often).softmax(-1).to(value.dtype) @ value).transpose(1, 2).flatten(2)
        seen, told = mixed[:, :patches], mixed[:, patches:]
        return attn.to_out[0](seen), told if attn.context_pre_only else attn.to_add_out(told)


class FlowMatching(AbstractTask):
    """Trains a transformer and its second text encoder to predict noise - x0 in cached latents; the first is frozen.

    `latents` float16 [n 8 16 16] are scaled; `captions` int16 [n variants length]; `empty` int16 [length]. Final.
    """

    def __init__(
        self, transformer: SD3Transformer2DModel, texts: tuple[Any, Any], latents: np.ndarray, captions: np.ndarray,
        empty: np.ndarray, batch: int = 16, bf16: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.transformer, (self.text, self.text_2) = transformer, texts
        self.latents, self.captions, self.empty, self.batch, self.bf16 = latents, captions, empty, batch, bf16
        self.text.requires_grad_(False)
        self.transformer.set_attn_processor(MatrixJointAttention())

    def draw(self, rng: torch.Generator) -> Batch:
        """Latents, their noise, logit-normal and stratified shares of noise, and the captions."""
        n, b = len(self.latents), self.batch
        rows = torch.randint(0, n, (b,), generator=rng)
        variant = torch.randint(0, self.captions.shape[1], (b,), generator=rng).numpy()
        ids = self.captions[rows.numpy(), variant].astype(np.int64)
        ids[torch.rand(b, generator=rng).numpy() < EMPTY] = self.empty.astype(np.int64)
        # One from each b-th of a standard logit-normal; arXiv 2403.03206, section 3.1.
        even = (torch.arange(b) + torch.rand(b, generator=rng)) / b
        sigma = torch.special.ndtri(even.clamp(1e-6, 1 - 1e-6)).sigmoid()
        x = torch.from_numpy(self.latents[rows.numpy()].astype(np.float32))
        return {"x": x, "noise": torch.randn(x.shape, generator=rng), "sigma": sigma, "ids": torch.from_numpy(ids)}

    def forward(self, batch: Batch) -> Tensor:
        """Squared error of the predicted velocity. Source: arXiv 2403.03206, Eq. 6 and 13 with w = 1 at the drawn t."""
        x, noise, sigma = batch["x"], batch["noise"], batch["sigma"]
        share = sigma.view(-1, 1, 1, 1)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            context, pooled = self.told(batch["ids"])
            predicted = self.transformer(
                (1 - share) * x + share * noise, context, pooled, sigma * STEPS, return_dict=False
            )[0]
        return (predicted.float() - (noise - x)).square().mean()

    def told(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Text tokens [b length+1 d], the absent T5's among them, and pooled vectors, as StableDiffusion3Pipeline."""
        with torch.no_grad():
            first = self.text(ids, output_hidden_states=True)
        second = self.text_2(ids, output_hidden_states=True)
        tokens = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        pooled = torch.cat([first.text_embeds, second.text_embeds], -1)
        return torch.cat([tokens, torch.zeros_like(tokens[:, :1])], 1), pooled


def build_flow_task(folder: Path, batch: int, bf16: bool, shipped: Path | None = None) -> FlowMatching:
    """The flow model over the cached latents; its first text encoder starts as the generator's: of the pipeline folder
    `shipped`, else of the stage "generator" in `folder`."""
    path = folder / "latents.npy"
    if not path.exists():
        raise UserError(f"{path}: no latents yet; run palp-lab pretrain stage=latents first")
    tokenizer = build_tokenizer()
    captions = token_table(folder, "generator", tokenizer)
    texts, transformer = build_text_encoders(tokenizer), build_transformer()
    empty = encode_captions(tokenizer, [""])[0]
    task = FlowMatching(transformer, texts, np.load(path, mmap_mode="r"), captions, empty, batch, bf16)
    if not (folder / "flow" / "checkpoint.pt").exists():
        texts[0].text_model.load_state_dict(_words(folder, shipped))
        standardise(task, torch.from_numpy(captions[:256, 0].astype(np.int64)), tokenizer.eos_token_id)
    return task


@torch.no_grad()
def standardise(task: FlowMatching, ids: Tensor, end: int) -> None:
    """Starts the text's entry where every feature of captions' words has mean 0 and deviation 1: in the last layer but
    one of a CLIP text encoder some are hundreds of times as large as others."""
    said = task.told(ids)[0][:, :-1][:, 1:][ids[:, 1:] != end]
    mean, deviation = said.mean(0), said.std(0)
    entry = task.transformer.context_embedder
    entry.weight.div_(deviation)
    entry.bias.sub_(entry.weight @ mean)


def _words(folder: Path, shipped: Path | None) -> dict[str, Tensor]:
    """The generator's text encoder."""
    if shipped is not None:
        from safetensors.torch import load_file

        return {k: v.float() for k, v in load_file(shipped / "text_encoder/model.safetensors").items()}
    if not (folder / "generator" / "checkpoint.pt").exists():
        raise UserError("flow reads generator's text encoder: run palp-lab pretrain stage=generator first")
    generator = build_generator_task(folder, "generator", 1, False)
    load_averaged(generator, folder / "generator")
    return generator.text.state_dict()

"""The tiny flow model: a narrow SD3 transformer over the tiny models' latents, trained by flow matching."""

from __future__ import annotations

import math
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from palp_lab.tinyworld.pretrain_autoencoder import CHANNELS
from palp_lab.tinyworld.pretrain_generator import EMPTY, SIZES, STEPS, build_scheduler, build_unet, focused
from palp_lab.tinyworld.pretrain_loop import AbstractTask, Batch, load_averaged
from palp_lab.tinyworld.pretrain_stages import build_generator_task, detail_table, load_shipped, token_table
from palp_lab.tinyworld.pretrain_text import (
    LAYERS,
    WIDTH,
    build_text_encoder,
    build_tokenizer,
    encode_captions,
    text_config,
)
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
    second one of two layers.

    The first has one layer more than the generator's, which changes nothing: Stable Diffusion 3 reads the last layer
    but one, and what a noun knows of its colours stands in the generator's last.
    """
    first = CLIPTextModelWithProjection(text_config(tokenizer, layers=LAYERS + 1))
    nn.init.eye_(first.text_projection.weight)
    extra = first.text_model.encoder.layers[LAYERS]
    for layer in (extra.self_attn.out_proj, extra.mlp.fc2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
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


class Teacher:
    """The generator as a teacher of velocities: at any share of noise its clean estimate stands for the picture.

    A picture and its noise are one of many answers to what is seen; a trained generator knows their mean, so that a
    small batch teaches as much as a large one. Ours.
    """

    def __init__(self, unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
        self.unet, self.text = unet.requires_grad_(False).eval(), text.requires_grad_(False).eval()
        self.unet.set_attn_processor(AttnProcessor())
        self.alphas = build_scheduler().alphas_cumprod.float()

    @torch.no_grad()
    def velocity(self, mixed: Tensor, share: Tensor, ids: Tensor, given: Tensor) -> Tensor:
        """The mean of noise - x0 at `mixed` [b 8 16 16] with `share` [b] of noise; `given` where there is more noise
        than the generator's clock holds."""
        alpha = (1 - share).square() / ((1 - share).square() + share.square())
        time = STEPS - 1 - torch.searchsorted(self.alphas.to(alpha).flip(0), alpha).clamp(0, STEPS - 1)
        signal, noise = alpha.sqrt().view(-1, 1, 1, 1), (1 - alpha).sqrt().view(-1, 1, 1, 1)
        seen = mixed / ((1 - share).square() + share.square()).sqrt().view(-1, 1, 1, 1)
        epsilon = self.unet(seen, time, self.text(ids).last_hidden_state).sample.float()
        taught = epsilon - (seen - noise * epsilon) / signal.clamp_min(1e-3)
        return torch.where((alpha >= self.alphas[-1]).view(-1, 1, 1, 1), taught, given)


class AbstractFlowMatching(AbstractTask):
    """Trains a network to predict noise - x0 in cached latents.

    `latents` float16 [n 8 16 16] are scaled; `captions` int16 [n variants length]; `empty` int16 [length]. With a
    `teacher` its velocity is what is learned. `details` and `focus` as for the generators.
    """

    def __init__(
        self, latents: np.ndarray, captions: np.ndarray, empty: np.ndarray, batch: int = 16, bf16: bool = True,
        teacher: Teacher | None = None, details: np.ndarray | None = None, focus: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        # A tuple, so that it is neither trained nor saved.
        self.teacher, self.details, self.focus = (teacher,), details, focus
        self.latents, self.captions, self.empty, self.batch, self.bf16 = latents, captions, empty, batch, bf16

    @abstractmethod
    def velocity(self, mixed: Tensor, share: Tensor, ids: Tensor) -> Tensor:
        """What the network says at `mixed` [b 8 16 16] with `share` [b] of noise under token `ids` [b length]."""

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
        drawn = {"x": x, "noise": torch.randn(x.shape, generator=rng), "sigma": sigma, "ids": torch.from_numpy(ids)}
        if self.details is not None and self.focus > 0:
            drawn["weight"] = focused(self.details[rows.numpy()], self.focus)
        return drawn

    def forward(self, batch: Batch) -> Tensor:
        """Squared error of the predicted velocity. Source: arXiv 2403.03206, Eq. 6 and 13 with w = 1 at the drawn t."""
        x, noise, sigma = batch["x"], batch["noise"], batch["sigma"]
        share, wanted = sigma.view(-1, 1, 1, 1), noise - x
        mixed = (1 - share) * x + share * noise
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            for teacher in filter(None, self.teacher):
                wanted = teacher.velocity(mixed, sigma, batch["ids"], wanted)
            predicted = self.velocity(mixed, sigma, batch["ids"])
        return ((predicted.float() - wanted).square() * batch.get("weight", 1.0)).mean()


class FlowMatching(AbstractFlowMatching):
    """Trains a transformer and its second text encoder; the first is frozen. Final."""

    def __init__(
        self, transformer: SD3Transformer2DModel, texts: tuple[Any, Any], latents: np.ndarray, captions: np.ndarray,
        empty: np.ndarray, batch: int = 16, bf16: bool = True, teacher: Teacher | None = None,
        details: np.ndarray | None = None, focus: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(latents, captions, empty, batch, bf16, teacher, details, focus)
        self.transformer, (self.text, self.text_2) = transformer, texts
        self.text.requires_grad_(False)
        self.transformer.set_attn_processor(MatrixJointAttention())

    def velocity(self, mixed: Tensor, share: Tensor, ids: Tensor) -> Tensor:
        context, pooled = self.told(ids)
        return self.transformer(mixed, context, pooled, share * STEPS, return_dict=False)[0]

    def told(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Text tokens [b length+1 d], the absent T5's among them, and pooled vectors, as StableDiffusion3Pipeline."""
        with torch.no_grad():
            first = self.text(ids, output_hidden_states=True)
        second = self.text_2(ids, output_hidden_states=True)
        tokens = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        pooled = torch.cat([first.text_embeds, second.text_embeds], -1)
        return torch.cat([tokens, torch.zeros_like(tokens[:, :1])], 1), pooled


def build_flow_task(
    folder: Path, batch: int, bf16: bool, shipped: Path | None = None, focus: float = 0.0, taught: bool = False
) -> FlowMatching:
    """The flow model over the cached latents; its first text encoder starts as the generator's: of the pipeline folder
    `shipped`, else of the stage "generator" in `folder`. With `taught`, that generator is its teacher."""
    path = folder / "latents.npy"
    if not path.exists():
        raise UserError(f"{path}: no latents yet; run palp-lab pretrain stage=latents first")
    tokenizer = build_tokenizer()
    captions = token_table(folder, "generator", tokenizer)
    texts, transformer = build_text_encoders(tokenizer), build_transformer()
    empty = encode_captions(tokenizer, [""])[0]
    latents = np.load(path, mmap_mode="r")
    captions = captions[: len(latents)]
    begins = not (folder / "flow" / "checkpoint.pt").exists()
    teacher = None
    if taught or begins:
        unet, text = trained_generator(folder, shipped)
        teacher = Teacher(unet, text) if taught else None
    details = detail_table(folder, "generator")[: len(latents)] if focus > 0 else None
    task = FlowMatching(transformer, texts, latents, captions, empty, batch, bf16, teacher, details, focus)
    if begins:
        _adopt(texts[0], text)
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


def _adopt(first: CLIPTextModelWithProjection, text: Any) -> None:
    """The generator's text encoder into the first one, whose extra layer stays as it is."""
    missing, unknown = first.text_model.load_state_dict(text.state_dict(), strict=False)
    if unknown or not all(f"layers.{LAYERS}." in name for name in missing):
        raise UserError("the generator's text encoder is of another architecture than this version trains")


def trained_generator(folder: Path, shipped: Path | None) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """The generator's UNet and text encoder: of the pipeline folder `shipped`, else of the stage in `folder`."""
    if shipped is not None:
        unet, text = build_unet(SIZES["generator"]), build_text_encoder(build_tokenizer())
        load_shipped(shipped, "unet/diffusion_pytorch_model.safetensors", unet)
        load_shipped(shipped, "text_encoder/model.safetensors", text)
        return unet, text
    if not (folder / "generator" / "checkpoint.pt").exists():
        raise UserError("flow and flow_unet read the generator: run palp-lab pretrain stage=generator first")
    generator = build_generator_task(folder, "generator", 1, False)
    load_averaged(generator, folder / "generator")
    return generator.unet, generator.text

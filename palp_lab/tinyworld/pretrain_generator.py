"""The tiny text-to-image models: two UNets of different size over one autoencoder, one text encoder, one schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel

from palp_lab.tinyworld.pretrain_autoencoder import CHANNELS
from palp_lab.tinyworld.pretrain_loop import AbstractTask, Batch
from palp_lab.tinyworld.pretrain_text import WIDTH, ids_of

STEPS = 1000
"""Length of the diffusion clock. Source: SD 1.x."""

SNR_CLAMP = 5.0
"""Largest weight of a clean estimate's error. Source: 2303.09556, section 3.4 (min-SNR)."""

NOISE_CLAMP = 12.0
"""Largest weight of the noise's error: of the very noisiest inputs only the data's variance is left. Ours."""

EMPTY = 0.1
"""Share of empty prompts. Source: 2207.12598 (classifier-free guidance), section 3.1, and SD 1.x."""


@dataclass(frozen=True)
class UNetSize:
    """Widths of the levels 16 × 16, 8 × 8 and 4 × 4, and attention heads of each; the numbers are ours."""

    widths: tuple[int, int, int]
    heads: tuple[int, int, int]


SIZES = {
    "generator": UNetSize((32, 96, 128), (1, 2, 4)),
    "generator_small": UNetSize((32, 48, 64), (1, 2, 2)),
}


def build_scheduler() -> DDIMScheduler:
    """The scaled linear schedule of SD 1.x, as the sampler that ships with the models."""
    return DDIMScheduler(
        num_train_timesteps=STEPS, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon",
    )  # fmt: skip


def build_unet(size: UNetSize, width: int = WIDTH) -> UNet2DConditionModel:
    """A randomly initialised UNet, cross-attention at all three resolutions; residual branches start at zero."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=size.widths,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=width,
        attention_head_dim=size.heads,
        norm_num_groups=16,
    )
    for module in unet.modules():
        kind = type(module).__name__
        if kind == "ResnetBlock2D":
            _zero(module.conv2)
        elif kind == "Transformer2DModel":
            _zero(module.proj_out)
    _zero(unet.conv_out)
    return unet


def _zero(layer: nn.Module) -> None:
    nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def clock(u: Tensor) -> Tensor:
    """Timesteps for ``u`` in [0, 1): 96 % of them evenly above 150, where all that a caption names is decided. Ours.

    Below, a sampler only sharpens; evenly drawn it would be 15 % of all steps.
    """
    low = 0.0375
    share = torch.where(u < low, u * 4, 0.15 + (u - low) / (1 - low) * 0.85)
    return (share * STEPS).long().clamp(0, STEPS - 1)


def noise_weight(alpha: Tensor) -> Tensor:
    """The weight of the squared error of the noise at cumulative ``alpha``: min(SNR + 1, 5) / SNR, at most 12.

    For the clean estimate that is min(SNR + 1, 5): the 1 is what lets colours be learned, which are decided where the
    noise is still the larger part and min(SNR, 5) counts next to nothing. Sources: 2202.00512, section 4 (SNR + 1);
    2303.09556, section 3.4 (the clamp); that both are joined, and the upper limit, is ours.
    """
    snr = alpha / (1 - alpha)
    return ((snr + 1).clamp_max(SNR_CLAMP) / snr).clamp_max(NOISE_CLAMP)


def focused(details: np.ndarray, focus: float) -> Tensor:
    """How much the error counts at every place, [b 1 16 16] with mean 1, for ``details`` uint8 [b 16 16]."""
    weight = 1 + focus / 255 * torch.from_numpy(details.astype(np.float32))
    return weight[:, None] / weight.mean()


class Denoising(AbstractTask):
    """Trains a UNet, and the text encoder with it unless that is frozen, to predict the noise in cached latents.

    ``latents`` float16 [n 8 16 16] are scaled; ``captions`` int16 [n variants length]; ``empty`` int16 [length] are the
    ids of the empty prompt. ``details`` uint8 [n 16 16] says where subjects and what they wear are; the error there
    counts 1 + ``focus`` times its share of 255, so that small things are learned sooner (ours).
    """

    def __init__(
        self, unet: UNet2DConditionModel, text: CLIPTextModel, latents: np.ndarray, captions: np.ndarray,
        empty: np.ndarray, batch: int = 32, train_text: bool = True, bf16: bool = True,
        details: np.ndarray | None = None, focus: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.unet, self.text, self.latents, self.captions, self.empty = unet, text, latents, captions, empty
        self.batch, self.train_text, self.bf16 = batch, train_text, bf16
        self.details, self.focus = details, focus if details is not None else 0.0
        self.text.requires_grad_(train_text)
        # The matrix form of attention is faster to differentiate on a CPU than its fused form.
        self.unet.set_attn_processor(AttnProcessor())
        self.register_buffer("alphas", build_scheduler().alphas_cumprod.float(), persistent=False)
        # A tuple, so that it is neither trained nor saved.
        self.given = () if train_text else ({k: v.clone() for k, v in text.state_dict().items()},)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of any module; but a frozen text encoder stays the larger model's, whatever the checkpoint holds."""
        report = super().load_state_dict(state, strict, assign)
        for weights in self.given:
            self.text.load_state_dict(weights)
        return report

    def draw(self, rng: torch.Generator) -> Batch:
        """Latents, their noise, stratified timesteps and the captions."""
        n, b = len(self.latents), self.batch
        rows = torch.randint(0, n, (b,), generator=rng)
        variant = torch.randint(0, self.captions.shape[1], (b,), generator=rng).numpy()
        ids = self.captions[rows.numpy(), variant].astype(np.int64)
        ids[torch.rand(b, generator=rng).numpy() < EMPTY] = self.empty.astype(np.int64)
        # One timestep from each b-th of the clock: the loss of a small batch varies less.
        t = clock((torch.arange(b) + torch.rand(b, generator=rng)) / b)
        x = torch.from_numpy(self.latents[rows.numpy()].astype(np.float32))
        drawn = {"x": x, "noise": torch.randn(x.shape, generator=rng), "t": t, "ids": torch.from_numpy(ids)}
        if self.details is not None and self.focus > 0:
            drawn["weight"] = focused(self.details[rows.numpy()], self.focus)
        return drawn

    def forward(self, batch: Batch) -> Tensor:
        """Squared error of the predicted noise, weighted by :func:`noise_weight`."""
        x, noise, t = batch["x"], batch["noise"], batch["t"]
        alpha = self.alphas[t].view(-1, 1, 1, 1)  # type: ignore[index]
        noisy = alpha.sqrt() * x + (1 - alpha).sqrt() * noise
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            with torch.set_grad_enabled(self.train_text and torch.is_grad_enabled()):
                context = self.text(batch["ids"]).last_hidden_state
            predicted = self.unet(noisy, t, context).sample
        error = (predicted.float() - noise).square()
        if "weight" in batch:
            error = error * batch["weight"]
        error = error.mean((1, 2, 3))
        return (error * noise_weight(alpha).flatten()).mean()


def caption_table(lines: list[list[str]], encode) -> np.ndarray:
    """Token ids of all captions of a set: int16 [n variants length]."""
    variants = len(lines[0])
    flat = encode([text for texts in lines for text in texts])
    return flat.reshape(len(lines), variants, -1)


def cache_latents(model: nn.Module, images: np.ndarray, target: Path, rows: range) -> None:
    """Writes the scaled posterior means of ``images[rows]`` into the float16 array at ``target``."""
    from palp_lab.tinyworld.pretrain_autoencoder import to_pixels

    out = np.load(target, mmap_mode="r+")
    scale = model.config.scaling_factor
    with torch.no_grad():
        for start in range(rows.start, rows.stop, 128):
            part = slice(start, min(start + 128, rows.stop))
            out[part] = (model.encode(to_pixels(images[part])).latent_dist.mean * scale).numpy().astype(np.float16)
    out.flush()


__all__ = [
    "SIZES",
    "Denoising",
    "UNetSize",
    "build_scheduler",
    "build_unet",
    "cache_latents",
    "caption_table",
    "ids_of",
]

"""The tiny autoencoder: 64 px to 16 × 16 latents; a stock AutoencoderKL whose encoder starts as a linear patch code."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from palp_lab.tinyworld.pretrain_loop import AbstractTask, Batch

CHANNELS = 8
"""Latent channels: a linear code of 4 × 4 patches keeps 25 dB with 8. Ours."""

_ANCHOR = 4.0
"""Constant beside every code at the encoder's last group norm, so that the norm hardly depends on the picture. Ours."""

_SPREAD = 0.5
"""Codes are scaled by their standard deviation to this power less 1: between raw (1) and whitened (0). Ours."""


def build_autoencoder(widths: tuple[int, ...] = (16, 32, 64)) -> AutoencoderKL:
    """A randomly initialised autoencoder with two halvings; no attention, so that a step stays cheap on a CPU."""
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )
    for resnet in _resnets(model):
        # A residual branch that starts at zero lets the linear path through untouched.
        nn.init.zeros_(resnet.conv2.weight)
        nn.init.zeros_(resnet.conv2.bias)
    return model


def _resnets(model: AutoencoderKL) -> list[nn.Module]:
    return [module for module in model.encoder.modules() if type(module).__name__ == "ResnetBlock2D"]


def patch_code(images: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components of 4 × 4 patches of uint8 ``images`` [n 64 64 3].

    Returns the mean [48], the directions [8 48] and their standard deviations [8]; a patch is ordered as the two
    strided convolutions see it: outer row, outer column, inner row, inner column, colour.
    """
    x = torch.from_numpy(np.array(images)).float().div(127.5).sub(1.0)
    n = len(x)
    x = x.reshape(n, 16, 2, 2, 16, 2, 2, 3).permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, 48)
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    return mean, vectors[:, -CHANNELS:].T.flip(0), values[-CHANNELS:].flip(0).clamp_min(1e-8).sqrt()


@torch.no_grad()
def start_linear(model: AutoencoderKL, images: np.ndarray) -> None:
    """Sets the encoder so that its mean is the linear code of ``images``' patches; other weights stay as they are."""
    mean, directions, deviations = patch_code(images)
    encoder = model.encoder
    first, second, third = encoder.down_blocks
    _clear(encoder.conv_in, 3)
    for colour in range(3):
        encoder.conv_in.weight[colour, colour, 1, 1] = 1.0
    down = first.downsamplers[0].conv
    _clear(down, 12)
    for row in range(2):
        for column in range(2):
            for colour in range(3):
                down.weight[(row * 2 + column) * 3 + colour, colour, row, column] = 1.0
    shortcut = second.resnets[0].conv_shortcut
    _clear(shortcut, 12)
    shortcut.weight[range(12), range(12)] = 1.0
    down = second.downsamplers[0].conv
    _clear(down, CHANNELS)
    # Unit codes up to here, so that the anchor has one meaning for all of them.
    unit = (directions / deviations[:, None]).reshape(CHANNELS, 2, 2, 12)
    down.weight[:CHANNELS, :12, :2, :2] = unit.permute(0, 3, 1, 2)
    down.bias[:CHANNELS] = -(unit.reshape(CHANNELS, 48) @ mean)
    shortcut = third.resnets[0].conv_shortcut
    width = shortcut.out_channels // CHANNELS
    for code in range(CHANNELS):
        here = code * width
        shortcut.weight[here : here + 4], shortcut.bias[here : here + 4] = 0.0, 0.0
        shortcut.weight[here, code], shortcut.weight[here + 1, code] = 1.0, -1.0
        shortcut.bias[here + 2], shortcut.bias[here + 3] = _ANCHOR, -_ANCHOR
    _read_out(model, deviations, width)


def _clear(convolution: nn.Conv2d, outputs: int) -> None:
    convolution.weight[:outputs] = 0.0
    convolution.bias[:outputs] = 0.0  # type: ignore[index]


def _read_out(model: AutoencoderKL, deviations: Tensor, width: int) -> None:
    """silu(a) - silu(-a) = a: a pair of mirrored channels passes the last nonlinearity unharmed."""
    out = model.encoder.conv_out
    out.weight.zero_()
    out.bias.zero_()
    gain = ((2 + 2 * _ANCHOR**2 + (width - 4) * 0.3) / width) ** 0.5
    scale = deviations**_SPREAD / (deviations**_SPREAD).mean()
    for code in range(CHANNELS):
        out.weight[code, code * width, 1, 1] = gain * scale[code]
        out.weight[code, code * width + 1, 1, 1] = -gain * scale[code]
    model.quant_conv.weight.zero_()
    model.quant_conv.weight[range(2 * CHANNELS), range(2 * CHANNELS)] = 1.0
    model.quant_conv.bias.zero_()
    model.quant_conv.bias[CHANNELS:] = -6.0


@torch.no_grad()
def normalise_latents(model: AutoencoderKL, images: np.ndarray) -> None:
    """Moves the latents of ``images`` to mean zero per channel and writes ``scaling_factor``; decoding is unchanged.

    A StableDiffusionPipeline scales latents but does not shift them, so the shift must live in the weights.
    """
    latents = torch.cat(
        [model.encode(to_pixels(part)).latent_dist.mean for part in np.array_split(images, len(images) // 64)]
    )
    mean = latents.mean((0, 2, 3))
    model.quant_conv.bias[:CHANNELS] -= mean
    model.post_quant_conv.bias += model.post_quant_conv.weight[:, :, 0, 0] @ mean
    model.register_to_config(scaling_factor=round(float(1.0 / (latents - mean[:, None, None]).std()), 5))


def to_pixels(images: np.ndarray) -> Tensor:
    """uint8 [n 64 64 3] to float32 [n 3 64 64] in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def decibel(model: AutoencoderKL, images: np.ndarray) -> float:
    """Peak signal-to-noise ratio of reconstructions of ``images``, averaged over pictures, in dB."""
    values = []
    with torch.no_grad():
        for part in np.array_split(images, max(1, len(images) // 64)):
            x = to_pixels(part)
            y = model.decode(model.encode(x).latent_dist.mean).sample.clamp(-1, 1)
            values.append(-10 * torch.log10(((x - y) / 2).square().mean((1, 2, 3)).clamp_min(1e-10)))
    return float(torch.cat(values).mean())


class Reconstruction(AbstractTask):
    """Trains the autoencoder, or its decoder alone when ``decoder_only``."""

    def __init__(self, model: AutoencoderKL, images: np.ndarray, batch: int = 8, decoder_only: bool = False) -> None:
        super().__init__()
        self.model, self.images, self.batch = model, images, batch
        if decoder_only:
            model.encoder.requires_grad_(False)
            model.quant_conv.requires_grad_(False)

    def slow(self) -> tuple[list[nn.Parameter], float]:
        """The encoder starts near its end; at the decoder's rate it would lose that start."""
        return [
            p for part in (self.model.encoder, self.model.quant_conv) for p in part.parameters() if p.requires_grad
        ], 0.2

    def draw(self, rng: torch.Generator) -> Batch:
        """Pictures and the noise of their posterior."""
        rows = torch.randint(0, len(self.images), (self.batch,), generator=rng).sort().values
        noise = torch.randn(self.batch, CHANNELS, 16, 16, generator=rng)
        return {"x": to_pixels(self.images[rows.numpy()]), "noise": noise}

    def forward(self, batch: Batch) -> Tensor:
        """L1, squared error and the L1 of differences between neighbouring pixels, plus a small KL term."""
        x = batch["x"]
        posterior = self.model.encode(x).latent_dist
        y = self.model.decode(posterior.mean + posterior.std * batch["noise"]).sample
        error = y - x
        slope = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        return error.abs().mean() + 2 * error.square().mean() + 0.5 * slope + 1e-5 * kl

"""Stable Diffusion 1.x and 2.x, and everything of their shape: one CLIP text encoder, a UNet, an autoencoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from palp_lab.diffusion.path import VariancePreserving
from palp_lab.diffusion.prediction import Prediction
from palp_lab.model import sites as at
from palp_lab.model.base import AbstractModel, LatentDistribution, TextCond, Words
from palp_lab.model.folder import Folder, fingerprint
from palp_lab.model.schedulers import make_scheduler
from palp_lab.model.text import ClipText, concept_positions
from palp_lab.types import Capability, Kind, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.types import Latents, Pixels, Timesteps, Vectors

KINDS = {"epsilon": Kind.EPS, "v_prediction": Kind.V}


class UNetModel(AbstractModel):
    """A UNet-based latent diffusion model with one CLIP text encoder. Final.

    Source: arXiv 2112.10752. The base weights are frozen and in evaluation mode; latents are float32 outside.
    """

    provides = frozenset(Capability)

    def __init__(
        self,
        unet: Any,
        autoencoder: Any,
        text: ClipText,
        scheduler_config: Mapping[str, Any],
        *,
        path_name: str = "",
        autocast: bool = False,
        gradient_checkpointing: bool = False,
        channels_last: bool = False,
    ) -> None:
        for part in (unet, autoencoder, text.encoder):
            part.requires_grad_(False).eval()
        self.name = path_name
        self.denoiser = self.base = unet
        self.autoencoder = autoencoder
        self.text = text
        self.scheduler_config = dict(scheduler_config)
        self.kind = _kind(self.scheduler_config, path_name)
        self.path = VariancePreserving(make_scheduler("ddpm", self.scheduler_config).alphas_cumprod)
        self.sites = at.find_sites(unet)
        at.install(unet, self.sites)
        self.device = next(unet.parameters()).device
        self.dtype = next(unet.parameters()).dtype
        self.autocast = autocast
        side = unet.config.sample_size
        self.latent_shape = (unet.config.in_channels, side, side)
        self.resolution = side * _downscale(autoencoder)
        self.fingerprint = fingerprint(
            [unet, autoencoder, text.encoder], self.scheduler_config | self._untold(), text.tokenizer
        )
        if gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        if channels_last:
            unet.to(memory_format=torch.channels_last)

    @classmethod
    def open(
        cls,
        path: str | Path,
        dtype: str = "float32",
        device: str = "cpu",
        *,
        revision: str | None = None,
        variant: str | None = None,
        autocast: bool = False,
        gradient_checkpointing: bool = False,
        channels_last: bool = False,
    ) -> UNetModel:
        """Opens a diffusers folder, a hub id, or the name of a shipped model (`tiny`, `tiny_small`).

        `autocast` runs the denoiser's products in bfloat16 over float32 weights; `dtype` is what the frozen weights are
        held in. Raises UserError in one line for a folder that is missing, incomplete or of another shape.
        """
        folder = Folder.find(path, revision=revision, variant=variant)
        folder.expect("StableDiffusionPipeline")
        target = torch.device(device)
        number = getattr(torch, dtype)
        unet = folder.load("unet", number).to(target)
        autoencoder = folder.load("vae", number).to(target)
        text = ClipText(folder.load("tokenizer"), folder.load("text_encoder", number).to(target))
        return cls(
            unet,
            autoencoder,
            text,
            folder.load("scheduler").config,
            path_name=str(path),
            autocast=autocast,
            gradient_checkpointing=gradient_checkpointing,
            channels_last=channels_last,
        )

    def _untold(self) -> dict[str, Any]:
        """What the shapes of the weights do not tell and outputs depend on. Named one by one: whole configurations gain
        keys with every version of diffusers."""
        config = self.autoencoder.config
        return {
            "heads": [site.heads for site in self.sites],
            "scaling_factor": config.scaling_factor,
            "shift_factor": getattr(config, "shift_factor", None) or 0.0,
            "side": self.latent_shape[1],
        }

    @cached_property
    def autoencoder_fingerprint(self) -> str:
        scale = {key: value for key, value in self._untold().items() if key.endswith("_factor")}
        return fingerprint([self.autoencoder], scale, self.text.tokenizer)

    @torch.no_grad()
    def encode_image(self, pixels: Pixels) -> LatentDistribution:
        config = self.autoencoder.config
        encoded = self.autoencoder.encode(pixels.to(self.device, self.autoencoder.dtype))
        shift = getattr(config, "shift_factor", None) or 0.0
        if "latents" in encoded:  # AutoencoderTiny has no posterior
            mean = (encoded.latents.float() - shift) * config.scaling_factor
            return LatentDistribution(mean, torch.zeros_like(mean))
        posterior = encoded.latent_dist
        return LatentDistribution(
            (posterior.mean.float() - shift) * config.scaling_factor, posterior.std.float() * config.scaling_factor
        )

    @torch.no_grad()
    def decode_image(self, latents: Latents) -> Pixels:
        config = self.autoencoder.config
        latents = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
        return self.autoencoder.decode(latents.to(self.device, self.autoencoder.dtype)).sample.float().clamp(-1, 1)

    def tokenize(self, prompts: Sequence[str], placeholders: Mapping[str, Sequence[int]] | None = None) -> Words:
        ids, slot = self.text.tokenize(prompts, placeholders or {})
        return Words((ids.to(self.device),), (slot.to(self.device),))

    def encode_text(self, words: Words, vectors: tuple[Vectors, ...] = ()) -> TextCond:
        out = self.text.encode(words.ids[0], words.slot[0], vectors[0] if vectors else None)
        return TextCond(out.last_hidden_state, concept_positions(words.slot[0]))

    def word_vectors(self, word: str) -> tuple[Vectors, ...]:
        wide = torch.promote_types(self.text.table.dtype, torch.float32)
        return (self.text.table[self.text.pieces(word)].detach().to(wide, copy=True),)

    def pieces(self, text: str) -> tuple[list[int], ...]:
        return (self.text.pieces(text),)

    def predict(self, x_t: Latents, t: Timesteps, cond: TextCond) -> Prediction:
        denoiser: Any = self.denoiser
        dtype = denoiser.conv_in.weight.dtype
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            raw = denoiser(x_t.to(dtype), t, cond.tokens.to(dtype), return_dict=False)[0]
        return Prediction(raw.to(x_t.dtype), x_t, t, self.kind, self.path)

    def keys(self, cond: TextCond) -> tuple[Tensor, ...]:
        return at.keys(self.denoiser, self.sites, cond)

    def scheduler(self, name: str) -> Any:
        return make_scheduler(name, self.scheduler_config)


def _kind(config: Mapping[str, Any], name: str) -> Kind:
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in KINDS:
        raise UserError(f"model.path={name}: the scheduler's prediction_type is {prediction!r}; known: {sorted(KINDS)}")
    return KINDS[prediction]


def _downscale(autoencoder: Any) -> int:
    """Pixels per latent cell and side."""
    blocks = autoencoder.config.get("block_out_channels") or autoencoder.config["encoder_block_out_channels"]
    return 2 ** (len(blocks) - 1)

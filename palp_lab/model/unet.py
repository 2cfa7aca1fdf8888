"""Stable Diffusion 1.x and 2.x, and everything of their shape: one CLIP text encoder, a UNet, an autoencoder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from palp_lab.diffusion.path import AbstractPath, VariancePreserving
from palp_lab.diffusion.prediction import Prediction
from palp_lab.model import sites as at
from palp_lab.model.autoencoder import decode_latents, downscale, encode_pixels, shift_of
from palp_lab.model.base import AbstractModel, LatentDistribution, TextCond, Words
from palp_lab.model.flow import FLOW, flow_config, flow_path, is_flow, make_flow_scheduler
from palp_lab.model.folder import AbstractParts, Folder, fingerprint
from palp_lab.model.schedulers import make_scheduler
from palp_lab.model.text import ClipText, concept_positions
from palp_lab.types import Capability, Kind, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.types import Latents, Pixels, Timesteps, Vectors

KINDS = {"epsilon": Kind.EPS, "v_prediction": Kind.V, FLOW: Kind.FLOW}
LEFT_OPEN = {"clip_sample", "set_alpha_to_one", "steps_offset", "timestep_spacing"}
"""Settings of a scheduler's file that, where it leaves them open, each sampler fills in its own way."""


class AbstractUNetModel(AbstractModel):
    """What the UNet families share: a UNet on a variance preserving or a straight path, CLIP text encoders, an
    autoencoder. `prediction` says what the UNet was trained to say where the scheduler's file is silent or wrong.

    Source: arXiv 2112.10752. The base weights are frozen and in evaluation mode; latents are float32 outside.
    """

    provides = frozenset(Capability)

    def __init__(
        self,
        unet: Any,
        autoencoder: Any,
        texts: Sequence[ClipText],
        scheduler_config: Mapping[str, Any],
        *,
        path_name: str = "",
        prediction: str | None = None,
        autocast: bool = False,
        gradient_checkpointing: bool = False,
        channels_last: bool = False,
    ) -> None:
        for part in (unet, autoencoder, *(text.encoder for text in texts)):
            part.requires_grad_(False).eval()
        self.name = path_name
        self.denoiser = self.base = unet
        self.autoencoder = autoencoder
        self.texts = tuple(texts)
        self.scheduler_config = _told(scheduler_config, prediction)
        self.kind = _kind(self.scheduler_config, path_name)
        self.path = _path(self.kind, self.scheduler_config, path_name)
        self.sites = at.find_sites(unet)
        at.install(unet, self.sites)
        self.device = next(unet.parameters()).device
        self.dtype = next(unet.parameters()).dtype
        self.autocast = autocast
        side = unet.config.sample_size
        self.latent_shape = (unet.config.in_channels, side, side)
        self.resolution = side * downscale(autoencoder)
        self.fingerprint = fingerprint(
            [unet, autoencoder, *(text.encoder for text in texts)],
            self.scheduler_config | self.untold(),
            *(text.tokenizer for text in texts),
        )
        if gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        if channels_last:
            unet.to(memory_format=torch.channels_last)

    @classmethod
    @abstractmethod
    def read(cls, parts: AbstractParts, dtype: torch.dtype, device: torch.device, **options: Any) -> Self:
        """Reads the parts. Raises UserError in one line for what is missing or of another shape."""

    @classmethod
    def open(
        cls,
        path: str | Path,
        dtype: str = "float32",
        device: str = "cpu",
        *,
        revision: str | None = None,
        variant: str | None = None,
        **options: Any,
    ) -> Self:
        """Opens a diffusers folder, a hub id, or the name of a shipped model (`tiny`, `tiny_small`).

        `autocast` runs the denoiser's products in bfloat16 over float32 weights; `dtype` is what the frozen weights are
        held in. Raises UserError in one line for a folder that is missing, incomplete or of another shape.
        """
        folder = Folder.find(path, revision=revision, variant=variant)
        folder.expect(cls.pipeline)
        return cls.read(folder, getattr(torch, dtype), torch.device(device), **options)

    def untold(self) -> dict[str, Any]:
        """What the shapes of the weights do not tell and outputs depend on. Named one by one: whole configurations gain
        keys with every version of diffusers."""
        windows, configs = self.texts[0].windows, [text.encoder.config for text in self.texts]
        left_open = sorted(LEFT_OPEN & set(self.scheduler_config.get("_use_default_values") or ()))
        return (
            ({} if windows == 1 else {"windows": windows})
            | ({"left_open": left_open} if left_open else {})
            | {
                "heads": [site.heads for site in self.sites],
                "scaling_factor": self.autoencoder.config.scaling_factor,
                "shift_factor": shift_of(self.autoencoder),
                "side": self.latent_shape[1],
                "text": [[c.hidden_act, c.eos_token_id, c.num_attention_heads] for c in configs],
            }
        )

    @cached_property
    def autoencoder_fingerprint(self) -> str:
        scale = {key: value for key, value in self.untold().items() if key.endswith("_factor")}
        return fingerprint([self.autoencoder], scale)

    def encode_image(self, pixels: Pixels) -> LatentDistribution:
        return encode_pixels(self.autoencoder, pixels)

    def decode_image(self, latents: Latents) -> Pixels:
        return decode_latents(self.autoencoder, latents)

    def tokenize(self, prompts: Sequence[str], placeholders: Mapping[str, Sequence[int]] | None = None) -> Words:
        found = [text.tokenize(prompts, placeholders or {}) for text in self.texts]
        return Words(tuple(ids.to(self.device) for ids, _ in found), tuple(slot.to(self.device) for _, slot in found))

    def record(self, word: str) -> dict[str, Any]:
        first = self.texts[0]
        return super().record(word) | {"long_prompts": first.long_prompts, "windows": first.windows}

    def word_vectors(self, word: str) -> tuple[Vectors, ...]:
        return tuple(text.word_vectors(word) for text in self.texts)

    def pieces(self, text: str) -> tuple[list[int], ...]:
        return tuple(own.pieces(text) for own in self.texts)

    def predict(self, x_t: Latents, t: Timesteps, cond: TextCond) -> Prediction:
        denoiser: Any = self.denoiser
        dtype = denoiser.conv_in.weight.dtype
        more = self.further(cond, dtype)
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            raw = denoiser(x_t.to(dtype), t, cond.tokens.to(dtype), return_dict=False, **more)[0]
        return Prediction(raw.to(x_t.dtype), x_t, t, self.kind, self.path)

    def further(self, cond: TextCond, dtype: torch.dtype) -> dict[str, Any]:
        """What the UNet is told beside latents, time and text."""
        return {}

    def keys(self, cond: TextCond) -> tuple[Tensor, ...]:
        return at.keys(self.denoiser, self.sites, cond)

    def scheduler(self, name: str) -> Any:
        make = make_flow_scheduler if self.kind is Kind.FLOW else make_scheduler
        return make(name, self.scheduler_config)


class UNetModel(AbstractUNetModel):
    """Stable Diffusion 1.x and 2.x: one CLIP text encoder, read after its last layer norm. Final."""

    pipeline = "StableDiffusionPipeline"

    def __init__(
        self, unet: Any, autoencoder: Any, text: ClipText, scheduler_config: Mapping[str, Any], **options: Any
    ) -> None:
        super().__init__(unet, autoencoder, (text,), scheduler_config, **options)
        self.text = text

    @classmethod
    def read(
        cls,
        parts: AbstractParts,
        dtype: torch.dtype,
        device: torch.device,
        *,
        long_prompts: str = "error",
        windows: int = 1,
        **options: Any,
    ) -> UNetModel:
        text = ClipText(parts.load("tokenizer"), parts.load("text_encoder", dtype).to(device), long_prompts, windows)
        return cls(
            parts.load("unet", dtype).to(device),
            parts.load("vae", dtype).to(device),
            text,
            parts.load("scheduler").config,
            path_name=parts.path,
            **options,
        )

    def encode_text(self, words: Words, vectors: tuple[Vectors, ...] = ()) -> TextCond:
        out = self.text.encode(words.ids[0], words.slot[0], vectors[0] if vectors else None)
        return TextCond(out.last, concept_positions(words.slot[0]))

    def pipeline_parts(self) -> dict[str, Any]:
        return {
            "vae": self.autoencoder,
            "text_encoder": self.text.encoder,
            "tokenizer": self.text.tokenizer,
            "safety_checker": None,
            "feature_extractor": None,
            "image_encoder": None,
            "requires_safety_checker": False,
        }


def _told(config: Mapping[str, Any], prediction: str | None) -> dict[str, Any]:
    """The scheduler's configuration with what the user says of the UNet's output."""
    if prediction is None:
        return dict(config)
    if prediction not in KINDS:
        raise UserError(f"model.prediction={prediction}: must be {', '.join(KINDS)}, or null for what the files say")
    if prediction != FLOW:
        # diffusers drops what it believes to be its own default when a scheduler is made of another's configuration
        untold = [key for key in config.get("_use_default_values") or () if key != "prediction_type"]
        return {**config, "prediction_type": prediction, "_use_default_values": untold}
    return dict(config) if is_flow(config) else flow_config(int(config["num_train_timesteps"]))


def _kind(config: Mapping[str, Any], name: str) -> Kind:
    if is_flow(config):
        return Kind.FLOW
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in KINDS:
        raise UserError(f"model.path={name}: the scheduler's prediction_type is {prediction!r}; known: {sorted(KINDS)}")
    return KINDS[prediction]


def _path(kind: Kind, config: Mapping[str, Any], name: str) -> AbstractPath:
    if kind is Kind.FLOW:
        return flow_path(config, name)
    return VariancePreserving(make_scheduler("ddpm", config).alphas_cumprod)

"""Stable Diffusion XL: two text encoders, a pooled vector, and sizes the UNet is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from palp_lab.model.autoencoder import downscale
from palp_lab.model.base import TextCond, Words
from palp_lab.model.folder import AbstractParts
from palp_lab.model.text import ClipText, concept_positions
from palp_lab.model.unet import AbstractUNetModel
from palp_lab.types import UserError

if TYPE_CHECKING:
    from palp_lab.types import Vectors


class SdxlModel(AbstractUNetModel):
    """A UNet that reads two CLIP text encoders side by side and is told sizes. Final.

    The tokens are the penultimate hidden states of both encoders, joined; the pooled vector is the second one's
    projection. `original_size`, `crop` and `target_size` (height, width; top, left) are the same for every row, in
    training and in sampling: photos are brought to the model's size before they are encoded, so that they are told as
    uncropped pictures of that size.

    Source: arXiv 2307.01952, sections 2.1 and 2.2.
    Differs from the paper: the sizes are one setting of the model, not each photo's own.
    """

    pipeline = "StableDiffusionXLPipeline"

    def __init__(
        self,
        unet: Any,
        autoencoder: Any,
        texts: Sequence[ClipText],
        scheduler_config: Mapping[str, Any],
        *,
        zeros_for_empty: bool = True,
        original_size: Sequence[int] | None = None,
        crop: Sequence[int] = (0, 0),
        target_size: Sequence[int] | None = None,
        path_name: str = "",
        **options: Any,
    ) -> None:
        _check(unet, autoencoder, texts, path_name)
        side = unet.config.sample_size * downscale(autoencoder)
        whole = (side, side)
        told = (("original_size", original_size or whole), ("crop", crop), ("target_size", target_size or whole))
        for name, two in told:
            if len(two) != 2:
                raise UserError(f"model.{name}={list(two)}: must be two numbers, e.g. [{whole[0]}, {whole[1]}]")
        self.told = tuple(int(number) for _, two in told for number in two)
        """Original height and width, top and left of the crop, height and width aimed at."""
        self.zeros_for_empty = zeros_for_empty
        # Last: what is set above is part of the fingerprint.
        super().__init__(unet, autoencoder, texts, scheduler_config, path_name=path_name, **options)

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
    ) -> SdxlModel:
        texts = [
            ClipText(
                parts.load(f"tokenizer{n}"), parts.load(f"text_encoder{n}", dtype).to(device), long_prompts, windows
            )
            for n in ("", "_2")
        ]
        autoencoder = parts.load("vae", dtype)
        if dtype is torch.float16 and autoencoder.config.force_upcast:
            autoencoder.float()  # its activations leave the range of float16; the stock pipeline does the same
        return cls(
            parts.load("unet", dtype).to(device),
            autoencoder.to(device),
            texts,
            parts.load("scheduler").config,
            zeros_for_empty=bool(parts.index.get("force_zeros_for_empty_prompt", True)),
            path_name=parts.path,
            **options,
        )

    def untold(self) -> dict[str, Any]:
        return {**super().untold(), "zeros_for_empty": self.zeros_for_empty, "told": self.told}

    def record(self, word: str) -> dict[str, Any]:
        sizes = {"original_size": self.told[:2], "crop": self.told[2:4], "target_size": self.told[4:]}
        return super().record(word) | {"told": {name: list(two) for name, two in sizes.items()}}

    def encode_text(self, words: Words, vectors: tuple[Vectors, ...] = ()) -> TextCond:
        own: Sequence[Tensor | None] = vectors or [None] * len(self.texts)
        out = [
            text.encode(ids, slot, laid)
            for text, ids, slot, laid in zip(self.texts, words.ids, words.slot, own, strict=True)
        ]
        tokens = torch.cat([one.penultimate for one in out], -1)
        return TextCond(tokens, concept_positions(words.slot[0]), out[-1].pooled)

    def unconditional(self, rows: int) -> TextCond:
        """Zeros where the pipeline's `force_zeros_for_empty_prompt` is set, as in its training; the empty prompt as a
        prompt of its own is encoded."""
        empty = self.encode_prompts([""] * rows)
        if not self.zeros_for_empty or empty.pooled is None:
            return empty
        return TextCond(torch.zeros_like(empty.tokens), empty.concept_at, torch.zeros_like(empty.pooled))

    def further(self, cond: TextCond, dtype: torch.dtype) -> dict[str, Any]:
        assert cond.pooled is not None
        sizes = torch.tensor(self.told, device=cond.pooled.device, dtype=dtype).expand(len(cond), -1)
        return {"added_cond_kwargs": {"text_embeds": cond.pooled.to(dtype), "time_ids": sizes}}

    def pipeline_parts(self) -> dict[str, Any]:
        first, second = self.texts
        return {
            "vae": self.autoencoder,
            "text_encoder": first.encoder,
            "text_encoder_2": second.encoder,
            "tokenizer": first.tokenizer,
            "tokenizer_2": second.tokenizer,
            "image_encoder": None,
            "feature_extractor": None,
            "force_zeros_for_empty_prompt": self.zeros_for_empty,
            "add_watermarker": False,
        }


def _check(unet: Any, autoencoder: Any, texts: Sequence[ClipText], name: str) -> None:
    """Raises UserError for relatives that need more than this family tells its UNet."""
    pooled = texts[-1].encoder.config.projection_dim
    wanted = unet.config.projection_class_embeddings_input_dim
    if unet.config.addition_embed_type != "text_time" or wanted != pooled + 6 * unet.config.addition_time_embed_dim:
        raise UserError(
            f"model.path={name}: the UNet is told {wanted} numbers, not a pooled text and six sizes "
            "(a refiner?); give an SDXL base model"
        )
    if getattr(autoencoder.config, "latents_mean", None) is not None:
        raise UserError(f"model.path={name}: latents with a mean of their own (latents_mean) are not built; give SDXL")

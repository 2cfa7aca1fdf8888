"""Stable Diffusion 3: a rectified flow, joint attention of text and picture, two CLIP text encoders and a T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from palp_lab.diffusion.prediction import Prediction
from palp_lab.model.autoencoder import decode_latents, downscale, encode_pixels, shift_of
from palp_lab.model.base import AbstractModel, LatentDistribution, Site, TextCond, Words
from palp_lab.model.flow import JointAttention, flow_path, make_flow_scheduler
from palp_lab.model.folder import AbstractParts, Folder, fingerprint
from palp_lab.model.t5 import T5Text
from palp_lab.model.text import ClipText, concept_positions
from palp_lab.types import Capability, Kind, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.types import Latents, Pixels, Timesteps, Vectors


class Sd3Model(AbstractModel):
    """Stable Diffusion 3 and 3.5 medium and large, and everything of their shape. Final.

    The text is one sequence: both CLIPs' penultimate states side by side, then T5's; the pooled vectors of both CLIPs
    steer every block. Without T5 its place is taken by zeros, as in the stock pipeline: `t5_length` tokens that are all
    alike, computed as one that counts so often.

    There are no cross-attention sites: text tokens are mixed with the picture in every block, so that there are no keys
    that belong to the text alone (key_value, key_locking) and no place where each block could read a text of its own
    (per_layer). A low-rank or full change of `add_k_proj` and `add_v_proj` is what comes nearest to key_value. Low-rank
    edits change the projections of both streams unless told otherwise, as diffusers' train_dreambooth_lora_sd3.py does.

    Source: arXiv 2403.03206. The base weights are frozen and in evaluation mode; latents are float32 outside.
    """

    pipeline = "StableDiffusion3Pipeline"
    denoiser_part = "transformer"
    provides = frozenset(
        {Capability.TOKEN_VECTORS, Capability.LINEAR_LAYERS, Capability.TRAINABLE_COPY, Capability.TRAINABLE_TEXT}
    )
    projections = (*AbstractModel.projections, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    sites: tuple[Site, ...] = ()
    kind = Kind.FLOW

    def __init__(
        self,
        transformer: Any,
        autoencoder: Any,
        clips: Sequence[ClipText],
        t5: T5Text | None,
        scheduler_config: Mapping[str, Any],
        *,
        t5_length: int = 256,
        path_name: str = "",
        autocast: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.name = path_name
        self.denoiser = self.base = transformer
        self.autoencoder = autoencoder
        self.clips = tuple(clips)
        self.t5 = t5
        self.texts: tuple[ClipText | T5Text, ...] = (*clips, t5) if t5 else tuple(clips)
        self.t5_length = t5_length
        self.scheduler_config = dict(scheduler_config)
        self.path = flow_path(self.scheduler_config, path_name)
        frozen = [transformer, autoencoder, *(text.encoder for text in self.texts)]
        for part in frozen:
            part.requires_grad_(False).eval()
        transformer.set_attn_processor(JointAttention())
        self.device = next(transformer.parameters()).device
        self.dtype = next(transformer.parameters()).dtype
        self.autocast = autocast
        side = transformer.config.sample_size
        self.latent_shape = (transformer.config.in_channels, side, side)
        self.context_width = int(transformer.config.joint_attention_dim)
        self.heads = int(transformer.config.num_attention_heads)
        self.resolution = side * downscale(autoencoder)
        self.fingerprint = fingerprint(
            frozen, self.scheduler_config | self._untold(), *(text.tokenizer for text in self.texts)
        )
        if gradient_checkpointing:
            transformer.enable_gradient_checkpointing()

    @classmethod
    def read(
        cls,
        parts: AbstractParts,
        dtype: torch.dtype,
        device: torch.device,
        *,
        t5: bool = True,
        t5_length: int = 256,
        long_prompts: str = "error",
        **options: Any,
    ) -> Sd3Model:
        """Reads the parts; `t5` false leaves T5 out where there is one. Raises UserError for what is missing."""
        if not t5:
            parts.leave_out("text_encoder_3", "tokenizer_3")
        clips = [
            ClipText(
                parts.load(f"tokenizer{n}"),
                parts.load(f"text_encoder{n}", dtype).to(device),
                long_prompts,
                one_window=True,
            )
            for n in ("", "_2")
        ]
        words = None
        if t5 and (parts.index.get("text_encoder_3") or [None])[0]:
            encoder = parts.load("text_encoder_3", dtype).to(device)
            words = T5Text(parts.load("tokenizer_3"), encoder, t5_length)
        return cls(
            parts.load("transformer", dtype).to(device),
            parts.load("vae", dtype).to(device),
            clips,
            words,
            parts.load("scheduler").config,
            t5_length=t5_length,
            path_name=parts.path,
            **options,
        )

    @classmethod
    def open(cls, path: str | Path, dtype: str = "float32", device: str = "cpu", **options: Any) -> Sd3Model:
        """Opens a diffusers folder, a hub id, or the name of a shipped model (`tiny_flow`)."""
        folder = Folder.find(path)
        folder.expect(cls.pipeline)
        return cls.read(folder, getattr(torch, dtype), torch.device(device), **options)

    def _untold(self) -> dict[str, Any]:
        """What the shapes of the weights do not tell and outputs depend on."""
        return {
            "heads": self.heads,
            "scaling_factor": self.autoencoder.config.scaling_factor,
            "shift_factor": shift_of(self.autoencoder),
            "side": self.latent_shape[1],
            "t5": self.t5_length,
            "text": [[text.encoder.config.hidden_act, text.encoder.config.num_attention_heads] for text in self.clips],
        }

    @cached_property
    def autoencoder_fingerprint(self) -> str:
        scale = {key: value for key, value in self._untold().items() if key.endswith("_factor")}
        return fingerprint([self.autoencoder], scale)

    def encode_image(self, pixels: Pixels) -> LatentDistribution:
        return encode_pixels(self.autoencoder, pixels)

    def decode_image(self, latents: Latents) -> Pixels:
        return decode_latents(self.autoencoder, latents)

    def tokenize(self, prompts: Sequence[str], placeholders: Mapping[str, Sequence[int]] | None = None) -> Words:
        found = [text.tokenize(prompts, placeholders or {}) for text in self.texts]
        return Words(tuple(ids.to(self.device) for ids, _ in found), tuple(slot.to(self.device) for _, slot in found))

    def encode_text(self, words: Words, vectors: tuple[Vectors, ...] = ()) -> TextCond:
        own: Sequence[Tensor | None] = vectors or [None] * len(self.texts)
        out = [
            text.encode(ids, slot, laid)
            for text, ids, slot, laid in zip(self.clips, words.ids[:2], words.slot[:2], own[:2], strict=True)
        ]
        width = self.context_width
        tokens = torch.cat([one.penultimate for one in out], -1)
        if tokens.shape[-1] > width:
            raise UserError(f"model.path={self.name}: the text encoders are {tokens.shape[-1]} wide, more than {width}")
        tokens = F.pad(tokens, (0, width - tokens.shape[-1]))
        if self.t5 is None:
            more = tokens.new_zeros(len(tokens), 1, width)
        else:
            more = self.t5.encode(words.ids[2], words.slot[2], own[2]).to(tokens.dtype)
        pooled = torch.cat([one.pooled for one in out], -1)
        return TextCond(torch.cat([tokens, more], 1), concept_positions(words.slot[0]), pooled)

    def word_vectors(self, word: str) -> tuple[Vectors, ...]:
        return tuple(text.word_vectors(word) for text in self.texts)

    def pieces(self, text: str) -> tuple[list[int], ...]:
        return tuple(own.pieces(text) for own in self.texts)

    def predict(self, x_t: Latents, t: Timesteps, cond: TextCond) -> Prediction:
        assert cond.pooled is not None
        denoiser: Any = self.denoiser
        dtype = denoiser.context_embedder.weight.dtype
        how = {"repeats": self.t5_length} if self.t5 is None else None
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            raw = denoiser(
                x_t.to(dtype), cond.tokens.to(dtype), cond.pooled.to(dtype), t,
                joint_attention_kwargs=how, return_dict=False,
            )[0]  # fmt: skip
        return Prediction(raw.to(x_t.dtype), x_t, t, self.kind, self.path)

    def keys(self, cond: TextCond) -> tuple[Tensor, ...]:
        return ()

    def scheduler(self, name: str) -> Any:
        return make_flow_scheduler(name, self.scheduler_config)

    def pipeline_parts(self) -> dict[str, Any]:
        first, second = self.clips
        return {
            "vae": self.autoencoder,
            "text_encoder": first.encoder,
            "text_encoder_2": second.encoder,
            "text_encoder_3": self.t5 and self.t5.encoder,
            "tokenizer": first.tokenizer,
            "tokenizer_2": second.tokenizer,
            "tokenizer_3": self.t5 and self.t5.tokenizer,
        }

"""The nouns of a model: sites, text conditioning, latent distributions, and what every model can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from palp_lab.diffusion.path import AbstractPath
from palp_lab.diffusion.prediction import Prediction
from palp_lab.types import Capability, Kind

if TYPE_CHECKING:
    from palp_lab.types import Latents, Pixels, Timesteps, TokenIds, Vectors

KEPT_PROMPTS = 1024
"""Encoded prompts that are remembered (ours: 0.25 GB for Stable Diffusion 1.x in float32)."""


@dataclass(frozen=True)
class Site:
    """One cross-attention of the denoiser. `index` counts in execution order (down, middle, up), which is not the
    order of diffusers' processor dictionary; `path` is the module path of the attention."""

    index: int
    path: str
    channels: int
    context_width: int
    heads: int


@dataclass(frozen=True)
class Words:
    """Tokenized prompts. `ids` [b n]; `slot` [b n] is the number of the learned vector that lies over a position,
    -1 where the vocabulary's own embedding holds. One entry per text encoder of the model."""

    ids: tuple[TokenIds, ...]
    slot: tuple[TokenIds, ...]

    def __len__(self) -> int:
        return len(self.ids[0])

    def __getitem__(self, rows: slice | Tensor) -> Words:
        return Words(tuple(i[rows] for i in self.ids), tuple(s[rows] for s in self.slot))


@dataclass(frozen=True)
class TextCond:
    """What the denoiser is told: `tokens` [b n d] for all sites, or [b s 2 n d] with keys' and values' contexts per
    site (in the order of `Site.index`); `pooled` [b p] where the model has it; `concept_at` [b] is the position of the
    concept's last token, -1 where a prompt has none."""

    tokens: Tensor
    concept_at: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice | Tensor) -> TextCond:
        return TextCond(self.tokens[rows], self.concept_at[rows], None if self.pooled is None else self.pooled[rows])

    def repeat(self, times: int) -> TextCond:
        """Every row `times` times in a row."""
        pooled = None if self.pooled is None else self.pooled.repeat_interleave(times, 0)
        return TextCond(self.tokens.repeat_interleave(times, 0), self.concept_at.repeat_interleave(times, 0), pooled)

    def detach(self) -> TextCond:
        return TextCond(self.tokens.detach(), self.concept_at, None if self.pooled is None else self.pooled.detach())

    def per_site(self, sites: int) -> TextCond:
        """The same conditioning written once per site, so that it can share a batch with one that differs by site."""
        if self.tokens.ndim == 5:
            return self
        tokens = self.tokens[:, None, None].expand(-1, sites, 2, -1, -1)
        return TextCond(tokens, self.concept_at, self.pooled)

    @staticmethod
    def cat(conds: Sequence[TextCond]) -> TextCond:
        """Joins batches. Where any differs by site, all are written per site."""
        sites = {c.tokens.shape[1] for c in conds if c.tokens.ndim == 5}
        if sites:
            conds = [c.per_site(sites.copy().pop()) for c in conds]
        pooled = None if conds[0].pooled is None else torch.cat([c.pooled for c in conds if c.pooled is not None])
        return TextCond(torch.cat([c.tokens for c in conds]), torch.cat([c.concept_at for c in conds]), pooled)


@dataclass(frozen=True)
class LatentDistribution:
    """The autoencoder's posterior, already scaled: `mean` and `std` [b c h w]. Cached once, sampled at every step."""

    mean: Latents
    std: Latents

    def sample(self, generator: torch.Generator) -> Latents:
        """One draw, on the CPU generator of the step's own stream."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + self.std * noise.to(self.mean.device)


class AbstractModel(ABC):
    """A latent text-to-image model: path, sites, autoencoder, text encoder and denoiser.

    The base weights are never trained or written; edits lie over them.
    """

    pipeline: ClassVar[str]
    """Class of the stock diffusers pipeline that holds such a model: `_class_name` in model_index.json."""
    denoiser_part: ClassVar[str] = "unet"
    """What that pipeline calls its denoiser."""
    path: AbstractPath
    kind: Kind
    sites: tuple[Site, ...]
    provides: frozenset[Capability]
    resolution: int
    """Side of a picture in pixels."""
    latent_shape: tuple[int, int, int]
    device: torch.device
    dtype: torch.dtype
    """Dtype the frozen parts are held in."""
    fingerprint: str
    """Hash of all weights, the schedule, the vocabulary and the scale of the latents: part of every cache key."""
    base: nn.Module
    """The frozen denoiser."""
    denoiser: nn.Module
    """The denoiser `predict` runs: the base, unless an edit that trains a copy has put its own here."""
    projections: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")
    """Ends of the paths of the attention projections: what a low-rank edit changes where it is not told what."""
    texts: Sequence[Any] = ()
    """The text encoders an edit can train (`.encoder` of each), in the order of the pipeline's text_encoder, _2."""
    edited_text: Callable[[], AbstractContextManager[None]] | None = None
    """While an edit of the text encoders is attached and enabled: opens a block in which they are bitwise the base."""
    scheduler_config: dict[str, Any]
    """The configuration of the pipeline's own scheduler."""

    @property
    def autoencoder_fingerprint(self) -> str:
        """Hash of what `encode_image` computes with: models of one autoencoder share encoded pictures. The whole
        model's where a family does not say more."""
        return self.fingerprint

    @property
    def weight_bytes(self) -> int:
        """Bytes of memory the frozen parts take."""
        parts = [self.base, *(part for part in self.pipeline_parts().values() if isinstance(part, nn.Module))]
        return sum(weight.numel() * weight.element_size() for part in parts for weight in part.parameters())

    @abstractmethod
    def encode_image(self, pixels: Pixels) -> LatentDistribution:
        """Posterior of the (scaled) latents of pictures in [-1, 1]; no gradient."""

    @abstractmethod
    def decode_image(self, latents: Latents) -> Pixels:
        """Pictures in [-1, 1] of scaled latents; no gradient."""

    @abstractmethod
    def tokenize(self, prompts: Sequence[str], placeholders: Mapping[str, Sequence[int]] | None = None) -> Words:
        """Prompts as ids, padded with BOS and EOS kept. A placeholder word of the mapping becomes one position per
        number in its sequence, with these numbers as `slot`; it never reaches the tokenizer.

        Raises UserError where a prompt is longer than the text encoder reads, naming the prompt and the words cut.
        """

    @abstractmethod
    def encode_text(self, words: Words, vectors: tuple[Vectors, ...] = ()) -> TextCond:
        """Text conditioning, with `vectors[e][k]` laid over the embedding of encoder e wherever `slot` is k.
        Differentiable in the vectors; the vocabulary table is not touched. `concept_at` is the last position with a
        slot, -1 without."""

    @abstractmethod
    def word_vectors(self, word: str) -> tuple[Vectors, ...]:
        """The vocabulary's own vectors [pieces, d] of a word, one tensor per text encoder: a copy, in float32 or
        wider."""

    @abstractmethod
    def predict(self, x_t: Latents, t: Timesteps, cond: TextCond) -> Prediction:
        """One pass of `denoiser` with whatever edits are attached and enabled."""

    @abstractmethod
    def scheduler(self, name: str) -> Any:
        """A fresh diffusers scheduler on this model's own clock: ddim, dpm++, euler, euler_a, ddpm or unipc."""

    @abstractmethod
    def pieces(self, text: str) -> tuple[list[int], ...]:
        """Ids of a text without BOS and EOS, one list per text encoder."""

    @abstractmethod
    def keys(self, cond: TextCond) -> tuple[Tensor, ...]:
        """Keys [b n c] of a conditioning at every site (all heads), with the edits that are attached and enabled.
        Differentiable."""

    @abstractmethod
    def pipeline_parts(self) -> dict[str, Any]:
        """Everything the stock pipeline is built from except the denoiser and the scheduler, by its own names."""

    def unconditional(self, rows: int) -> TextCond:
        """What guidance leads away from where no negative prompt is given: the empty prompt, unless the family's
        pipeline takes something else. Without a graph."""
        return self.encode_prompts([""] * rows)

    def encode_prompts(self, prompts: Sequence[str]) -> TextCond:
        """Conditioning of prompts without any concept by the text encoders as they stand: what the base remembers, or,
        where an edit of them is enabled, encoded anew and with a graph."""
        if self.edited_text is None:
            return self.base_text(prompts)
        distinct = list(dict.fromkeys(prompts))
        with torch.autocast(self.device.type, enabled=False):
            cond = self.encode_text(self.tokenize(distinct))
        return cond[torch.tensor([distinct.index(prompt) for prompt in prompts], device=cond.tokens.device)]

    @contextmanager
    def text_of_base(self) -> Iterator[None]:
        """A block in which `encode_prompts` takes the encoders for the base's; the edit of them puts those there."""
        before, self.edited_text = self.edited_text, None
        try:
            yield
        finally:
            self.edited_text = before

    def record(self, word: str) -> dict[str, Any]:
        """What a result says of how text was read: the pieces of the class word in each text encoder, and the anchor.
        The anchor is the last piece; learned words start from it, and attention to the class is attention to it."""
        read = [[text.tokenizer.decode([i]).strip() for i in text.pieces(word)] for text in self.texts]
        return {"word": word, "pieces": read, "anchor": [pieces[-1] if pieces else None for pieces in read]}

    def locate(self, prompts: Sequence[str], word: str) -> Tensor:
        """[b]: position of the last piece of the last occurrence of `word` (first text encoder), -1 without."""
        ids = self.tokenize(prompts).ids[0].tolist()
        wanted = self.pieces(word)[0]
        last = [_last_end(row, wanted) for row in ids]
        return torch.tensor(last, device=self.device)

    def base_text(self, prompts: Sequence[str]) -> TextCond:
        """Conditioning of prompts without any concept by the frozen base, whatever edit is enabled; without a graph.
        Each prompt is encoded once, and alone: a row does not depend on which other rows were asked for first."""
        if "_encoded" not in self.__dict__:
            self._encoded: OrderedDict[str, TextCond] = OrderedDict()
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._encoded:
                self._encoded[prompt] = self._encode_alone(prompt)
            self._encoded.move_to_end(prompt)
        joined = TextCond.cat([self._encoded[prompt] for prompt in prompts])
        while len(self._encoded) > KEPT_PROMPTS:
            self._encoded.popitem(last=False)
        return joined

    def _encode_alone(self, prompt: str) -> TextCond:
        """As an ordinary tensor in the text encoder's own dtype, whatever mode the caller is in: it is kept."""
        base = nullcontext() if self.edited_text is None else self.edited_text()
        with base, torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.encode_text(self.tokenize([prompt]))

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """A block at whose end `base_text` remembers what it did before, and in which it remembers nothing of that."""
        before, self._encoded = self.__dict__.get("_encoded", OrderedDict()), OrderedDict()
        try:
            yield
        finally:
            self._encoded = before

    @contextmanager
    def checkpointing(self, on: bool) -> Iterator[None]:
        """A block in which `denoiser` keeps no activations for the backward pass but computes them again, if `on`. Left
        as it was: cells share a model, and the next one may not ask for it."""
        denoiser: Any = self.denoiser
        if not on or denoiser.is_gradient_checkpointing:
            yield
            return
        denoiser.enable_gradient_checkpointing()
        try:
            yield
        finally:
            denoiser.disable_gradient_checkpointing()

    @contextmanager
    def using(self, denoiser: nn.Module) -> Iterator[None]:
        """Runs `predict` on another denoiser of the same shape inside the block."""
        before, self.denoiser = self.denoiser, denoiser
        try:
            yield
        finally:
            self.denoiser = before


def _last_end(row: list[int], wanted: list[int]) -> int:
    """Where the last occurrence of a run of ids ends in a row, -1 without."""
    size = len(wanted)
    starts = [i for i in range(len(row) - size + 1) if row[i : i + size] == wanted] if size else []
    return starts[-1] + size - 1 if starts else -1

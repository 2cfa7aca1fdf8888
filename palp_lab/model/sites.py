"""Cross-attention at named sites: an attention processor that knows where it sits."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from palp_lab.model.base import Site, TextCond


class AbstractSiteEdit(nn.Module):
    """What an edit changes inside one cross-attention. Only `key` and `value` must be given."""

    @abstractmethod
    def key(self, attention: Any, context: Tensor) -> Tensor:
        """Keys [b n c] of the text [b n d]."""

    @abstractmethod
    def value(self, attention: Any, context: Tensor) -> Tensor:
        """Values [b n c] of the text [b n d]."""

    def query(self, attention: Any, hidden: Tensor) -> Tensor:
        """Queries [b h*w c] of the picture."""
        return attention.to_q(hidden)

    def out(self, attention: Any, hidden: Tensor) -> Tensor:
        """The closing projection [b h*w c]."""
        return attention.to_out[0](hidden)


class SiteAttention:
    """Cross-attention bound to its `Site` at construction; final.

    It takes its own slice of a conditioning written per site and asks an attached `edit` for keys and values. The
    index is bound and never counted: a counter runs backwards when gradient checkpointing recomputes a block. With a
    plain [b n d] context and no edit it is bitwise diffusers' AttnProcessor2_0. Not a module, so that the denoiser's
    state keeps the names of diffusers.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.edit: AbstractSiteEdit | None = None

    def keys(self, attention: Any, context: Tensor) -> Tensor:
        """Keys [b n c] of a conditioning [b n d] or [b s 2 n d], before heads are parted."""
        own, _ = self._contexts(context)
        return attention.to_k(own) if self.edit is None else self.edit.key(attention, own)

    def _contexts(self, context: Tensor) -> tuple[Tensor, Tensor]:
        if context.ndim == 5:
            return context[:, self.site.index, 0], context[:, self.site.index, 1]
        return context, context

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if encoder_hidden_states is None:
            raise ValueError(f"{self.site.path}: cross-attention without a conditioning")
        for_keys, for_values = self._contexts(encoder_hidden_states)
        edit = self.edit
        query = attn.to_q(hidden_states) if edit is None else edit.query(attn, hidden_states)
        key = attn.to_k(for_keys) if edit is None else edit.key(attn, for_keys)
        value = attn.to_v(for_values) if edit is None else edit.value(attn, for_values)
        batch, _, width = key.shape
        heads, each = attn.heads, width // attn.heads
        query, key, value = (x.view(batch, -1, heads, each).transpose(1, 2) for x in (query, key, value))
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, key.shape[2], batch)
            attention_mask = attention_mask.view(batch, heads, -1, attention_mask.shape[-1])
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        mixed = mixed.transpose(1, 2).reshape(batch, -1, width).to(query.dtype)
        projected = attn.to_out[0](mixed) if edit is None else edit.out(attn, mixed)
        return attn.to_out[1](projected) / attn.rescale_output_factor


def find_sites(denoiser: Any) -> tuple[Site, ...]:
    """The cross-attentions of a UNet in execution order."""
    found = []
    for path, module in denoiser.named_modules():
        if path.endswith(".attn2") and module.is_cross_attention:
            found.append((_order(path), path, module))
    return tuple(
        Site(index, path, module.to_q.out_features, module.to_k.in_features, module.heads)
        for index, (_, path, module) in enumerate(sorted(found, key=lambda f: f[0]))
    )


def _order(path: str) -> tuple[int, ...]:
    """Sorts module paths as the UNet runs them: down, middle, up; then block, attention, transformer block."""
    stage = ("down_blocks", "mid_block", "up_blocks").index(path.split(".")[0])
    return (stage, *(int(part) for part in path.split(".") if part.isdigit()))


def install(denoiser: nn.Module, sites: tuple[Site, ...]) -> None:
    """Puts a `SiteAttention` on every site."""
    for site in sites:
        attention: Any = denoiser.get_submodule(site.path)
        if attention.norm_cross or attention.group_norm is not None or attention.residual_connection:
            raise ValueError(f"{site.path}: normalised or residual cross-attention is not built")
        attention.set_processor(SiteAttention(site))


def processor(denoiser: nn.Module, site: Site) -> SiteAttention:
    """The processor at a site."""
    attention: Any = denoiser.get_submodule(site.path)
    return attention.processor


def keys(denoiser: nn.Module, sites: tuple[Site, ...], cond: TextCond) -> tuple[Tensor, ...]:
    """The keys [b n c] of a conditioning at every site, with the edits that are attached and enabled."""
    attentions: list[Any] = [denoiser.get_submodule(site.path) for site in sites]
    tokens = cond.tokens.to(attentions[0].to_k.weight.dtype)
    return tuple(attention.processor.keys(attention, tokens) for attention in attentions)


KOHYA = (
    *("IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID"),
    *("OUT03", "OUT04", "OUT05", "OUT06", "OUT07", "OUT08", "OUT09", "OUT10", "OUT11"),
)


def site_names(sites: tuple[Site, ...]) -> tuple[str, ...]:
    """The names per-site files use: IN01 to OUT11 for the 16 sites of Stable Diffusion 1.x and 2.x (kohya's XTI
    format), module paths otherwise."""
    if [_order(site.path)[:3] for site in sites] == STABLE_DIFFUSION:
        return KOHYA
    return tuple(site.path for site in sites)


STABLE_DIFFUSION = [
    *((0, block, attention) for block in range(3) for attention in range(2)),
    (1, 0, 0),
    *((2, block, attention) for block in range(1, 4) for attention in range(3)),
]

"""One word vector per cross-attention: the prompt is encoded once for every site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from palp_lab.dataset.concept import Concept
from palp_lab.model.base import AbstractModel, TextCond, Words
from palp_lab.model.sites import site_names
from palp_lab.tokens.base import (
    AbstractTokens,
    check_phrase,
    check_placeholder,
    interleave,
    keep_length,
    start_vectors,
)
from palp_lab.types import Capability


class PerLayerTokens(AbstractTokens):
    """v_0 .. v_s: site i reads the prompt with v_i at the placeholder; all sites are encoded in one batch. Final.

    Saved under kohya's names (IN01 to OUT11) where the model has the 16 sites of Stable Diffusion 1.x.

    Source: P+, arXiv 2303.09522, section 3.
    Differs from the paper: no density term on the vectors (no released code has it); the norm can be fixed.
    """

    version = 1
    requires = frozenset({Capability.TOKEN_VECTORS, Capability.PER_SITE_TEXT})

    def __init__(
        self,
        phrase: str = "{placeholder}",
        init_token: str | None = None,
        num_vectors: int = 1,
        fixed_norm: bool = False,
    ) -> None:
        super().__init__()
        self.phrase = phrase
        self.init_token = init_token
        self.num_vectors = num_vectors
        self.fixed_norm = fixed_norm

    def bind(self, model: AbstractModel, concept: Concept) -> None:
        check_placeholder(model, concept)
        check_phrase(self.phrase, concept)
        self.model = model
        self.placeholder = concept.placeholder
        self.names = site_names(model.sites)
        start = [words[-1:].repeat(self.num_vectors, 1) for words in start_vectors(model, concept, self.init_token)]
        self.lengths = [v.norm(dim=-1, keepdim=True).repeat(len(self.names), 1) for v in start]
        self.vectors = [nn.ParameterList([nn.Parameter(v.clone()) for _ in self.names]) for v in start]
        self.owned = nn.ModuleList(self.vectors)

    def laid(self) -> tuple[Tensor, ...]:
        """The vectors [s * k, d] as the text encoder reads them, one tensor per encoder."""
        joined = [torch.cat(list(own)) for own in self.vectors]
        return keep_length(joined, self.lengths) if self.fixed_norm else tuple(joined)

    def encode(self, prompts: Sequence[str]) -> TextCond:
        words = self.model.tokenize(prompts, self.positions(self.placeholder))
        return interleave(self.model, prompts, words, self._encode)

    def _encode(self, words: Words) -> TextCond:
        sites, rows = len(self.names), len(words)
        offset = (torch.arange(sites) * self.num_vectors).repeat(rows)[:, None].to(words.slot[0].device)
        slots = [slot.repeat_interleave(sites, 0) for slot in words.slot]
        spread = Words(
            tuple(ids.repeat_interleave(sites, 0) for ids in words.ids),
            tuple(torch.where(slot >= 0, slot + offset, slot) for slot in slots),
        )
        cond = self.model.encode_text(spread, self.laid())
        tokens = cond.tokens.view(rows, sites, 1, *cond.tokens.shape[1:]).expand(-1, -1, 2, -1, -1)
        pooled = None if cond.pooled is None else cond.pooled.view(rows, sites, -1).mean(1)
        return TextCond(tokens, cond.concept_at[::sites], pooled)

    def positions(self, placeholder: str) -> Mapping[str, Sequence[int]]:
        return {placeholder: range(self.num_vectors)}

    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        for number, own in enumerate(self.vectors):
            for name, vectors in zip(self.names, own, strict=True):
                yield f"{name}.{number}", vectors

    def words(self, encoder: int = 0) -> Mapping[str, Tensor]:
        parted = self.laid()[encoder].detach().split(self.num_vectors)
        return dict(zip(self.names, parted, strict=True))

"""Learned word vectors: the placeholder means one or several vectors of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from palp_lab.dataset.concept import Concept
from palp_lab.model.base import AbstractModel, TextCond
from palp_lab.tokens.base import (
    AbstractTokens,
    check_phrase,
    check_placeholder,
    interleave,
    keep_length,
    start_vectors,
)
from palp_lab.types import Capability


class LearnedTokens(AbstractTokens):
    """v*: `num_vectors` vectors laid over the placeholder's positions, initialised from the class word. Final.

    Every vector starts as a copy of the last piece of `init_token` (of the class word where it is None).
    `fixed_norm` keeps each vector's length at its starting value: the parameter's direction alone matters.

    Source: arXiv 2208.01618, Eq. 2; the copies for several vectors follow its released code.
    Differs from the paper: the norm can be fixed (off by default); class words of several pieces are accepted.
    """

    version = 1
    requires = frozenset({Capability.TOKEN_VECTORS})

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
        start = [words[-1:].repeat(self.num_vectors, 1) for words in start_vectors(model, concept, self.init_token)]
        self.vectors = nn.ParameterList([nn.Parameter(v) for v in start])
        self.lengths = [v.norm(dim=-1, keepdim=True) for v in start]

    def laid(self) -> tuple[Tensor, ...]:
        """The vectors [k d] as the text encoder reads them, one tensor per encoder."""
        return keep_length(self.vectors, self.lengths) if self.fixed_norm else tuple(self.vectors)

    def encode(self, prompts: Sequence[str]) -> TextCond:
        words = self.model.tokenize(prompts, self.positions(self.placeholder))
        return interleave(self.model, prompts, words, lambda own: self.model.encode_text(own, self.laid()))

    def positions(self, placeholder: str) -> Mapping[str, Sequence[int]]:
        return {placeholder: range(self.num_vectors)}

    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        for number, vectors in enumerate(self.vectors):
            yield f"vectors.{number}", vectors

    def words(self, encoder: int = 0) -> Mapping[str, Tensor]:
        return {self.placeholder: self.laid()[encoder].detach()}

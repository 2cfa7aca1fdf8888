"""Learned word vectors: the placeholder means one or several vectors of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from palp_lab.dataset.concept import Concept
from palp_lab.model.base import AbstractModel, TextCond
from palp_lab.tokens.base import AbstractTokens, check_phrase, check_placeholder
from palp_lab.types import Capability, UserError


class LearnedTokens(AbstractTokens):
    """v*: `num_vectors` vectors laid over the placeholder's positions, initialised from the class word. Final.

    Every vector starts as a copy of the last piece of `init_token` (of the class word where it is None).
    `fixed_norm` keeps each vector's length at its starting value: the parameter's direction alone matters.

    Source: arXiv 2208.01618, Eq. 2; the copies for several vectors follow its released code.
    Differs from the paper: the norm can be fixed (off by default); class words of several pieces are accepted.
    """

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
        check_placeholder(model, concept.placeholder)
        check_phrase(self.phrase, concept)
        self.model = model
        self.placeholder = concept.placeholder
        start = [words[-1:].repeat(self.num_vectors, 1) for words in start_vectors(model, concept, self.init_token)]
        self.vectors = nn.ParameterList([nn.Parameter(v) for v in start])
        self.lengths = [v.norm(dim=-1, keepdim=True) for v in start]

    def laid(self) -> tuple[Tensor, ...]:
        """The vectors [k d] as the text encoder reads them, one tensor per encoder."""
        if not self.fixed_norm:
            return tuple(self.vectors)
        return tuple(
            length.to(v) * v / v.norm(dim=-1, keepdim=True)
            for v, length in zip(self.vectors, self.lengths, strict=True)
        )

    def encode(self, prompts: Sequence[str]) -> TextCond:
        words = self.model.tokenize(prompts, {self.placeholder: range(self.num_vectors)})
        named = (words.slot[0] >= 0).any(1).tolist()
        if not any(named):
            return self.model.base_text(prompts)
        if all(named):
            return self.model.encode_text(words, self.laid())
        return interleave(
            named,
            self.model.encode_text(words[torch.tensor(named)], self.laid()),
            self.model.base_text([p for p, own in zip(prompts, named, strict=True) if not own]),
        )

    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        for number, vectors in enumerate(self.vectors):
            yield f"vectors.{number}", vectors


def start_vectors(model: AbstractModel, concept: Concept, init_token: str | None) -> tuple[Tensor, ...]:
    """The vocabulary's vectors of the word that training starts from."""
    word = init_token or concept.superclass
    found = model.word_vectors(word)
    if not word.strip() or not len(found[0]):
        raise UserError("tokens.init_token: no word to start from; set it, or dataset.superclass")
    return found


def interleave(named: Sequence[bool], own: TextCond, base: TextCond) -> TextCond:
    """Rows with and without the concept, back in the prompts' order."""
    joined = TextCond.cat([own, base])
    left, right = iter(range(len(own))), iter(range(len(own), len(joined)))
    order = [next(left) if n else next(right) for n in named]
    return joined[torch.tensor(order, device=joined.tokens.device)]

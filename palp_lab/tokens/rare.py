"""A rare existing word names the subject; nothing of the text is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import nn

from palp_lab.dataset.concept import Concept
from palp_lab.model.base import AbstractModel, TextCond
from palp_lab.tokens.base import AbstractTokens, check_phrase
from palp_lab.types import UserError


class RareTokens(AbstractTokens):
    """`sks` in "sks cat": the word binds to the subject through the edits alone. Final.

    `concept_at` is the position of the rare word's last piece.

    Source: DreamBooth, arXiv 2208.12242, section 3.2. Differs from the paper: one fixed word (the field's habit)
    instead of a search for rare tokens.
    """

    version = 1
    requires = frozenset()

    def __init__(self, word: str = "sks", phrase: str = "{word} {superclass}") -> None:
        super().__init__()
        self.word = word
        self.phrase = phrase

    def bind(self, model: AbstractModel, concept: Concept) -> None:
        if len(self.word.split()) != 1:
            raise UserError(f"tokens.word={self.word!r} must be one word, e.g. sks")
        check_phrase(self.phrase, concept, word=self.word)
        if "{placeholder}" in self.phrase or self.word not in self.call(concept).split():
            raise UserError(
                f"tokens.phrase={self.phrase!r}: tokens=rare calls the subject by {self.word}, and learns no "
                "placeholder; give 'tokens.phrase=\"{word} {superclass}\"'"
            )
        self.model = model

    def call(self, concept: Concept) -> str:
        return self.phrase.format(word=self.word, placeholder=concept.placeholder, superclass=concept.superclass)

    def encode(self, prompts: Sequence[str]) -> TextCond:
        return replace(self.model.encode_prompts(prompts), concept_at=self.model.locate(prompts, self.word))

    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        return ()

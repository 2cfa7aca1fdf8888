"""What all tokens share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from torch import nn

from palp_lab.dataset.concept import Concept
from palp_lab.model.base import AbstractModel, TextCond
from palp_lab.types import Capability, UserError


class AbstractTokens(nn.Module):
    """How the concept is called and what its words mean to the text encoder.

    `phrase` is the sentence fragment that fills a prompt's slot: "{placeholder}" (textual inversion),
    "{placeholder} {superclass}" (custom diffusion, rare adjective), "sks {superclass}" (DreamBooth).
    """

    requires: frozenset[Capability]
    phrase: str

    @abstractmethod
    def bind(self, model: AbstractModel, concept: Concept) -> None:
        """Creates the parameters for a model and a concept, and checks the placeholder.

        Raises UserError for a placeholder that is a real word or already taken.
        """

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> TextCond:
        """Conditioning of full prompts (slots filled by `call`). A prompt without the concept encodes exactly as the
        base model does. Differentiable in own parameters."""

    @abstractmethod
    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The trainable parameters with the names they are saved under."""

    def call(self, concept: Concept) -> str:
        """What fills the slot of a prompt, e.g. "<v>" or "sks cat"."""
        return self.phrase.format(placeholder=concept.placeholder, superclass=concept.superclass)


def check_placeholder(model: AbstractModel, placeholder: str) -> None:
    """Raises UserError unless the placeholder is one new word: no spaces, and not a word the vocabulary has."""
    if not placeholder or len(placeholder.split()) != 1 or placeholder.strip() != placeholder:
        raise UserError(f"dataset.placeholder={placeholder!r} must be one word without spaces, e.g. <v>")
    if any(len(pieces) < 2 for pieces in model.pieces(placeholder)):
        raise UserError(f"dataset.placeholder={placeholder!r} is a word the text encoder knows; take a new one, e.g. <v>")


def check_phrase(phrase: str, concept: Concept) -> None:
    """Raises UserError where the phrase names the placeholder not at all, or needs a class word that is missing."""
    try:
        phrase.format(placeholder="", superclass="")
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"tokens.phrase={phrase!r}: only {{placeholder}} and {{superclass}} may stand in braces") from error
    if "{superclass}" in phrase and not concept.superclass.strip():
        raise UserError(f"tokens.phrase={phrase!r} needs the class word; set dataset.superclass, e.g. cat")

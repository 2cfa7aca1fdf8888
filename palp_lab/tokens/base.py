"""What all tokens share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from torch import nn

from palp_lab.dataset.concept import Concept
from palp_lab.model.base import AbstractModel, TextCond
from palp_lab.types import Capability


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

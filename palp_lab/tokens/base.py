"""What all tokens share."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from palp_lab.dataset.concept import Concept
from palp_lab.model.base import AbstractModel, TextCond, Words
from palp_lab.types import Capability, UserError

logger = logging.getLogger(__name__)


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

    def positions(self, placeholder: str) -> Mapping[str, Sequence[int]]:
        """What a prompt's placeholder becomes, as `AbstractModel.tokenize` takes it; empty where nothing is learned and
        the phrase is ordinary words."""
        return {}

    def words(self, encoder: int = 0) -> Mapping[str, Tensor]:
        """The learned vectors [k d] of one text encoder as embedding files hold them; empty where none are learned."""
        return {}

    def call(self, concept: Concept) -> str:
        """What fills the slot of a prompt, e.g. "<v>" or "sks cat"."""
        return self.phrase.format(placeholder=concept.placeholder, superclass=concept.superclass)


def check_placeholder(model: AbstractModel, concept: Concept) -> None:
    """Raises UserError unless the placeholder is one new word: no spaces, none of the class's own words, and not a word
    the vocabulary has."""
    placeholder = concept.placeholder
    if not placeholder or len(placeholder.split()) != 1 or placeholder.strip() != placeholder:
        raise UserError(f"dataset.placeholder={placeholder!r} must be one word without spaces, e.g. <v>")
    if placeholder.lower() in concept.superclass.lower().split():
        raise UserError(
            f"dataset.placeholder={placeholder!r} collides with the class {concept.superclass!r}; rename it"
        )
    if any(len(pieces) < 2 for pieces in model.pieces(placeholder)):
        raise UserError(f"dataset.placeholder={placeholder!r} is a word the text encoder knows; take another, e.g. <v>")


def check_phrase(phrase: str, concept: Concept, **more: str) -> None:
    """Raises UserError where the phrase has unknown braces, or needs a class word that is missing. `more` are fields
    beside {placeholder} and {superclass}."""
    known = {"placeholder": concept.placeholder, "superclass": concept.superclass, **more}
    try:
        phrase.format(**known)
    except (KeyError, IndexError, ValueError) as error:
        fields = " and ".join(f"{{{name}}}" for name in known)
        raise UserError(f"tokens.phrase={phrase!r}: only {fields} may stand in braces") from error
    if "{superclass}" in phrase and not concept.superclass.strip():
        raise UserError(f"tokens.phrase={phrase!r} needs the class word; set dataset.superclass, e.g. cat")


def start_vectors(model: AbstractModel, concept: Concept, init_token: str | None) -> tuple[Tensor, ...]:
    """The vocabulary's vectors [pieces d] of the word that training starts from, one tensor per text encoder."""
    word = init_token or concept.superclass
    if not word.strip():
        raise UserError("tokens.init_token: no word to start from; set it, or dataset.superclass")
    return model.word_vectors(word)


def say_pieces(model: AbstractModel, init_token: str | None) -> None:
    """A warning where `init_token` has several pieces: methods start from the last alone, so that of "corgi dog" and of
    "ktn", spelt letter by letter, something else remains than was asked for."""
    if init_token and (pieces := max(map(len, model.pieces(init_token)))) > 1:
        logger.warning(
            "tokens.init_token=%s: %d pieces to the text encoder, and only the last is started from; a word of one "
            "piece says what you mean",
            init_token,
            pieces,
        )


def keep_length(vectors: Iterable[Tensor], lengths: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Vectors [k d] scaled to given lengths [k 1]; differentiable in their directions."""
    return tuple(n.to(v) * v / v.norm(dim=-1, keepdim=True) for v, n in zip(vectors, lengths, strict=True))


def interleave(
    model: AbstractModel, prompts: Sequence[str], words: Words, encode: Callable[[Words], TextCond]
) -> TextCond:
    """Prompts that name the concept by `encode`, the others as the model encodes them, in the prompts' order."""
    named = (words.slot[0] >= 0).any(1).tolist()
    if not any(named):
        return model.encode_prompts(prompts)
    if all(named):
        return encode(words)
    own = encode(words[torch.tensor(named, device=words.slot[0].device)])
    base = model.encode_prompts([prompt for prompt, own_word in zip(prompts, named, strict=True) if not own_word])
    left, right = iter(range(len(own))), iter(range(len(own), len(prompts)))
    order = [next(left) if own_word else next(right) for own_word in named]
    return TextCond.cat([own, base])[torch.tensor(order, device=own.tokens.device)]

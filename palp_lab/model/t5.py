"""The T5 side of a model: prompts to ids around placeholders, learned vectors in the place of word embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from palp_lab.model.text import placeholder_pattern
from palp_lab.types import UserError

if TYPE_CHECKING:
    from palp_lab.types import Vectors


class T5Text:
    """A T5 tokenizer and its frozen encoder, read at `length` tokens without a mask, as Stable Diffusion 3 does. Final.

    Text between placeholders is tokenized on its own: a sign that follows one directly ("<v>,") becomes a word of its
    own. Prompts without a placeholder have the ids of the stock tokenizer.
    """

    def __init__(self, tokenizer: Any, encoder: Any, length: int = 256) -> None:
        if length < 2:
            raise UserError(f"model.t5_length={length}: must be 2 or more tokens")
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.length = length

    @property
    def table(self) -> Tensor:
        """The vocabulary's embeddings [words, d]."""
        return self.encoder.get_input_embeddings().weight

    def word_vectors(self, word: str) -> Vectors:
        """The vocabulary's own vectors [pieces d] of a word: a copy, in float32 or wider."""
        wide = torch.promote_types(self.table.dtype, torch.float32)
        return self.table[self.pieces(word)].detach().to(wide, copy=True)

    def pieces(self, text: str) -> list[int]:
        """Ids of a text without EOS."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids

    def tokenize(self, prompts: Sequence[str], placeholders: Mapping[str, Sequence[int]]) -> tuple[Tensor, Tensor]:
        """ids and slots [b n]; see `AbstractModel.tokenize`."""
        pattern = placeholder_pattern(placeholders)
        rows = [self._row(prompt, pattern.split(prompt) if pattern else [prompt], placeholders) for prompt in prompts]
        both = torch.tensor(rows, dtype=torch.long).view(-1, self.length, 2)
        return both[..., 0], both[..., 1]

    def _row(self, prompt: str, parts: Sequence[str], placeholders: Mapping[str, Sequence[int]]) -> list[list[int]]:
        token = self.tokenizer
        row: list[list[int]] = []
        for part in parts:
            if part in placeholders:
                row += [[token.pad_token_id, slot] for slot in placeholders[part]]
            else:
                row += [[i, -1] for i in self.pieces(part)]
        room = self.length - 1
        if len(row) > room:
            raise UserError(
                f"prompt {prompt!r} has {len(row)} T5 tokens and {room} are read; shorten the prompt, or give "
                f"model.t5_length={len(row) + 1}"
            )
        return [*row, [token.eos_token_id, -1], *[[token.pad_token_id, -1]] * (room - len(row))]

    def encode(self, ids: Tensor, slots: Tensor, vectors: Tensor | None) -> Tensor:
        """Text tokens [b n d] of ids [b n], with `vectors` [k d] where the slot is not -1."""
        words = self.encoder.get_input_embeddings()(ids.to(self.table.device))
        if vectors is not None:
            slots = slots.to(words.device)
            words = torch.where(slots[..., None] >= 0, vectors.to(words)[slots.clamp_min(0)], words)
        return self.encoder(inputs_embeds=words).last_hidden_state

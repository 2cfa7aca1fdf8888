"""The CLIP side of a model: prompts to ids around placeholders, learned vectors laid over the word embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from palp_lab.types import UserError


class ClipText:
    """A CLIP tokenizer and its frozen text encoder. Final.

    The vocabulary is never resized or written: a placeholder is cut out of the prompt before tokenizing and becomes
    positions of its own, over whose embeddings learned vectors are laid by a forward hook (transformers' CLIP text
    models take no `inputs_embeds`). Both of its layouts answer to `get_input_embeddings`.
    """

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.length = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))
        special = set(tokenizer.all_special_ids)
        self.blank = next(i for i in range(len(tokenizer)) if i not in special)
        """The id that stands under a learned vector; below EOS, as old configurations pool at the highest id."""

    @property
    def table(self) -> Tensor:
        """The vocabulary's embeddings [words, d]."""
        return self.encoder.get_input_embeddings().weight

    def pieces(self, text: str) -> list[int]:
        """Ids of a text without BOS and EOS."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids

    def tokenize(self, prompts: Sequence[str], placeholders: Mapping[str, Sequence[int]]) -> tuple[Tensor, Tensor]:
        """ids and slots [b n]; see `AbstractModel.tokenize`. Without placeholders, the ids of the stock tokenizer."""
        pattern = _pattern(placeholders)
        rows = [self._row(prompt, placeholders, pattern) for prompt in prompts]
        ids = torch.tensor([row[0] for row in rows], dtype=torch.long).view(-1, self.length)
        return ids, torch.tensor([row[1] for row in rows], dtype=torch.long).view(-1, self.length)

    def _row(
        self, prompt: str, placeholders: Mapping[str, Sequence[int]], pattern: re.Pattern[str] | None
    ) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        slots: list[int] = []
        for part in pattern.split(prompt) if pattern else [prompt]:
            if part in placeholders:
                slots += placeholders[part]
                ids += [self.blank] * len(placeholders[part])
            else:
                pieces = self.pieces(part)
                ids += pieces
                slots += [-1] * len(pieces)
        room = self.length - 2
        if len(ids) > room:
            raise UserError(
                f"prompt {prompt!r} has {len(ids)} tokens and the text encoder reads {room}: "
                f"{self._read(ids[room:], slots[room:], placeholders)!r} would be cut; shorten the prompt"
            )
        rest = room - len(ids)
        token = self.tokenizer
        return (
            [token.bos_token_id, *ids, token.eos_token_id, *[token.pad_token_id] * rest],
            [-1, *slots, -1, *[-1] * rest],
        )

    def _read(self, ids: list[int], slots: list[int], placeholders: Mapping[str, Sequence[int]]) -> str:
        """The words of ids, placeholders included."""
        names = {slot: word for word, numbers in placeholders.items() for slot in numbers}
        text = [names[s] if s >= 0 else self.tokenizer.decode([i]) for i, s in zip(ids, slots, strict=True)]
        return " ".join(word.strip() for word in text)

    def encode(self, ids: Tensor, slots: Tensor, vectors: Tensor | None) -> Any:
        """The text encoder's output for ids [b n], with `vectors` [k d] over the positions whose slot is not -1."""
        device = self.table.device
        ids, slots = ids.to(device), slots.to(device)
        if vectors is None or not bool((slots >= 0).any()):
            return self.encoder(ids, output_hidden_states=True)
        with overlay(self.encoder.get_input_embeddings(), slots, vectors):
            return self.encoder(ids, output_hidden_states=True)


@contextmanager
def overlay(embedding: nn.Module, slots: Tensor, vectors: Tensor) -> Iterator[None]:
    """A block in which an embedding layer answers with `vectors[slot]` [k d] wherever `slots` [b n] is not -1."""

    def lay(_module: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
        own = vectors.to(output.dtype)[slots.clamp_min(0)]
        return torch.where(slots[..., None] >= 0, own, output)

    handle = embedding.register_forward_hook(lay)
    try:
        yield
    finally:
        handle.remove()


def concept_positions(slots: Tensor) -> Tensor:
    """[b]: the last position with a slot in [b n], -1 without."""
    positions = torch.arange(slots.shape[1], device=slots.device).expand_as(slots)
    return torch.where(slots >= 0, positions, -1).amax(1)


def _pattern(placeholders: Mapping[str, Sequence[int]]) -> re.Pattern[str] | None:
    """Finds placeholders as whole words, the longest first. Raises UserError where two read the same."""
    if not placeholders:
        return None
    folded: dict[str, str] = {}
    for word in placeholders:
        if (other := folded.setdefault(word.lower(), word)) != word:
            raise UserError(f"the placeholders {other!r} and {word!r} collide: text encoders ignore case; rename one")
    parts = []
    for word in sorted(placeholders, key=len, reverse=True):
        left = r"(?<!\w)" if word[0].isalnum() else ""
        right = r"(?!\w)" if word[-1].isalnum() else ""
        parts.append(f"{left}{re.escape(word)}{right}")
    return re.compile("(" + "|".join(parts) + ")")

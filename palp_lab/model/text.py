"""The CLIP side of a model: prompts to ids around placeholders, learned vectors laid over the word embeddings."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from palp_lab.types import UserError

if TYPE_CHECKING:
    from palp_lab.types import Vectors

log = logging.getLogger(__name__)

LONG_PROMPTS = ("error", "cut")
"""What becomes of a prompt that is too long: an error that names the words, or a cut with a warning that does."""

Piece = tuple[int, int]
"""An id and its slot (-1: the vocabulary's own embedding)."""


@dataclass(frozen=True)
class Encoded:
    """A text encoder's output: hidden states after the last layer norm and before the last layer [b n d], and the
    pooled vector [b p], projected where the encoder has a projection. Several windows lie one after the other; the
    pooled vector is the first one's."""

    last: Tensor
    penultimate: Tensor
    pooled: Tensor


class ClipText:
    """A CLIP tokenizer and its frozen text encoder. Final.

    The vocabulary is never resized or written: a placeholder is cut out of the prompt before tokenizing and becomes
    positions of its own, over whose embeddings learned vectors are laid by a forward hook (transformers' CLIP text
    models take no `inputs_embeds`). Both of its layouts, flat and below `text_model`, answer to `get_input_embeddings`.

    `windows` is how often the encoder is run over one prompt, on as many words each time as it reads (75), the results
    one after the other; every prompt has all windows, so that a row never depends on its neighbours' lengths. Windows
    are ours: the published models were trained with one. A family that reads a single one says so (`one_window`).
    """

    def __init__(
        self, tokenizer: Any, encoder: Any, long_prompts: str = "error", windows: int = 1, one_window: bool = False
    ) -> None:
        if long_prompts not in LONG_PROMPTS:
            raise UserError(f"model.long_prompts={long_prompts}: must be {' or '.join(LONG_PROMPTS)}")
        if windows < 1:
            raise UserError(f"model.windows={windows}: must be 1 or more")
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.long_prompts = long_prompts
        self.windows = windows
        self.one_window = one_window
        self.length = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))
        """Tokens the encoder reads at once, BOS and EOS included."""
        special = set(tokenizer.all_special_ids)
        self.blank = next(i for i in range(len(tokenizer)) if i not in special)
        """The id that stands under a learned vector; below EOS, as old configurations pool at the highest id."""
        self._warned: set[str] = set()

    @property
    def table(self) -> Tensor:
        """The vocabulary's embeddings [words, d]."""
        return self.encoder.get_input_embeddings().weight

    def word_vectors(self, word: str) -> Vectors:
        """The vocabulary's own vectors [pieces d] of a word: a copy, in float32 or wider."""
        wide = torch.promote_types(self.table.dtype, torch.float32)
        return self.table[self.pieces(word)].detach().to(wide, copy=True)

    def pieces(self, text: str) -> list[int]:
        """Ids of a text without BOS and EOS."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids

    def tokenize(self, prompts: Sequence[str], placeholders: Mapping[str, Sequence[int]]) -> tuple[Tensor, Tensor]:
        """ids and slots [b n]; see `AbstractModel.tokenize`. Without placeholders, the ids of the stock tokenizer."""
        pattern = placeholder_pattern(placeholders)
        rows = [self._row(prompt, placeholders, pattern) for prompt in prompts]
        long = torch.tensor(rows, dtype=torch.long).view(-1, self.windows * self.length, 2)
        return long[..., 0], long[..., 1]

    def _row(
        self, prompt: str, placeholders: Mapping[str, Sequence[int]], pattern: re.Pattern[str] | None
    ) -> list[Piece]:
        words: list[list[Piece]] = []
        for part in pattern.split(prompt) if pattern else [prompt]:
            if part in placeholders:
                words.append([(self.blank, slot) for slot in placeholders[part]])
            else:
                words += self._words(part)
        room = self.length - 2
        windows, rest = pack(words, room, self.windows)
        if rest:
            self._refuse(prompt, sum(map(len, words)), rest, placeholders)
        token = self.tokenizer
        row: list[Piece] = []
        for window in windows:
            row += [(token.bos_token_id, -1), *window, (token.eos_token_id, -1)]
            row += [(token.pad_token_id, -1)] * (room - len(window))
        return row

    def _words(self, text: str) -> list[list[Piece]]:
        """The pieces of a text, word by word; one list of all where there is but one window to put them into."""
        pieces: list[Piece] = [(i, -1) for i in self.pieces(text)]
        if self.windows == 1:
            return [pieces]
        ends = [name.endswith("</w>") for name in self.tokenizer.convert_ids_to_tokens([i for i, _ in pieces])]
        words: list[list[Piece]] = [[]]
        for piece, end in zip(pieces, ends, strict=True):
            words[-1].append(piece)
            if end:
                words.append([])
        return [word for word in words if word]

    def _refuse(self, prompt: str, count: int, rest: list[Piece], placeholders: Mapping[str, Sequence[int]]) -> None:
        """Raises UserError, or says what is cut where that was asked for."""
        lost = self._read(rest, placeholders)
        said = (
            f"prompt {prompt!r} has {count} tokens and the text encoder reads {self.windows * (self.length - 2)}: "
            f"{lost!r} would be cut"
        )
        if self.long_prompts == "error":
            more = "" if self.one_window else f" or model.windows={self.windows + 1}"
            raise UserError(f"{said}; shorten the prompt, or give model.long_prompts=cut{more}")
        if any(slot >= 0 for _, slot in rest):
            raise UserError(f"{said}, and with it the learned word; shorten the prompt")
        if prompt not in self._warned:
            self._warned.add(prompt)
            log.warning("%s, as model.long_prompts=cut asks", said.replace("would be cut", "is cut"))

    def _read(self, pieces: list[Piece], placeholders: Mapping[str, Sequence[int]]) -> str:
        """The words of pieces, placeholders included."""
        names = {slot: word for word, numbers in placeholders.items() for slot in numbers}
        text = [names[slot] if slot >= 0 else self.tokenizer.decode([i]) for i, slot in pieces]
        return " ".join(word.strip() for word in text)

    def encode(self, ids: Tensor, slots: Tensor, vectors: Tensor | None) -> Encoded:
        """What the text encoder makes of ids [b n], with `vectors` [k d] over the positions whose slot is not -1."""
        device, rows = self.table.device, len(ids)
        ids, slots = (one.to(device).reshape(-1, self.length) for one in (ids, slots))
        if vectors is None or not bool((slots >= 0).any()):
            out = self.encoder(ids, output_hidden_states=True)
        else:
            with overlay(self.encoder.get_input_embeddings(), slots, vectors):
                out = self.encoder(ids, output_hidden_states=True)
        pooled = out.text_embeds if "text_embeds" in out else out.pooler_output
        last, penultimate = (
            one.reshape(rows, -1, one.shape[-1]) for one in (out.last_hidden_state, out.hidden_states[-2])
        )
        return Encoded(last, penultimate, pooled.view(rows, self.windows, -1)[:, 0])


def pack(words: Sequence[Sequence[Piece]], room: int, windows: int) -> tuple[list[list[Piece]], list[Piece]]:
    """Pieces in windows of `room`, and the rest that found no place. A word that would be split goes into the next
    window whole, where there is one and it is not longer than a window."""
    packed: list[list[Piece]] = [[]]
    rest: list[Piece] = []
    for word in words:
        if packed[-1] and room - len(packed[-1]) < len(word) <= room and len(packed) < windows:
            packed.append([])
        for piece in word:
            if len(packed[-1]) == room and len(packed) < windows:
                packed.append([])
            (packed[-1] if len(packed[-1]) < room else rest).append(piece)
    return packed + [[] for _ in range(windows - len(packed))], rest


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


def placeholder_pattern(placeholders: Mapping[str, Sequence[int]]) -> re.Pattern[str] | None:
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

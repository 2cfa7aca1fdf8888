"""Gives the generator's text encoder a start: it learns to say what a caption asks for before it sees a picture.

A random text encoder hardly moves a young UNet: most of its 40 vectors are the padding after the end, and all
of those are alike. Here these vectors learn to hold the caption's elements, so that even an even attention is informed;
and the vector of a noun learns to hold its own colours and pattern, so that what is drawn for "hat" can be red while
the cat is blue. Without that no colour was ever learned: a UNet that looked at a noun found nothing of them there.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from palp_lab.tinyworld.captions import NEUTRAL_SUBJECT, SUBJECT_ADJECTIVES
from palp_lab.tinyworld.factors import ACCESSORIES, CLASSES, COLOUR_NAMES, PATTERNS
from palp_lab.tinyworld.oracle import LABELS
from palp_lab.tinyworld.pretrain_loop import AbstractTask, Batch
from palp_lab.tinyworld.pretrain_reader import factor_loss, label_table
from palp_lab.tinyworld.pretrain_text import ids_of

_COLOURS = ["none", *COLOUR_NAMES]

SAID = {"said_colour": _COLOURS, "said_second": _COLOURS, "said_pattern": ["none", *PATTERNS]}
"""What the words before a noun say of it."""

SAID_WEIGHT = 4.0
"""How much more a noun's own words count than a factor at the end of the text; ours, 1 learned them too slowly."""

NO_NOUN = -100
"""The target where no noun stands; cross-entropy passes it over."""

KEPT = 30.0
"""How much it costs to leave the vectors that a UNet was trained on, mean squares; ours, no other value was tried."""


class Wording(AbstractTask):
    """Linear heads read every factor off the vectors from the end of the text on, and off each noun what is said of it.

    ``captions`` int16 [n variants length] and ``labels`` belong to the generator's set; the scorers see neither. With
    ``known``, a text encoder that a UNet was trained on, the vectors stay near to its own.
    """

    def __init__(
        self, text: CLIPTextModel, captions: np.ndarray, labels: dict[str, np.ndarray], tokenizer: CLIPTokenizer,
        batch: int = 64, known: CLIPTextModel | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.text, self.captions, self.table, self.batch = text, captions, label_table(labels), batch
        self.end, self.nouns = tokenizer.eos_token_id, Nouns(tokenizer)
        width = text.config.hidden_size
        kinds = {**LABELS, **SAID}
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(words)) for name, words in kinds.items()})
        # A tuple, so that it is neither trained nor saved.
        self.known = () if known is None else (known.requires_grad_(False).eval(),)

    def draw(self, rng: torch.Generator) -> Batch:
        """Captions, labels of their pictures and what is said of their nouns; a dropped factor can only be guessed."""
        rows = torch.randint(0, len(self.captions), (self.batch,), generator=rng)
        variant = torch.randint(0, self.captions.shape[1], (self.batch,), generator=rng)
        ids = ids_of(self.captions[rows.numpy(), variant.numpy()], torch.arange(self.batch))
        drawn = {"ids": ids, "y": torch.from_numpy(self.table[rows.numpy()].astype(np.int64))}
        return {**drawn, **self.nouns.said(ids)}

    def forward(self, batch: Batch) -> Tensor:
        """Weighted cross-entropies: from the mean of the trailing vectors, from the last one alone, from every noun."""
        hidden = self.text(batch["ids"]).last_hidden_state
        trailing = (batch["ids"] == self.end).unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * trailing).sum(1) / trailing.sum(1)
        single = hidden[:, -1]
        losses = [factor_loss({name: self.heads[name](x) for name in LABELS}, batch["y"]) for x in (mean, single)]
        loss = torch.stack(losses).mean()
        for name in SAID:
            scores = self.heads[name](hidden).flatten(0, 1)
            loss = loss + SAID_WEIGHT * functional.cross_entropy(scores, batch[name].flatten(), ignore_index=NO_NOUN)
        if self.known:
            with torch.no_grad():
                before = self.known[0].to(hidden.device)(batch["ids"]).last_hidden_state
            loss = loss + KEPT * functional.mse_loss(hidden, before)
        return loss


class Nouns:
    """Finds the subjects and accessories of token ids, and the colours and the pattern said of each."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        def parts(word: str) -> list[int]:
            return tokenizer(word, add_special_tokens=False).input_ids

        self.colours = {parts(word)[0]: i for i, word in enumerate(COLOUR_NAMES, start=1)}
        self.patterns = {parts(word)[0]: i for i, word in enumerate(PATTERNS, start=1)}
        self.nouns = {parts(word)[0] for word in (*CLASSES, *ACCESSORIES)}
        between = (*COLOUR_NAMES, *PATTERNS, *SUBJECT_ADJECTIVES, *NEUTRAL_SUBJECT, "and")
        self.between = {part for word in between for part in parts(word)}

    def said(self, ids: Tensor) -> dict[str, Tensor]:
        """For ``ids`` [b length] the indices into :data:`SAID`, [b length] each, :data:`NO_NOUN` off the nouns."""
        found = {name: torch.full_like(ids, NO_NOUN) for name in SAID}
        for row, line in enumerate(ids.tolist()):
            colours: list[int] = []
            pattern = 0
            for at, token in enumerate(line):
                if token in self.nouns:
                    for name, value in zip(SAID, (*[*colours, 0, 0][:2], pattern), strict=True):
                        found[name][row, at] = value
                if token not in self.between:
                    colours, pattern = [], 0
                elif token in self.colours:
                    colours.append(self.colours[token])
                elif token in self.patterns:
                    pattern = self.patterns[token]
        return found

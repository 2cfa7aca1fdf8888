"""Tokenizer and text encoder of the tiny models: stock CLIP classes over the world's own words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from palp_lab.tinyworld.captions import WORDS
from palp_lab.tinyworld.factors import CLASSES

LENGTH = 40
"""Longest text in tokens, both ends included: 26 words, their commas and the parts of hyphened words. Ours."""

WIDTH = 128
"""Width of the text encoder, and so of every cross-attention's context. Ours."""

LAYERS = 3
"""Layers of the text encoder. Ours."""

END = "</w>"
"""What CLIP's vocabulary marks the end of a word with."""


def corpus() -> list[str]:
    """Every word of the grammar, and what people type around it."""
    return [*WORDS, *(f"{name}s" for name in CLASSES), "{}", ",", "-", "."]


def build_tokenizer(length: int = LENGTH) -> CLIPTokenizer:
    """A CLIP tokenizer in which every grammar word is one token and every other text falls back to bytes.

    The same on every machine and in every process; the byte-pair trainer of tokenizers breaks ties by chance.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = byte_pairs(corpus())
    vocabulary: dict[str, int] = {}
    # Every byte, inside a word and at its end: else an unknown sign would become an end of text amid the prompt.
    for piece in alphabet + [letter + END for letter in alphabet]:
        vocabulary[piece] = len(vocabulary)
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def byte_pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """The merges that make each of ``words`` one token: the most frequent pair first, ties in alphabetical order.

    Source: 1508.07909, algorithm 1, every word once.
    """
    split = sorted({part for word in words for part in re.findall(r"[a-z]+|[^a-z]+", word)})
    pieces = [[*part[:-1], part[-1] + END] for part in split]
    merges: list[tuple[str, str]] = []
    while True:
        counts = Counter(pair for piece in pieces for pair in pairwise(piece))
        if not counts:
            return merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        pieces = [_merge(piece, best) for piece in pieces]


def _merge(piece: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for symbol in piece:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out


def text_config(tokenizer: CLIPTokenizer, width: int = WIDTH, layers: int = LAYERS, heads: int = 4) -> CLIPTextConfig:
    """The configuration of a CLIP text tower over ``tokenizer``."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A randomly initialised text encoder."""
    return CLIPTextModel(text_config(tokenizer))


def encode_captions(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> np.ndarray:
    """Token ids of ``texts``, padded to the tokenizer's length; int16 [n length]."""
    ids = tokenizer(list(texts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length).input_ids
    return np.asarray(ids, np.int16)


def ids_of(table: np.ndarray, rows: torch.Tensor) -> torch.Tensor:
    """Rows of a token table as the int64 tensor a text encoder takes."""
    return torch.from_numpy(table[rows.numpy()].astype(np.int64))

"""Tokenizer and text encoder of the tiny models: stock CLIP classes over the world's own words."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from palp_lab.tinyworld.captions import WORDS
from palp_lab.tinyworld.factors import CLASSES

LENGTH = 40
"""Longest text in tokens, both ends included: 26 words, their commas and the parts of hyphened words. Ours."""

WIDTH = 128
"""Width of the text encoder, and so of every cross-attention's context. Ours."""


def corpus() -> list[str]:
    """Every word of the grammar, and what people type around it."""
    return [*WORDS, *(f"{name}s" for name in CLASSES), "{}", ",", "-", "."]


def build_tokenizer(length: int = LENGTH) -> CLIPTokenizer:
    """A CLIP tokenizer in which every grammar word is one token and every other text falls back to bytes."""
    blank = CLIPTokenizer().backend_tokenizer
    tokenizer = Tokenizer(BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=1, end_of_word_suffix="</w>", initial_alphabet=alphabet,
        special_tokens=[], show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(corpus(), trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    vocabulary: dict[str, int] = {}
    # Every byte, inside a word and at its end: else an unknown sign would become an end of text amid the prompt.
    for piece in alphabet + [letter + "</w>" for letter in alphabet]:
        vocabulary[piece] = len(vocabulary)
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def text_config(tokenizer: CLIPTokenizer, width: int = WIDTH, layers: int = 3, heads: int = 4) -> CLIPTextConfig:
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

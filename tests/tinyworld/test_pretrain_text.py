"""The tokenizer: one token a word, bytes for everything else, the same in every process."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from palp_lab.tinyworld import WORDS
from palp_lab.tinyworld.captions import LONGEST
from palp_lab.tinyworld.pretrain_text import LENGTH, build_text_encoder, build_tokenizer, byte_pairs, encode_captions
from palp_lab.tinyworld.sets import captions_of, scene_of


def test_every_word_is_one_token_and_a_hyphen_costs_one_more_part() -> None:
    tokenizer = build_tokenizer()
    lengths = {word: len(tokenizer(word).input_ids) - 2 for word in WORDS}
    assert {word: n for word, n in lengths.items() if n != (3 if "-" in word else 1)} == {}


@pytest.mark.parametrize("text", ["zebra naïve ☃ <v>", "{}", "CAT's 42 λ", "a<sks>b", "\t"])
def test_no_text_ends_amid_the_prompt(text: str) -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids[1:-1] and tokenizer.unk_token_id not in ids[1:-1]


def test_the_vocabulary_does_not_depend_on_chance() -> None:
    digests = {
        hashlib.sha256(json.dumps(build_tokenizer().get_vocab(), sort_keys=True).encode()).hexdigest() for _ in range(3)
    }
    assert len(digests) == 1
    assert byte_pairs(["ab", "abc"]) == [("a", "b"), ("a", "b</w>"), ("ab", "c</w>")]


def test_captions_fit_and_are_padded_with_the_end() -> None:
    tokenizer = build_tokenizer()
    texts = [text for index in range(300) for text in captions_of(scene_of(5, index))]
    table = encode_captions(tokenizer, texts)
    assert table.shape == (len(texts), LENGTH) and LENGTH > LONGEST
    assert (table[:, -1] == tokenizer.eos_token_id).all(), "no caption is cut"


def test_the_text_encoder_pools_at_the_first_end_of_text() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer.eos_token_id != 2, "2 switches CLIPTextModel to its legacy pooling"
    torch.manual_seed(0)
    encoder = build_text_encoder(tokenizer).eval()
    ids = torch.from_numpy(encode_captions(tokenizer, ["a photo of a cat"]).astype("int64"))
    end = int((ids[0] == tokenizer.eos_token_id).nonzero()[0])
    output = encoder(ids)
    assert torch.equal(output.pooler_output[0], output.last_hidden_state[0, end])

"""Words of diffusers, A1111 and SDXL, and what is said where they do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palp_lab.formats.embedding_files import half_of, is_embedding, joined, read_word, to_embedding
from palp_lab.types import UserError

FILES: dict[str, tuple[dict[str, Any], str | None, int]] = {
    "diffusers": ({"<mia>": torch.ones(2, 16)}, "<mia>", 2),
    "diffusers, one vector": ({"<mia>": torch.ones(16)}, "<mia>", 1),
    "A1111, safetensors": ({"emb_params": torch.ones(3, 16)}, None, 3),
    "A1111, torch": (
        {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(2, 16)}, "name": "mia"},
        None,
        2,
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_word_is_read(kind: str) -> None:
    data, name, count = FILES[kind]
    assert is_embedding(data)
    word = read_word("mine.pt", data, [16])
    assert (word.name, word.count, word.vectors[0].shape) == (name, count, (count, 16))


def test_sdxl_has_one_for_each_text_encoder() -> None:
    vectors = (torch.zeros(2, 16), torch.ones(2, 24))
    data = to_embedding("<mia>", vectors)
    assert list(data) == ["clip_l", "clip_g"] and is_embedding(data)
    word = read_word("mine.safetensors", data, [16, 24])
    assert all(torch.equal(a, b) for a, b in zip(word.vectors, vectors, strict=True))
    with pytest.raises(UserError, match="different numbers of vectors"):
        read_word("mine.safetensors", data | {"clip_g": torch.ones(3, 24)}, [16, 24])


@pytest.mark.parametrize(
    ("data", "widths", "said"),
    [
        ({"<mia>": torch.ones(768)}, [16], r"mine\.pt: <mia> holds vectors of width 768.*read 16.*Diffusion 1\.x"),
        ({"<mia>": torch.ones(768)}, [768, 1280], r"<mia> holds vectors of width 768.*read 768 and 1280"),
        ({"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}, [1024], r"clip_l and clip_g.*SDXL"),
        ({"a": torch.ones(16), "b": torch.ones(16)}, [16], r"mine\.pt: holds 2 words \(a, b\)"),
    ],
)
def test_what_does_not_fit_is_one_line(data: Any, widths: list[int], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        read_word("mine.pt", data, widths)
    assert "\n" not in str(error.value)


def test_a_file_for_one_of_several_text_encoders_is_told_by_its_width() -> None:
    name, vectors = half_of({"<mia>": torch.ones(24)}, [16, 24]) or ("", torch.zeros(0))
    assert (name, vectors.shape) == ("<mia>", (1, 24))
    for data, widths in (
        ({"<mia>": torch.ones(24)}, [24]),
        ({"<mia>": torch.ones(24)}, [24, 24]),
        ({"<mia>": torch.ones(32)}, [16, 24]),
        ({"clip_l": torch.ones(1, 16)}, [16, 24]),
        ({"emb_params": torch.ones(1, 16)}, [16, 24]),
    ):
        assert half_of(data, widths) is None
    word = joined("mine", {"<mia>": {24: torch.ones(2, 24), 16: torch.zeros(2, 16)}}, [16, 24])
    assert (word.name, [value.shape[1] for value in word.vectors]) == ("<mia>", [16, 24])
    with pytest.raises(UserError, match="different numbers of vectors"):
        joined("mine", {"<mia>": {24: torch.ones(2, 24), 16: torch.zeros(3, 16)}}, [16, 24])


def test_weights_are_no_words() -> None:
    assert not is_embedding({"conv_in.weight": torch.ones(2, 2)})
    assert not is_embedding({"<mia>": torch.ones(2, 2, 2)})
    assert not is_embedding({})

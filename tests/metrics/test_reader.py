"""The element reader: opens what it saved, reads per factor, names what is wrong with a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import ResNetConfig

from palp_lab.metrics.reader import ElementReader
from palp_lab.types import UserError

LABELS = {"style": ["photo", "sketch"], "hat": ["none", "red", "blue"]}


@pytest.fixture
def reader() -> ElementReader:
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
    return ElementReader(LABELS, config).eval()


def pictures(count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_it_reads_the_likeliest_word_of_every_factor(reader: ElementReader) -> None:
    images = pictures()
    chances, found, words = reader.probabilities(images), reader.read(images), reader.words(images)
    assert set(chances) == set(found) == set(words) == set(LABELS)
    for name, kinds in LABELS.items():
        assert chances[name].shape == (3, len(kinds))
        assert torch.allclose(chances[name].sum(1), torch.ones(3))
        assert found[name].dtype == torch.int64 and torch.equal(found[name], chances[name].argmax(1))
        assert words[name] == [kinds[i] for i in found[name]]


def test_it_opens_what_it_saved(reader: ElementReader, tmp_path: Path) -> None:
    reader.save(tmp_path / "reader")
    opened = ElementReader.from_folder(tmp_path / "reader")
    assert opened.labels == LABELS and len(opened.fingerprint) == 16
    assert not any(parameter.requires_grad for parameter in opened.parameters())
    for name, values in reader.probabilities(pictures()).items():
        assert torch.equal(values, opened.probabilities(pictures())[name])


def test_floats_are_refused(reader: ElementReader) -> None:
    with pytest.raises(TypeError, match="uint8"):
        reader.read(torch.rand(1, 3, 64, 64))


def test_a_wrong_folder_is_named(reader: ElementReader, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: missing"):
        ElementReader.from_folder(tmp_path)
    reader.save(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="not an element reader"):
        ElementReader.from_folder(tmp_path)

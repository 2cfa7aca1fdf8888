"""Foreign files are read without running what is in them, and say in one line what is wrong."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from palp_lab.formats.weights import read_weights
from palp_lab.types import UserError


def test_files_are_told_apart_by_content(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "one.bin", {"note": "here"})
    tensors, header = read_weights(tmp_path / "one.bin")
    assert torch.equal(tensors["a"], torch.ones(2)) and header == {"note": "here"}
    torch.save({"a": torch.ones(3), "nested": {"b": torch.zeros(1)}}, tmp_path / "two.safetensors")
    tensors, header = read_weights(tmp_path / "two.safetensors")
    assert tensors["a"].shape == (3,) and list(tensors["nested"]) == ["b"] and not header


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return Path.touch, (self.mark,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save({"a": Trap(tmp_path / "mark")}, tmp_path / "evil.bin")
    with pytest.raises(UserError, match=r"evil\.bin: .*unpickling.*safetensors") as error:
        read_weights(tmp_path / "evil.bin")
    assert not (tmp_path / "mark").exists()
    assert "\n" not in str(error.value)
    pickle.loads((lambda: pickle.dumps(Trap(tmp_path / "mark")))())
    assert (tmp_path / "mark").exists(), "the trap works"


@pytest.mark.parametrize("content", [b"", b"not one", b"PK\x03\x04 torn", b'\x10\0\0\0\0\0\0\0{"a": torn'])
def test_damaged_files_are_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lora.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"lora\.safetensors: ") as error:
        read_weights(path)
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: cannot be read"):
        read_weights(tmp_path / "nowhere")
    torch.save(torch.ones(2), tmp_path / "bare.pt")
    with pytest.raises(UserError, match="holds a Tensor"):
        read_weights(tmp_path / "bare.pt")

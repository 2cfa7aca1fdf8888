"""Published dimensions: random weights of a true architecture, and what the real ones need before they are there.

`conf/model/*.yaml` carry them as `dimensions`: `pipeline` is the class of the stock pipeline, `parameters` says how
many numbers each part has as released, and every other block is a part: its `class` and the keys of its configuration.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from palp_lab.model.folder import AbstractParts, Folder, component_class
from palp_lab.types import UserError

RANDOM = "random"
"""The path that stands for random weights of the dimensions."""
SUMS = ("pipeline", "parameters")
"""What a block of dimensions says of the whole; the rest are parts."""
BYTES = {torch.float32: 4, torch.bfloat16: 2, torch.float16: 2, torch.float64: 8}


class RandomParts(AbstractParts):
    """A pipeline built from its dimensions alone, with random weights or, on the meta device, none. Final.

    A part's weights depend on its name and its block alone. Tokenizers are those of `config`, a pipeline's folder;
    without one a stand-in of the same size, in which every character is a token.
    """

    def __init__(
        self, dimensions: Mapping[str, Any] | None, device: torch.device, config: Folder | None = None
    ) -> None:
        if not dimensions:
            raise UserError(f"model.path={RANDOM} needs model.dimensions; choose model=sd14, sd15, sd21 or sdxl")
        self.path = RANDOM
        self.device = device
        self.config = config
        self.blocks = {name: dict(block) for name, block in dimensions.items() if name not in SUMS}
        self.classes = {name: component_class(str(block.pop("class", None))) for name, block in self.blocks.items()}
        self.index = {"_class_name": dimensions.get("pipeline")} | {
            name: [found.__module__.split(".")[0], found.__name__] for name, found in self.classes.items()
        }

    def load(self, part: str, dtype: torch.dtype | None = None) -> Any:
        if part not in self.blocks:
            raise UserError(f"model.dimensions has no {part}; a {self.index['_class_name']} needs one")
        found, keys = self.classes[part], self.blocks[part]
        if part.startswith("tokenizer"):
            return self.config.load(part) if self.config else stand_in_tokenizer(found, **keys)
        if part.startswith("scheduler"):
            return found.from_config(keys)
        with torch.random.fork_rng(devices=[]), torch.device(self.device):
            torch.manual_seed(zlib.crc32(part.encode()))
            configured = getattr(found, "config_class", None)
            module = found.from_config(keys) if configured is None else found(configured(**keys))
        return nn.Module.to(module, dtype or torch.float32)  # diffusers' own `to` warns of what does not apply


def stand_in_tokenizer(kind: Any, size: int, length: int, pad: str) -> Any:
    """A byte-level CLIP tokenizer of a given size: its first 512 ids are characters, the rest are never met, and the
    last two begin and end a text. A T5's starts with its special tokens, and characters follow."""
    from tokenizers import pre_tokenizers

    if kind.__name__.startswith("T5"):
        signs = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((chr(i), -2.0) for i in (0x2581, *range(33, 127)))]
        rest = [(f"<unused{number}>", -9.0) for number in range(size - len(signs))]
        return kind(vocab=signs + rest, extra_ids=0, model_max_length=length, pad_token=pad)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    names += [f"<unused{number}>" for number in range(size - len(names) - 2)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    return kind(vocab=vocabulary, merges=[], model_max_length=length, pad_token=pad)


def weight_bytes(dimensions: Mapping[str, Any], dtype: torch.dtype) -> int:
    """Bytes of all frozen weights of the published checkpoint, held in `dtype`."""
    return sum(int(count) for count in dimensions["parameters"].values()) * BYTES[dtype]

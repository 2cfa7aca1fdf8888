"""peft's LoRA layers laid into one network, and taken out again."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from palp_lab.types import UserError

NAME = "palp_lab"
"""What the layers are called inside peft."""
STARTS = ("uniform", "gaussian")
NAMED = 12
"""Ends of layer names in an error line, the most frequent first."""


class LowRankLayers:
    """W + (alpha / rank) B A on the layers of a network whose path ends in one of the targets. Final.

    Args:
        network: stays the base where the layers are disabled, and bitwise afterwards.
        what: its name in error lines.
        key: the configuration key of the targets in error lines.
        targets: ends of paths.
        config: the rest of peft's LoraConfig.
    """

    def __init__(self, network: Any, what: str, key: str, targets: Sequence[str], config: Mapping[str, Any]) -> None:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.tuners_utils import BaseTunerLayer

        if NAME in getattr(network, "peft_config", {}):
            raise ValueError("the model carries a LoRA already; detach it first")
        layers = [name for name, w in network.named_parameters() if name.endswith(".weight") and w.ndim > 1]
        layers = [name.removesuffix(".weight") for name in layers]
        if unused := [t for t in targets if not any(f".{name}".endswith(f".{t}") for name in layers)]:
            kinds = [end for end, _ in Counter(map(_end, layers)).most_common()]
            raise UserError(
                f"{key}: no layer of {what} ends in {', '.join(map(repr, unused))}; targets are ends of layer names, "
                f"such as {', '.join(kinds[:NAMED])}"
            )
        self.network = network
        with torch.random.fork_rng(devices=[]):
            try:
                inject_adapter_in_model(LoraConfig(target_modules=list(targets), **config), network, NAME)
            except ValueError as error:
                raise UserError(f"{key}={list(targets)}: {str(error).splitlines()[0]}") from error
        self.layers: dict[str, Any] = {n: m for n, m in network.named_modules() if isinstance(m, BaseTunerLayer)}

    @torch.no_grad()
    def start(self, device: torch.device, how: str, seed: str) -> None:
        """B zero, A drawn, float32 or wider; a draw depends on `seed` and the layer's name alone.

        `how`: uniform, as torch's linear layers and as peft itself; or gaussian with standard deviation 1 / rank.
        """
        for name, layer in self.layers.items():
            # torch's CPU generator reads the low 32 bits of a seed and no more.
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}{name}".encode()))
            down, up = layer.lora_A[NAME], layer.lora_B[NAME]
            dtype = torch.promote_types(layer.get_base_layer().weight.dtype, torch.float32)
            down.to(device, dtype)
            up.to(device, dtype)
            if how == "gaussian":
                drawn = torch.randn(down.weight.shape, generator=generator) / layer.r[NAME]
            else:
                bound = 1 / math.sqrt(down.weight[0].numel())
                drawn = torch.rand(down.weight.shape, generator=generator) * (2 * bound) - bound
            down.weight.copy_(drawn.to(device))
            up.weight.zero_()

    def detach(self) -> None:
        """Puts the base layers back."""
        for name, layer in self.layers.items():
            parent, _, child = name.rpartition(".")
            setattr(self.network.get_submodule(parent), child, layer.get_base_layer())
        self.layers = {}
        self.network.__dict__.pop("peft_config", None)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """A block in which the network is bitwise the base."""
        # The flag alone: peft's disable_adapters() would also switch requires_grad off and drop the gradients of a
        # graph that was built outside.
        before = [layer._disable_adapters for layer in self.layers.values()]
        for layer in self.layers.values():
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, flag in zip(self.layers.values(), before, strict=True):
                layer._disable_adapters = flag

    def set_strength(self, strength: float) -> None:
        """Scales every update."""
        for layer in self.layers.values():
            layer.scaling[NAME] = strength * layer.lora_alpha[NAME] / layer.r[NAME]

    def parts(self) -> Iterator[tuple[str, nn.Parameter]]:
        """A and B of every layer by peft's names."""
        for name, layer in self.layers.items():
            yield f"{name}.lora_A.weight", layer.lora_A[NAME].weight
            yield f"{name}.lora_B.weight", layer.lora_B[NAME].weight

    @torch.no_grad()
    def merged(self) -> Mapping[str, Tensor]:
        """The layers' weights with the updates added."""
        return {
            f"{name}.weight": layer.get_base_layer().weight + layer.get_delta_weight(NAME)
            for name, layer in self.layers.items()
        }

    def saved(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """The parameters, and peft's configuration as plain data."""
        config = self.network.peft_config[NAME].to_dict()
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        return {name: weight.detach() for name, weight in self.parts()}, plain


def _end(name: str) -> str:
    """The last part of a layer's name, with what is before it where it is a number: to_q, to_out.0."""
    before, _, last = name.rpartition(".")
    return f"{before.rpartition('.')[2]}.{last}" if last.isdigit() and before else last

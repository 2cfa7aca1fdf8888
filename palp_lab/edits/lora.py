"""Low-rank updates of the denoiser's projections, by peft."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from palp_lab.edits.base import AbstractEdits
from palp_lab.model.base import AbstractModel
from palp_lab.types import Capability, UserError

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class LoraEdits(AbstractEdits):
    """W + (strength * alpha / rank) B A on every layer whose path ends in one of `targets`. Final.

    The default targets are the projections of self- and cross-attention; `ff.net.0.proj`, `ff.net.2`, `conv1`, `conv2`,
    `proj_in` and `proj_out` are wider choices. A is drawn from `seed` and the layer's name alone, B is 0.
    `rank_pattern` and `alpha_pattern` are other values for some layers, by the end of their path, as peft reads them.

    Source: arXiv 2106.09685, Eq. 3; rank and places as in PALP, arXiv 2401.06105, section 4.2 and appendix C.
    Differs from the paper: alpha = rank unless given (PALP is silent; ours).
    """

    requires = frozenset({Capability.LINEAR_LAYERS})
    adapter_name = "palp_lab"

    def __init__(
        self,
        rank: int = 32,
        alpha: float | None = None,
        targets: Sequence[str] = ATTENTION,
        seed: int = 0,
        rank_pattern: Mapping[str, int] | None = None,
        alpha_pattern: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.alpha = float(rank if alpha is None else alpha)
        self.targets = tuple(targets)
        self.seed = seed
        self.patterns: dict[str, Any] = {
            "rank_pattern": dict(rank_pattern or {}),
            "alpha_pattern": dict(alpha_pattern or {}),
        }
        self._layers: dict[str, Any] = {}

    def attach(self, model: AbstractModel) -> None:
        from peft import LoraConfig
        from peft.tuners.tuners_utils import BaseTunerLayer

        denoiser: Any = model.denoiser
        if self.adapter_name in getattr(denoiser, "peft_config", {}):
            raise ValueError("the model carries a LoRA already; detach it first")
        self.denoiser = [denoiser]  # in a list: the base is no part of this module
        alpha: Any = int(self.alpha) if self.alpha.is_integer() else self.alpha
        config = LoraConfig(r=self.rank, lora_alpha=alpha, target_modules=list(self.targets), **self.patterns)
        with torch.random.fork_rng(devices=[]):
            try:
                denoiser.add_adapter(config, self.adapter_name)
            except ValueError as error:
                raise UserError(f"edits.targets={list(self.targets)}: {str(error).splitlines()[0]}") from error
        self._layers = {n: m for n, m in denoiser.named_modules() if isinstance(m, BaseTunerLayer)}
        if unused := [t for t in self.targets if not any(f".{n}".endswith(f".{t}") for n in self._layers)]:
            self.detach()
            raise UserError(
                f"edits.targets: no layer of the denoiser ends in {unused[0]!r}; try {', '.join(ATTENTION)}"
            )
        with torch.no_grad():
            for name, layer in self._layers.items():
                self._start(name, layer, model.device)

    def _start(self, name: str, layer: Any, device: torch.device) -> None:
        """A uniform as in torch's linear layers, B zero, float32 or wider; a draw depends on the layer's name alone."""
        # torch's CPU generator reads the low 32 bits of a seed and no more.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}/{name}".encode()))
        down, up = layer.lora_A[self.adapter_name], layer.lora_B[self.adapter_name]
        bound = 1 / math.sqrt(down.weight[0].numel())
        dtype = torch.promote_types(layer.get_base_layer().weight.dtype, torch.float32)
        down.to(device, dtype)
        up.to(device, dtype)
        drawn = torch.rand(down.weight.shape, generator=generator) * (2 * bound) - bound
        down.weight.copy_(drawn.to(device))
        up.weight.zero_()

    def detach(self) -> None:
        denoiser = self.denoiser[0]
        for name, layer in self._layers.items():
            parent, _, child = name.rpartition(".")
            setattr(denoiser.get_submodule(parent), child, layer.get_base_layer())
        self._layers = {}
        denoiser.__dict__.pop("peft_config", None)
        denoiser.__dict__.pop("_hf_peft_config_loaded", None)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        # The flag alone: disable_adapters() would also switch requires_grad off and drop the gradients of a graph
        # that was built outside.
        before = [layer._disable_adapters for layer in self._layers.values()]
        for layer in self._layers.values():
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, flag in zip(self._layers.values(), before, strict=True):
                layer._disable_adapters = flag

    def set_strength(self, strength: float) -> None:
        for layer in self._layers.values():
            alpha, rank = layer.lora_alpha[self.adapter_name], layer.r[self.adapter_name]
            layer.scaling[self.adapter_name] = strength * alpha / rank

    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        for name, layer in self._layers.items():
            yield f"{name}.lora_A.weight", layer.lora_A[self.adapter_name].weight
            yield f"{name}.lora_B.weight", layer.lora_B[self.adapter_name].weight

    @torch.no_grad()
    def merged(self) -> Mapping[str, Tensor]:
        return {
            f"{name}.weight": layer.get_base_layer().weight + layer.get_delta_weight(self.adapter_name)
            for name, layer in self._layers.items()
        }

    def lora(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        config = self.denoiser[0].peft_config[self.adapter_name].to_dict()
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        return {name: weight.detach() for name, weight in self.parts()}, plain

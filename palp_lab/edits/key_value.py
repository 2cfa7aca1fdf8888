"""Own key and value projections in every cross-attention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palp_lab.edits.base import AbstractEdits
from palp_lab.model.base import AbstractModel
from palp_lab.model.sites import AbstractSiteEdit, processor
from palp_lab.types import Capability


class SiteProjections(AbstractSiteEdit):
    """Trainable copies of the projections of one cross-attention. Final.

    Keys and values at the first position (SOS) get no gradient; it holds no word and the attention's rest ends there.
    `strength` s reads base + s (own - base).
    """

    def __init__(self, attention: Any, crossattn: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.strength = 1.0
        names = {"to_k": attention.to_k, "to_v": attention.to_v}
        if crossattn:
            names |= {"to_q": attention.to_q, "to_out": attention.to_out[0]}
        self.weights = nn.ParameterDict({n: _own(m.weight, dtype) for n, m in names.items()})
        self.biases = nn.ParameterDict({n: _own(m.bias, dtype) for n, m in names.items() if m.bias is not None})

    def key(self, attention: Any, context: Tensor) -> Tensor:
        return _sos_detached(self._project("to_k", attention.to_k, context))

    def value(self, attention: Any, context: Tensor) -> Tensor:
        return _sos_detached(self._project("to_v", attention.to_v, context))

    def query(self, attention: Any, hidden: Tensor) -> Tensor:
        return self._project("to_q", attention.to_q, hidden) if "to_q" in self.weights else attention.to_q(hidden)

    def out(self, attention: Any, hidden: Tensor) -> Tensor:
        base = attention.to_out[0]
        return self._project("to_out", base, hidden) if "to_out" in self.weights else base(hidden)

    def _project(self, name: str, base: Any, x: Tensor) -> Tensor:
        weight = self.weights[name]
        bias = self.biases.get(name, None)
        own = F.linear(x.to(weight.dtype), weight, bias).to(x.dtype)
        return own if self.strength == 1 else torch.lerp(base(x), own, self.strength)


def _own(weight: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(weight.detach().to(dtype, copy=True))


def _sos_detached(projected: Tensor) -> Tensor:
    if not projected.requires_grad:
        return projected
    return torch.cat([projected[:, :1].detach(), projected[:, 1:]], 1)


class KeyValueEdits(AbstractEdits):
    """Keys and values of the text at every cross-attention are trained, the rest is the base. Final.

    `crossattn` adds queries and output projections.

    Source: Custom Diffusion, arXiv 2212.04488, section 3.1; the detached SOS position and `crossattn` are its
    released code's.
    """

    version = 1
    requires = frozenset({Capability.CROSS_ATTENTION})

    def __init__(self, crossattn: bool = False) -> None:
        super().__init__()
        self.crossattn = crossattn

    def attach(self, model: AbstractModel) -> None:
        dtype = torch.promote_types(model.dtype, torch.float32)
        self.paths = [site.path for site in model.sites]
        self.processors = [processor(model.denoiser, site) for site in model.sites]
        if any(at.edit is not None for at in self.processors):
            raise ValueError("the model's cross-attentions are edited already; detach that edit first")
        attentions = [model.denoiser.get_submodule(path) for path in self.paths]
        self.sites = [SiteProjections(attention, self.crossattn, dtype) for attention in attentions]
        self.own = nn.ModuleList(self.sites)
        self._set(True)

    def detach(self) -> None:
        self._set(False)

    def _set(self, on: bool) -> None:
        for at, own in zip(self.processors, self.sites, strict=True):
            at.edit = own if on else None

    @contextmanager
    def disabled(self) -> Iterator[None]:
        before = [at.edit for at in self.processors]
        self._set(False)
        try:
            yield
        finally:
            for at, edit in zip(self.processors, before, strict=True):
                at.edit = edit

    def set_strength(self, strength: float) -> None:
        for own in self.sites:
            own.strength = strength

    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        for path, own in zip(self.paths, self.sites, strict=True):
            for name, weight in own.weights.items():
                yield f"{path}.{_full_name(name)}.weight", weight
            for name, bias in own.biases.items():
                yield f"{path}.{_full_name(name)}.bias", bias

    def merged(self) -> Mapping[str, Tensor]:
        return {name: weight.detach() for name, weight in self.parts()}


def _full_name(name: str) -> str:
    return "to_out.0" if name == "to_out" else name

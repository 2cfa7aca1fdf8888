"""Full fine-tuning: a copy of the denoiser is trained, the base stays beside it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from palp_lab.edits.base import AbstractEdits
from palp_lab.model.base import AbstractModel
from palp_lab.types import Capability, UserError


class FullEdits(AbstractEdits):
    """All weights of the denoiser, or those whose path holds one of `targets`. Final.

    Source: DreamBooth, arXiv 2208.12242, section 3.
    Differs from the paper: the text encoder stays frozen. Base and copy are both in memory, so that the base can judge.
    """

    requires = frozenset({Capability.TRAINABLE_COPY})

    def __init__(self, targets: Sequence[str] | None = None) -> None:
        super().__init__()
        self.targets = None if targets is None else tuple(targets)

    def attach(self, model: AbstractModel) -> None:
        self.model = model
        self._base = [model.denoiser]  # in a list: the base is no part of this module
        self.trained: Any = nn.Module.to(copy.deepcopy(model.denoiser), torch.promote_types(model.dtype, torch.float32))
        model.denoiser = self.trained
        for name, parameter in self.trained.named_parameters():
            parameter.requires_grad_(self.targets is None or any(part in name for part in self.targets))
        # By name, not by requires_grad: a stage that freezes the edits takes nothing out of what is saved.
        self._names = {name for name, parameter in self.trained.named_parameters() if parameter.requires_grad}
        if not self._names:
            self.detach()
            raise UserError(f"edits.targets={list(self.targets or ())}: no weight of the denoiser has such a path")

    def detach(self) -> None:
        self.model.denoiser = self._base[0]
        self.trained = None

    @contextmanager
    def disabled(self) -> Iterator[None]:
        with self.model.using(self._base[0]):
            yield

    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        return ((name, weight) for name, weight in self.trained.named_parameters() if name in self._names)

    def merged(self) -> Mapping[str, Tensor]:
        return {name: weight.detach() for name, weight in self.parts()}

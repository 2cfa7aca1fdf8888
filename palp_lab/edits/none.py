"""No edit: the network stays the base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from palp_lab.edits.base import AbstractEdits
from palp_lab.model.base import AbstractModel


class NoEdits(AbstractEdits):
    """Nothing inside the network is trained (textual inversion, P+). Final."""

    version = 1
    requires = frozenset()
    shares_base_pass = True

    def attach(self, model: AbstractModel) -> None:
        return

    def detach(self) -> None:
        return

    def disabled(self) -> AbstractContextManager[None]:
        return nullcontext()

    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        return ()

    def merged(self) -> Mapping[str, Tensor]:
        return {}

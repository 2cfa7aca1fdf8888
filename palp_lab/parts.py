"""The objects a configuration names, opened once per process where they are large."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from palp_lab.build import build, build_all
from palp_lab.study.store import canonical

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from palp_lab.dataset.concept import AbstractDataset, Concept
    from palp_lab.losses.base import AbstractLoss
    from palp_lab.metrics.protocols import Protocol
    from palp_lab.model.base import AbstractModel

_open: dict[str, tuple[str, Any]] = {}
"""The last of each kind: the cells of a sweep mostly share model, dataset and protocol, and loading dominates small
cells. One of each, so that a sweep over models does not pile them up."""


def open_model(config: DictConfig) -> AbstractModel:
    """The base model on its device. Cells of one process share it: an adapter is attached and detached, the base is
    bitwise the same afterwards."""
    return _once(
        "model", config, lambda: build(config.model, "model", device=str(config.device), dtype=str(config.dtype))
    )


def open_dataset(config: DictConfig) -> AbstractDataset:
    """Where the concept and its pictures come from."""
    return _once("dataset", config, lambda: build(config.dataset, "dataset"))


def open_concept(config: DictConfig) -> Concept:
    """The concept, read once."""
    return _once("concept", config, lambda: open_dataset(config).concept())


def open_losses(config: DictConfig) -> dict[str, AbstractLoss]:
    """The losses by name."""
    return build_all(config.losses, "losses")


def open_protocol(config: DictConfig) -> Protocol:
    """The protocol with its networks."""
    return _once("metrics", config, lambda: build(config.metrics, "metrics"))


def _once(kind: str, config: DictConfig, make: Callable[[], Any]) -> Any:
    from omegaconf import OmegaConf

    node = OmegaConf.to_container(config["dataset" if kind == "concept" else kind], resolve=True)
    key = canonical([node, str(config.device), str(config.dtype)] if kind == "model" else [node])
    if kind not in _open or _open[kind][0] != key:
        _open.pop(kind, None)  # freed before the next is loaded
        _open[kind] = (key, make())
    return _open[kind][1]

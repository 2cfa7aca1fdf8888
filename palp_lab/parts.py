"""The objects a configuration names, opened once per process where they are large."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.build import build, build_all
from palp_lab.keys import UNREAD
from palp_lab.study.store import canonical
from palp_lab.types import UserError

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
    from palp_lab.dataset.concept import AbstractDataset

    return _once("dataset", config, lambda: inheriting(build(config.dataset, "dataset"), AbstractDataset, "dataset"))


def open_concept(config: DictConfig) -> Concept:
    """The concept, read once."""
    return _once("concept", config, lambda: open_dataset(config).concept())


def open_losses(config: DictConfig) -> dict[str, AbstractLoss]:
    """The losses by name."""
    from palp_lab.losses.base import AbstractLoss

    found = build_all(config.losses, "losses")
    return {name: inheriting(loss, AbstractLoss, f"losses.{name}") for name, loss in found.items()}


def inheriting(part: Any, base: type, key: str) -> Any:
    """The part. Raises UserError for one of somebody's own class that is not what its place asks for."""
    if not isinstance(part, base):
        raise UserError(
            f"{key}: {type(part).__module__}.{type(part).__name__} must inherit from {base.__module__}.{base.__name__}"
        )
    return part


def open_protocol(config: DictConfig) -> Protocol:
    """The protocol with its networks."""
    from palp_lab.model.folder import SHIPPED, resolve

    try:
        return _once("metrics", config, lambda: build(config.metrics, "metrics"))
    except UserError as error:
        if "metrics.embedders" in str(error) and resolve(str(config.model.path)).startswith(str(SHIPPED)):
            raise UserError(f"{error}; metrics=tiny measures with the scorers of the embedded world") from error
        raise


def _once(kind: str, config: DictConfig, make: Callable[[], Any]) -> Any:
    from omegaconf import OmegaConf

    node: Any = OmegaConf.to_container(config["dataset" if kind == "concept" else kind], resolve=True)
    beside: list[Any] = []
    if kind == "model":
        beside = [str(config.device), str(config.dtype)]
    elif kind == "concept":
        beside = list(_states(node))
    key = canonical([node, *beside])
    if kind not in _open or _open[kind][0] != key:
        _open.pop(kind, None)  # freed before the next is loaded
        _open[kind] = (key, make())
    return _open[kind][1]


def _states(node: Mapping[str, Any]) -> Iterator[list[Any]]:
    """The files below the paths of a dataset, each with its size and time: in a notebook, photos may have been changed
    since the last cell."""
    for value in (node[key] for key in sorted(UNREAD["dataset"] - {"cache", "segment"}) if key in node):
        if isinstance(value, str) and value:
            path = Path(value).expanduser()
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    yield [str(file), (about := file.stat()).st_size, about.st_mtime_ns]

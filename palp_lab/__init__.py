"""PALP Lab: text-to-image personalization methods as recipes, measured on one image/text front.

The names below are imported when first used, so that `import palp_lab` costs nothing:

    >>> from palp_lab import compose
    >>> config = compose("run", "method=palp", 'target="a sketch of {} in the snow"')

docs/python.md shows them at work.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palp_lab.adapter import Adapter as Adapter
    from palp_lab.adapter import read_adapter as read_adapter
    from palp_lab.cell import Cell as Cell
    from palp_lab.composition import compose as compose
    from palp_lab.context import Context as Context
    from palp_lab.context import read_context as read_context
    from palp_lab.dataset.tiny import TinyDataset as TinyDataset
    from palp_lab.edits.lora import LoraEdits as LoraEdits
    from palp_lab.engine.settings import LogSettings as LogSettings
    from palp_lab.engine.settings import OptimizerSettings as OptimizerSettings
    from palp_lab.engine.settings import RunSettings as RunSettings
    from palp_lab.engine.settings import TrainerSettings as TrainerSettings
    from palp_lab.generate import Sampling as Sampling
    from palp_lab.generate import clean as clean
    from palp_lab.generate import generate_pictures as generate_pictures
    from palp_lab.generate import personal as personal
    from palp_lab.losses.base import AbstractLoss as AbstractLoss
    from palp_lab.losses.prompt_alignment import PromptAlignment as PromptAlignment
    from palp_lab.losses.reconstruction import Reconstruction as Reconstruction
    from palp_lab.model import open_model as open_model
    from palp_lab.parts import open_protocol as open_protocol
    from palp_lab.pictures import read_pictures as read_pictures
    from palp_lab.score import gather_references as gather_references
    from palp_lab.score import score_records as score_records
    from palp_lab.tokens.learned import LearnedTokens as LearnedTokens
    from palp_lab.train import train_adapter as train_adapter
    from palp_lab.types import Role as Role
    from palp_lab.types import UserError as UserError

__version__ = "0.1.0"

_HOME = {
    "AbstractLoss": "palp_lab.losses.base",
    "Adapter": "palp_lab.adapter",
    "Cell": "palp_lab.cell",
    "Context": "palp_lab.context",
    "LearnedTokens": "palp_lab.tokens.learned",
    "LogSettings": "palp_lab.engine.settings",
    "LoraEdits": "palp_lab.edits.lora",
    "OptimizerSettings": "palp_lab.engine.settings",
    "PromptAlignment": "palp_lab.losses.prompt_alignment",
    "Reconstruction": "palp_lab.losses.reconstruction",
    "Role": "palp_lab.types",
    "RunSettings": "palp_lab.engine.settings",
    "Sampling": "palp_lab.generate",
    "TinyDataset": "palp_lab.dataset.tiny",
    "TrainerSettings": "palp_lab.engine.settings",
    "UserError": "palp_lab.types",
    "clean": "palp_lab.generate",
    "compose": "palp_lab.composition",
    "gather_references": "palp_lab.score",
    "generate_pictures": "palp_lab.generate",
    "open_model": "palp_lab.model",
    "open_protocol": "palp_lab.parts",
    "personal": "palp_lab.generate",
    "read_adapter": "palp_lab.adapter",
    "read_context": "palp_lab.context",
    "read_pictures": "palp_lab.pictures",
    "score_records": "palp_lab.score",
    "train_adapter": "palp_lab.train",
}
"""Where each public name lives."""

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Imports a public name from the module it lives in."""
    if name not in _HOME:
        raise AttributeError(f"palp_lab has no public name {name!r}; there are {', '.join(sorted(_HOME))}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

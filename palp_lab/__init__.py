"""PALP Lab: text-to-image personalization methods as recipes, measured on one image/text front.

The names below are imported when first used, so that `import palp_lab` costs nothing:

    >>> from palp_lab import compose
    >>> config = compose("run", "method=palp", 'target="a sketch of {} in Paris"')
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palp_lab.composition import compose as compose
    from palp_lab.types import UserError as UserError

__version__ = "0.1.0"

_HOME = {
    "compose": "palp_lab.composition",
    "UserError": "palp_lab.types",
}

__all__ = ["UserError", "__version__", "compose"]


def __getattr__(name: str) -> Any:
    """Imports a public name from the module it lives in."""
    if name not in _HOME:
        raise AttributeError(f"palp_lab has no public name {name!r}; there are {', '.join(sorted(_HOME))}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

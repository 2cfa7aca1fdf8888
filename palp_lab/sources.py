"""The files a part of one's own is written in: its module's, and those that it imports from beside it."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

OURS = "palp_lab"
INSTALLED = "site-packages"

_loaded: dict[str, tuple[object, bytes]] = {}
"""Of modules that this process has loaded: which load it was, and what their file said."""


def digest_of(module: str, path: Path) -> str:
    """The hash, 16 hex digits, of a module's file and of all it imports, directly or not, from the folder its package
    lies in; of an installed package from that package alone, of palp_lab nothing: those have versions."""
    digest = hashlib.sha256()
    for name, file in sorted(written_in(module, path).items()):
        digest.update(text_of(name, file))
    return digest.hexdigest()[:16]


def written_in(module: str, path: Path) -> dict[str, Path]:
    """Module -> file, of a module that lies at `path` and of what it imports from beside it. Nothing is run."""
    root = path.parents[module.count(".") + (path.name == "__init__.py")]
    installed, found, waiting = INSTALLED in root.parts, {module: path}, [module]
    while waiting:
        name = waiting.pop()
        for other in imported(name, found[name]):
            top = other.partition(".")[0]
            if other in found or top == OURS or (installed and top != module.partition(".")[0]):
                continue
            place = root.joinpath(*other.split("."))
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file.is_file():
                    found[other] = file
                    waiting.append(other)
    return found


def imported(module: str, path: Path) -> Iterator[str]:
    """What a file imports, by whole names; some may be of things inside a module."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(text_of(module, path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            base = resolve_name(dots + (node.module or ""), package) if dots and package else str(node.module)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def text_of(module: str, path: Path) -> bytes:
    """What a module's file said when this process first asked about it after it was loaded, or loaded anew: a file that
    is edited during a sweep is not what its later cells run. Of a module that is not loaded, what its file says now."""
    if (there := sys.modules.get(module)) is None:
        return path.read_bytes()
    load = getattr(there, "__spec__", None) or there  # loaded anew, a module keeps its identity and gets another spec
    if module not in _loaded or _loaded[module][0] is not load:
        _loaded[module] = (load, path.read_bytes())
    return _loaded[module][1]

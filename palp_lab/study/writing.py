"""Writing a file whole or not at all: a temporary sibling, flushed to disk, then renamed into place."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from palp_lab.types import UserError


def write_bytes(path: Path, content: bytes) -> Path:
    """Put `content` at `path` atomically; a full disk or a missing right is one line, and the old file stays."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
    return path


def write_text(path: Path, content: str) -> Path:
    """The same for text, in UTF-8."""
    return write_bytes(path, content.encode("utf-8"))

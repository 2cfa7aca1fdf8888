"""Files of tensors, read without trusting them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from palp_lab.types import UserError

ZIP, SAFETENSORS_AT = b"PK", 8
"""What a file of torch begins with; where the header of a safetensors file begins, after its length."""


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors by name, and the header. Told apart by content: safetensors, else a file of `torch.save` that holds
    plain tensors only (its mappings may be nested). Nothing is unpickled.

    Raises:
        UserError: for a file that is missing, damaged, or would have to be unpickled.
    """
    try:
        with path.open("rb") as file:
            head = file.read(SAFETENSORS_AT + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a file of weights") from None
    return _safetensors(path) if head[SAFETENSORS_AT:] == b"{" else (_torch(path), {})


def _safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in list(file.keys())}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: a damaged safetensors file ({_short(error)}); copy it again") from None


def _torch(path: Path) -> dict[str, Any]:
    import torch

    try:
        with path.open("rb") as file:  # given a name, torch goes by its ending
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign file makes torch say
        if "weights_only" in str(error):
            raise UserError(
                f"{path}: holds more than plain tensors, and unpickling could run its code; "
                "save it as safetensors with the tool that made it"
            ) from None
        raise UserError(
            f"{path}: neither a safetensors file nor one of torch.save ({_short(error)}); give a file of weights"
        ) from None
    if isinstance(found, Mapping):
        return {str(key): value for key, value in found.items()}
    raise UserError(f"{path}: holds a {type(found).__name__}, not tensors by name; save it as safetensors")


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return shorten(lines[0], 120, placeholder=" ...")

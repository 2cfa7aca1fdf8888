"""Tokens and edits: all that is trained, all that is saved."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from palp_lab.dataset.concept import Concept
from palp_lab.edits.base import AbstractEdits
from palp_lab.model.base import AbstractModel, TextCond
from palp_lab.tokens.base import AbstractTokens
from palp_lab.types import UserError

SCHEMA = "palp_lab.adapter/1"


def flat_layout(name: str) -> str:
    """A saved name without the level `text_model.` that the layers of CLIP's text encoder have in some versions of
    transformers, so that an adapter outlives an update."""
    return re.sub(r"^(edits\.text_encoder(?:_\d)?\.)text_model\.", r"\1", name)


class Adapter(nn.Module):
    """What one run learns: tokens and edits bound to a model and a concept. Final."""

    def __init__(self, model: AbstractModel, tokens: AbstractTokens, edits: AbstractEdits, concept: Concept) -> None:
        super().__init__()
        self.model = model
        self.concept = concept
        self.tokens = tokens
        self.edits = edits
        tokens.bind(model, concept)
        edits.attach(model)

    def encode(self, sentences: Sequence[str]) -> TextCond:
        """Conditioning of sentences with a slot, filled with the concept's own words."""
        return self.tokens.encode([self.concept.fill(s, self.tokens.call(self.concept)) for s in sentences])

    def parts(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every trainable parameter by its saved name."""
        for name, parameter in self.tokens.parts():
            yield f"tokens.{name}", parameter
        for name, parameter in self.edits.parts():
            yield f"edits.{name}", parameter

    def tensors(self) -> dict[str, Tensor]:
        """The artefact: own tensors only, on the CPU."""
        return {name: parameter.detach().cpu().contiguous() for name, parameter in self.parts()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Puts saved values back. Raises UserError where names or shapes differ."""
        own = {flat_layout(name): parameter for name, parameter in self.parts()}
        tensors = {flat_layout(name): tensor for name, tensor in tensors.items()}
        if missing := sorted(own.keys() ^ tensors.keys()):
            raise UserError(
                f"the adapter does not fit this recipe: {missing[0]} is on one side only ({len(missing)} such names)"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != tensors[name].shape:
                    found, wanted = tuple(tensors[name].shape), tuple(parameter.shape)
                    raise UserError(f"the adapter does not fit this model: {name} is {found}, not {wanted}")
                parameter.copy_(tensors[name])

    def save(self, folder: Path, about: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> Path:
        """Writes `adapter.safetensors` with its description in the header."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "adapter.safetensors"
        save_file(tensors or self.tensors(), path, {"schema": SCHEMA, "about": json.dumps(about, sort_keys=True)})
        return path

    @contextmanager
    def off(self) -> Iterator[None]:
        """A block in which the model is bitwise the base."""
        with self.edits.disabled():
            yield

    def detach(self) -> None:
        """Takes the edits out for good; the model is bitwise what it was before."""
        self.edits.detach()


def is_own(path: Path) -> bool:
    """Whether a file is an adapter of ours (of any version), told by its header."""
    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get("schema", "")).startswith(SCHEMA.partition("/")[0])
    except Exception:  # damaged, or no safetensors at all
        return path.name == "adapter.safetensors"


def read_adapter(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a saved adapter. Raises UserError for a file that is none."""
    with _opened(path) as (file, about):
        return {name: file.get_tensor(name) for name in list(file.keys())}, about


def read_about(path: Path) -> dict[str, Any]:
    """The description of a saved adapter alone. Raises UserError for a file that is none."""
    with _opened(path) as (_, about):
        return about


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The open file of a saved adapter and its description."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            if header.get("schema") != SCHEMA:
                found = header.get("schema")
                raise UserError(f"{path}: schema is {found!r}, not {SCHEMA}; give an adapter that palp-lab saved")
            yield file, json.loads(header["about"])
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable adapter ({error}); give a folder's adapter.safetensors") from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise UserError(f"{path}: not a safetensors file ({error}); train again or give another") from error
        raise

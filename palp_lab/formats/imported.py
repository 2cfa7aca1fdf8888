"""Adapters that other tools trained, as recipes of ours: whatever a file or folder holds, told by its keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.formats.custom_diffusion_files import is_custom_diffusion, read_custom_diffusion
from palp_lab.formats.embedding_files import by_site_names, half_of, is_embedding, joined, read_word
from palp_lab.formats.lora_files import Layers, is_lora, read_lora
from palp_lab.formats.low_rank import refuse_altered_base
from palp_lab.formats.recipe import Found, Naming, edits_of, tokens_of
from palp_lab.formats.weights import read_weights
from palp_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.model.base import AbstractModel

PEFT = "adapter_config.json"
ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
"""Files of a folder that are looked into."""
PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2")
"""Folders of peft side by side, called like the parts of the pipeline they lie on."""


@dataclass(frozen=True)
class Content:
    """A file of another tool: its tensors by name, its header, and the configuration of peft that lies beside it."""

    path: Path
    data: Mapping[str, Any]
    header: Mapping[str, str]
    peft: Mapping[str, Any] | None = None


def read_contents(path: Path) -> list[Content]:
    """The files a path means: itself, or those of a folder. Raises UserError for what is missing or damaged."""
    contents = []
    for file, peft in files_of(path):
        data, header = read_weights(file)
        if peft is not None and file.parent.name in PARTS:  # text encoders share their layers' names
            data = {f"{file.parent.name}.{key.removeprefix('base_model.model.')}": value for key, value in data.items()}
        contents.append(Content(file, data, header, peft))
    return contents


def import_adapter(
    path: Path, contents: Sequence[Content], model: AbstractModel, naming: Naming
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of an adapter of ours that does what the files of `path` do, and the description of how to build it
    (without its base model).

    Raises:
        UserError: in one line, for files of another kind or base, or that do not say how their subject is called.
    """
    found = Found()
    for content in contents:
        _add(found, content, model)
    if found.halves:
        _once(str(path), found.word or found.by_site)
        found.word = joined(str(path), found.halves, _widths(model))
    tokens, placeholder, tensors = tokens_of(path, found, naming)
    if tensors and (len(placeholder.split()) != 1 or any(len(pieces) < 2 for pieces in model.pieces(placeholder))):
        raise UserError(
            f"{path}: its word {placeholder!r} is {'no single one' if ' ' in placeholder else 'a known one'}, so that "
            "prompts cannot tell it apart; rename it in the file, or where it says none: 'imported.trigger=\"<v>\"'"
        )
    edits = edits_of(path, found, model, tensors)
    about = {
        "tokens": tokens,
        "edits": edits,
        "superclass": naming.superclass or "",
        "placeholder": placeholder,
        "concept": path.stem,
        "imported": path.name,
    }
    return tensors, about


def files_of(path: Path) -> list[tuple[Path, dict[str, Any] | None]]:
    """The files of weights that a path means, each with the configuration of peft that lies beside it. Raises UserError
    where there are none."""
    if path.is_file():
        return [(path, _peft_config(path.parent) if path.name.startswith("adapter_model.") else None)]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; give a saved adapter, or a LoRA or embedding of another tool")
    folders = [folder for folder in (path, *(path / part for part in PARTS)) if (folder / PEFT).is_file()]
    found: list[tuple[Path, dict[str, Any] | None]] = [(_largest(folder), _peft_config(folder)) for folder in folders]
    found += [(file, None) for file in _loose(path) if path not in folders or file.stem != "adapter_model"]
    if found:
        return found
    raise UserError(f"{path}: holds no saved adapter and no weights ({', '.join(ENDINGS[:3])}); give the file itself")


def _loose(folder: Path) -> list[Path]:
    """The files of weights in a folder by name; one of torch.save only where none of its name is a safetensors file."""
    files = sorted(file for file in folder.iterdir() if file.suffix in ENDINGS and file.is_file())
    safe = {file.stem for file in files if file.suffix == ENDINGS[0]}
    return [file for file in files if file.suffix == ENDINGS[0] or file.stem not in safe]


def _largest(folder: Path) -> Path:
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: has {PEFT} but no adapter_model.safetensors; copy the folder again")


def _peft_config(folder: Path) -> dict[str, Any] | None:
    file = folder / PEFT
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: is damaged ({error}); copy the folder again") from None
    if str(config.get("peft_type", "LORA")).upper() != "LORA" or config.get("use_dora"):
        kind = "DoRA" if config.get("use_dora") else config["peft_type"]
        raise UserError(f"{file}: holds a {kind}, and only LoRA is read; merge it into a pipeline with peft")
    refuse_altered_base(str(file), config)
    return dict(config)


def _add(found: Found, content: Content, model: AbstractModel) -> None:
    """Adds what one file holds to what was found so far."""
    from palp_lab.model.pipeline import adaptable_layers
    from palp_lab.model.sites import site_names

    where, data, header = str(content.path), content.data, content.header
    if is_custom_diffusion(data):
        layers = adaptable_layers(model)["denoiser"]
        weights, words = read_custom_diffusion(where, data, layers, [site.path for site in model.sites])
        _once(where, found.weights or found.updates)
        found.weights = weights
        data = words
        if not words:
            return
    if is_lora(data):
        config: Any = getattr(model.base, "config", {})
        blocks = config.get("layers_per_block") if model.denoiser_part == "unet" else None
        known = Layers(f"model.path={model_name(model)}", adaptable_layers(model), blocks)
        updates = read_lora(where, data, header, known, content.peft)
        _once(where, found.weights or found.updates.keys() & updates.keys())
        found.updates |= updates
    elif data and set(data) == (own := by_site_names(site_names(model.sites), len(model.pieces("a")))).keys():
        _once(where, found.word or found.by_site)
        found.by_site = {own[name]: value.float().reshape(-1, value.shape[-1]) for name, value in data.items()}
    elif is_embedding(data):
        widths = _widths(model)
        if (half := half_of(data, widths)) is None:
            _once(where, found.word or found.by_site)
            found.word = read_word(where, data, widths)
        else:
            name, vectors = half
            of_word = found.halves.setdefault(name, {})
            if vectors.shape[1] in of_word:
                raise UserError(
                    f"{where}: the folder holds vectors of {name} for this text encoder in another file as well; leave "
                    "one file for each text encoder there"
                )
            of_word[vectors.shape[1]] = vectors
    else:
        raise UserError(_stranger(where, data))


def _widths(model: AbstractModel) -> list[int]:
    """Of the word vectors of a model's text encoders."""
    return [vectors.shape[1] for vectors in model.word_vectors("a")]


def _once(where: str, there: Any) -> None:
    if there:
        raise UserError(f"{where}: the folder holds another adapter of this kind as well; give the file that is meant")


def model_name(model: AbstractModel) -> str:
    """What a model is called in error lines."""
    return str(getattr(model, "name", "")) or "the model"


def _stranger(where: str, data: Mapping[str, Any]) -> str:
    some = ", ".join(sorted(data)[:2]) or "nothing"
    if (
        any(key.startswith(("model.diffusion_model.", "first_stage_model.")) for key in data)
        or "conv_in.weight" in data
    ):
        return f"{where}: a whole model and no adapter ({some}); give it as model.path="
    return f"{where}: holds {some}, which is no LoRA, no embedding and no Custom Diffusion; give another file"

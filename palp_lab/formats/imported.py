"""Adapters that other tools trained, as recipes of ours: whatever a file or folder holds, told by its keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.formats.custom_diffusion_files import is_custom_diffusion, read_custom_diffusion, trained
from palp_lab.formats.embedding_files import Word, is_embedding, read_word
from palp_lab.formats.lora_files import Layers, is_lora, read_lora
from palp_lab.formats.low_rank import LowRank, peft_words, with_rank
from palp_lab.formats.weights import read_weights
from palp_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.model.base import AbstractModel

PEFT = "adapter_config.json"
ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
"""Files of a folder that are looked into; those of the first ending there is."""


@dataclass(frozen=True)
class Naming:
    """What files of other tools do not say: `trigger`, the words for the subject in a prompt ("sks dog"), and
    `superclass`, its class word, which may stand in the trigger as {superclass}."""

    trigger: str | None = None
    superclass: str | None = None


@dataclass
class Found:
    """What was read: low-rank updates by part, a word, Custom Diffusion's weights, and vectors by site (P+)."""

    updates: dict[str, Mapping[str, LowRank]] = field(default_factory=dict)
    word: Word | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    by_site: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """A file of another tool: its tensors by name, its header, and the configuration of peft that lies beside it."""

    path: Path
    data: Mapping[str, Any]
    header: Mapping[str, str]
    peft: Mapping[str, Any] | None = None


def read_contents(path: Path) -> list[Content]:
    """The files a path means: itself, or those of a folder. Raises UserError for what is missing or damaged."""
    return [Content(file, *read_weights(file), peft) for file, peft in _files(path)]


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
    tokens, placeholder, tensors = _tokens(path, found, naming, model)
    edits = _edits(path, found, model, tensors)
    about = {
        "tokens": tokens,
        "edits": edits,
        "superclass": naming.superclass or "",
        "placeholder": placeholder,
        "concept": path.stem,
        "imported": path.name,
    }
    return tensors, about


def _files(path: Path) -> list[tuple[Path, dict[str, Any] | None]]:
    """The files of weights, each with the configuration of peft that lies beside it."""
    if path.is_file():
        return [(path, _peft_config(path.parent) if path.name.startswith("adapter_model.") else None)]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; give a saved adapter, or a LoRA or embedding of another tool")
    folders = [folder for folder in (path, path / "unet", path / "text_encoder") if (folder / PEFT).is_file()]
    if folders:
        return [(_largest(folder), _peft_config(folder)) for folder in folders]
    for ending in ENDINGS:
        if files := sorted(file for file in path.glob(f"*{ending}") if file.is_file()):
            return [(file, None) for file in files]
    raise UserError(f"{path}: holds no saved adapter and no weights ({', '.join(ENDINGS[:3])}); give the file itself")


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
    elif data and set(data) == set(site_names(model.sites)):
        _once(where, found.word or found.by_site)
        found.by_site = {name: value.float().reshape(-1, value.shape[-1]) for name, value in data.items()}
    elif is_embedding(data):
        _once(where, found.word or found.by_site)
        found.word = read_word(where, data, [vectors.shape[1] for vectors in model.word_vectors("a")])
    else:
        raise UserError(_stranger(where, data))


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


def _tokens(
    path: Path, found: Found, naming: Naming, model: AbstractModel
) -> tuple[dict[str, Any], str, dict[str, Tensor]]:
    """How the subject is called: the node of the tokens, the placeholder, and their tensors."""
    trigger = (naming.trigger or "").replace("{superclass}", naming.superclass or "{superclass}").strip()
    if "{superclass}" in trigger:
        raise UserError(f"imported.trigger={naming.trigger!r} needs the class word; add imported.superclass=dog")
    if "{" in trigger or "}" in trigger:
        raise UserError(f"imported.trigger={naming.trigger!r}: only {{superclass}} may stand in braces")
    if found.word is None and not found.by_site:
        if not trigger:
            raise UserError(
                f"{path}: does not say how its subject is called; add its words: 'imported.trigger=\"sks dog\"'"
            )
        node = {"_target_": "palp_lab.tokens.rare.RareTokens", "word": trigger.split()[0], "phrase": trigger}
        return node, "<v>", {}
    name = found.word.name if found.word else None
    if name is not None and trigger and name not in trigger.split():
        raise UserError(
            f"imported.trigger={naming.trigger!r}: {path.name} holds the word {name!r}, which must stand in it"
        )
    placeholder = name or (trigger.split()[0] if trigger else path.stem)
    phrase = trigger.replace(placeholder, "{placeholder}", 1) if trigger else "{placeholder}"
    count = found.word.count if found.word else len(next(iter(found.by_site.values())))
    kind = "learned.LearnedTokens" if found.word else "per_layer.PerLayerTokens"
    # Any word will do to start from: the file's vectors replace it.
    own: dict[str, Any] = {
        "_target_": f"palp_lab.tokens.{kind}",
        "phrase": phrase,
        "init_token": "a",
        "num_vectors": count,
    }
    if found.word:
        return own, placeholder, {f"tokens.vectors.{i}": value for i, value in enumerate(found.word.vectors)}
    return own, placeholder, {f"tokens.{name}.0": value for name, value in found.by_site.items()}


def _edits(path: Path, found: Found, model: AbstractModel, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The node of the edits; their tensors are added."""
    if found.weights:
        tensors |= {f"edits.{name}": value.float() for name, value in found.weights.items()}
        whole = len(trained(found.weights, [site.path for site in model.sites])) > 2
        return {"_target_": "palp_lab.edits.key_value.KeyValueEdits", "crossattn": whole}
    if not found.updates:
        return {"_target_": "palp_lab.edits.none.NoEdits"}
    if "denoiser" not in found.updates:
        raise UserError(f"{path}: updates the text encoder alone, which is not read; merge it into a pipeline")
    layers = found.updates["denoiser"]
    words = peft_words(layers)
    node = {
        "_target_": "palp_lab.edits.lora.LoraEdits",
        "rank": words["r"],
        "alpha": float(words["lora_alpha"]),
        "targets": words["target_modules"],
        "rank_pattern": words["rank_pattern"],
        "alpha_pattern": words["alpha_pattern"],
    }
    _put(tensors, "edits.", layers)
    text = {part: some for part, some in found.updates.items() if part != "denoiser"}
    return node | _text_edits(text, layers, model, tensors) if text else node


def _text_edits(
    text: Mapping[str, Mapping[str, LowRank]],
    layers: Mapping[str, LowRank],
    model: AbstractModel,
    tensors: dict[str, Tensor],
) -> dict[str, Any]:
    """What the node of the edits says beside the denoiser's layers where text encoders are updated as well: they share
    one rank and one alpha, and where the file has nothing for a layer its update is zero."""
    import torch

    from palp_lab.model.pipeline import adaptable_layers

    rank = max(update.rank for some in (layers, *text.values()) for update in some.values())
    ends = sorted({".".join(path.split(".")[-2:]) for some in text.values() for path in some})
    for part, modules in adaptable_layers(model).items():
        if part == "denoiser":
            continue
        full = {}
        for path, module in modules.items():
            if f".{path}".endswith(tuple(f".{end}" for end in ends)):
                weight: Any = module.weight
                nothing = LowRank(torch.zeros(rank, weight.shape[1]), torch.zeros(len(weight), rank), rank)
                own = text.get(part, {}).get(path)
                full[path] = with_rank(own, rank, rank) if own else nothing
        _put(tensors, f"edits.{part}.", full)
    return {
        "rank": rank,
        "alpha": float(rank),
        "rank_pattern": {path: update.rank for path, update in layers.items() if update.rank != rank},
        "alpha_pattern": {path: update.alpha for path, update in layers.items() if update.alpha != rank},
        "text_encoder": True,
        "text_targets": ends,
    }


def _put(tensors: dict[str, Tensor], prefix: str, layers: Mapping[str, LowRank]) -> None:
    for name, update in layers.items():
        tensors[f"{prefix}{name}.lora_A.weight"] = update.down
        tensors[f"{prefix}{name}.lora_B.weight"] = update.up

"""What was read from other tools' files, said as a recipe of ours: nodes of tokens and edits, and their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.formats.custom_diffusion_files import trained
from palp_lab.formats.embedding_files import Word
from palp_lab.formats.low_rank import LowRank, peft_words, with_rank
from palp_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.model.base import AbstractModel


@dataclass(frozen=True)
class Naming:
    """What files of other tools do not say: `trigger`, the words for the subject in a prompt ("sks dog"), and
    `superclass`, its class word, which may stand in the trigger as {superclass}."""

    trigger: str | None = None
    superclass: str | None = None


@dataclass
class Found:
    """What was read: low-rank updates by part, a word (or, by name and width, the vectors of each text encoder that lie
    in a file of their own), Custom Diffusion's weights, and vectors by site and number of the text encoder (P+)."""

    updates: dict[str, Mapping[str, LowRank]] = field(default_factory=dict)
    word: Word | None = None
    halves: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    by_site: dict[str, Tensor] = field(default_factory=dict)


def tokens_of(path: Path, found: Found, naming: Naming) -> tuple[dict[str, Any], str, dict[str, Tensor]]:
    """How the subject is called: the node of the tokens, the placeholder, and their tensors. Raises UserError where
    neither the files nor the configuration say it."""
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
    return own, placeholder, {f"tokens.{name}": value for name, value in found.by_site.items()}


def edits_of(path: Path, found: Found, model: AbstractModel, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The node of the edits; their tensors are added. Raises UserError where only a text encoder is updated."""
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
    return node | _text_edits(path, text, layers, model, tensors) if text else node


def _text_edits(
    where: Path,
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
        if missing := [end for end in ends if not any(f".{path}".endswith(f".{end}") for path in modules)]:
            raise UserError(
                f"{where}: updates {missing[0]} of one text encoder alone, which is not read; train without it"
            )
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

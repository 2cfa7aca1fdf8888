"""Turns configuration into objects: the only place that does.

Everything else takes objects. Only allow-listed targets are reached, and a recipe whose parts ask for what the model
does not offer is refused here, before anything is trained.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from palp_lab.types import Capability, UserError

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

ALLOWED = ("palp_lab.",)
"""What `_target_` may begin with. Own packages are added by the environment, PALP_LAB_TARGETS=my_package, never by a
configuration file: a file from somebody else must not be able to widen the list."""

FACTORIES = {
    "palp_lab.captioned.folder_pairs", "palp_lab.captioned.tiny_pairs", "palp_lab.metrics.elements.open_reader",
    "palp_lab.metrics.lpips.open_lpips", "palp_lab.metrics.phrases.open_phrases",
    "palp_lab.metrics.preprocessing.preprocessing", "palp_lab.metrics.protocols.protocol", "palp_lab.model.open_model",
    "palp_lab.prompt_files.custom_concept101_prompts", "palp_lab.prompt_files.dreambench_prompts",
    "palp_lab.tinyworld.parse",
}  # fmt: skip
"""The functions of ours that may be called; beside them only classes of ours: a function that writes files, or a name
one of our modules has imported, is nothing a configuration builds."""


def allowed() -> tuple[str, ...]:
    """Prefixes a target may have, with those of the environment."""
    own = (word.strip() for word in os.environ.get("PALP_LAB_TARGETS", "").split(","))
    return (*ALLOWED, *(f"{word}." for word in own if word))


def locate(target: str, key: str) -> Any:
    """The class or function a `_target_` names.

    Raises:
        UserError: where it is not allowed or not there; names the key.
    """
    import importlib

    if not target.startswith(allowed()):
        raise UserError(
            f"{key}._target_={target}: only {', '.join(p + '*' for p in allowed())} may be built; "
            f"for a package of your own set PALP_LAB_TARGETS={target.split('.')[0]}"
        )
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        where = "" if target.startswith(ALLOWED) else "; is the folder it lies in on PYTHONPATH?"
        raise UserError(f"{key}._target_={target}: there is no module {error.name}{where}") from error
    except AttributeError as error:
        raise UserError(f"{key}._target_={target}: {module} has no {name}") from error
    ours = isinstance(found, type) and found.__module__.startswith(ALLOWED)
    if target.startswith(ALLOWED) and not ours and target not in FACTORIES:
        raise UserError(f"{key}._target_={target}: is no class of palp_lab, so it is not built")
    return found


def build(node: DictConfig, key: str, **given: Any) -> Any:
    """The object a node describes.

    Args:
        node: a node with a `_target_`; its other keys are arguments of the constructor.
        key: where the node lies in the configuration, for error lines.
        given: arguments that are objects and so cannot be in a configuration.

    Raises:
        UserError: for a target outside the allow-list, a wrong key, or what the constructor itself refuses.
    """
    import hydra
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    if "_target_" not in node:
        raise UserError(f"{key}: says no _target_, the class that is to be built; see a shipped file of its group")
    _check_targets(node, key)
    options: dict[str, Any] = {"_convert_": "all"}
    if tuple(int(part) for part in hydra.__version__.split(".")[:2]) >= (1, 4):
        options["_execution_whitelist_"] = [f"{prefix}*" for prefix in allowed()]
    try:
        return instantiate(node, **options, **given)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise UserError(_with_key(str(cause), key, str(error))) from None
        if isinstance(cause, TypeError):
            raise UserError(f"{key}: {cause}") from error
        if cause is not None:
            raise cause from error
        raise


def _with_key(said: str, key: str, told: str) -> str:
    """An error line of a part inside a node with the part's key, where the line itself begins with none."""
    inside = re.search(r"^full_key: (.+)$", told, re.MULTILINE)
    if inside is None or f"{key}." in said or re.match(r"[\w.]+=", said):
        return said
    whole = inside[1] if inside[1].startswith(f"{key}.") else f"{key}.{inside[1]}"
    return f"{whole}: {said}"


def build_all(nodes: DictConfig, key: str, **given: Any) -> dict[str, Any]:
    """Every node of a mapping, by its name and in its order; a name set to null is left out."""
    return {str(name): build(node, f"{key}.{name!s}", **given) for name, node in nodes.items() if node is not None}


def check_losses(overrides: Iterable[str]) -> None:
    """Raises UserError where a command line asks for one loss by two words, which Hydra would silently make one.

    Args:
        overrides: the command line after the verb, e.g. `losses=[reconstruction,prompt_alignment,sds]`.
    """
    named: dict[str, str] = {}
    for word in words_of(overrides):
        loss = loss_of(word)
        if named.setdefault(loss, word) != word:
            raise UserError(
                f"losses=[...]: {named[loss]} and {word} are two words for one loss ({loss}), and a recipe holds it "
                "once; leave one out"
            )


def words_of(overrides: Iterable[str]) -> list[str]:
    """The losses a command line names, as it names them; of several `losses=` the last counts."""
    lists = [value for key, _, value in (word.partition("=") for word in overrides) if key.lstrip("+") == "losses"]
    return [word.strip() for value in lists[-1:] for word in value.strip("[]").split(",")]


def check_aliases(config: DictConfig, overrides: Sequence[str]) -> None:
    """Raises UserError where a command line names an alias of a loss, and the recipe says otherwise of what makes it
    one: `losses=[reconstruction,sds]` is prompt_alignment with reference noise, which palp_nfsd sets to nfsd."""
    from omegaconf import OmegaConf

    from palp_lab.composition import conf_folder

    said = {word.lstrip("+").partition("=")[0] for word in overrides}
    for word in words_of(overrides):
        if (loss := loss_of(word)) == word:
            continue
        node: Any = OmegaConf.load(conf_folder() / "losses" / f"{word}.yaml")
        for name, meant in (node.get(loss) or {}).items():
            key = f"losses.{loss}.{name}"
            if key not in said and (found := OmegaConf.select(config, key)) != meant:
                raise UserError(
                    f"losses=[...,{word}]: the recipe says {key}={found}, and {word} is {meant}; "
                    f"add {key}={meant}, or take another method"
                )


IDLE = {"tokens": "palp_lab.tokens.rare.RareTokens", "edits": "palp_lab.edits.none.NoEdits"}
"""The classes by group that train nothing."""


def check_rates(config: DictConfig, overrides: Iterable[str], studied: Iterable[str] = ()) -> None:
    """Raises UserError where a command line sets a learning rate that no part of the recipe trains with: its cells
    would be the same numbers under several labels.

    Args:
        config: a composed configuration; one without an optimizer has nothing to check.
        overrides: the command line after the verb, or that of one cell of a sweep.
        studied: keys that a study sweeps: they go on with any recipe.
    """
    if not (how := config.get("optimizer")):
        return
    rows = [row.get("trains") for row in config.get("stages") or [] if isinstance(row, Mapping)]
    staged = {part for trains in rows for part in ([trains] if isinstance(trains, str) else trains or IDLE)}
    trained = {part for part in staged or IDLE if (config.get(part) or {}).get("_target_") != IDLE[part]}
    said = {word.lstrip("+").partition("=")[0] for word in overrides} - set(studied)
    lr, token_lr = how.get("lr"), how.get("token_lr")
    if "optimizer.lr" in said and trained == {"tokens"} and token_lr is not None:
        raise UserError(
            f"optimizer.lr={lr}: nothing trains with it: only words are trained here, at "
            f"optimizer.token_lr={token_lr}; give optimizer.token_lr instead"
        )
    if "optimizer.token_lr" in said and trained == {"edits"} and token_lr is not None:
        raise UserError(
            f"optimizer.token_lr={token_lr}: nothing trains with it: no words are trained here; "
            "give optimizer.lr instead"
        )


def loss_of(word: str) -> str:
    """The key a file of conf/losses writes to: its own name, or what it is another word for."""
    from omegaconf import OmegaConf

    from palp_lab.composition import conf_folder

    path = conf_folder() / "losses" / f"{word}.yaml"
    node: Any = OmegaConf.load(path) if path.is_file() else {word: None}
    if word in node:
        return word
    return next((str(loss) for loss in node.get("defaults", []) if loss != "_self_"), word)


def _check_targets(node: Any, key: str) -> None:
    from omegaconf import OmegaConf

    def walk(value: Any, here: str) -> None:
        if isinstance(value, Mapping):
            if "_target_" in value:
                locate(str(value["_target_"]), here)
            for name, inner in value.items():
                walk(inner, f"{here}.{name}")
        elif isinstance(value, list):
            for inner in value:
                walk(inner, here)

    walk(OmegaConf.to_container(node, resolve=True), key)


def check_fit(
    provides: Iterable[Capability], parts: Mapping[str, Iterable[Capability]], provider: str = "the model"
) -> None:
    """Raises UserError where a part of a recipe requires what the model does not provide.

    Args:
        provides: what the model offers.
        parts: by configuration key, what each part needs, e.g. {"tokens": tokens.requires}.
        provider: name of the model in the error line.
    """
    offered = set(provides)
    for key, requires in parts.items():
        if missing := sorted(set(requires) - offered):
            raise UserError(
                f"{key} needs {', '.join(missing)}, which {provider} does not provide "
                f"(it provides {', '.join(sorted(offered)) or 'nothing'}); "
                f"choose another model= or another {key.split('.')[0]}="
            )


def build_device(name: str) -> torch.device:
    """The device `device=` names; auto takes CUDA, then MPS, then the CPU. Raises UserError where it is not."""
    import torch

    from palp_lab.model import choose_device

    return torch.device(choose_device(name))


def build_dtype(name: str) -> torch.dtype:
    """The torch dtype a name stands for."""
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise UserError(f"dtype={name}: must be {', '.join(known)}")
    return known[name]

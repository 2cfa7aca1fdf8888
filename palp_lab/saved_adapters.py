"""Saved adapters opened on their base models: our own, and those of other tools."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from palp_lab.adapter import Adapter


def find_adapter(path: Path) -> Path:
    """The adapter file a path means: itself, or the one in a folder (the last step where several were kept)."""
    if path.is_file():
        return path
    places = (path / "adapter.safetensors", path / "adapter" / "adapter.safetensors")
    steps = sorted(path.glob("adapters/step_*.safetensors")) or sorted(path.glob("step_*.safetensors"))
    for found in (*places, *steps[-1:]):
        if found.is_file():
            return found
    raise UserError(f"adapter={path}: there is no adapter.safetensors; give the folder or the file of a saved adapter")


def open_saved(path: Path, config: DictConfig) -> tuple[Adapter, dict[str, Any], str]:
    """A saved adapter on its base model: the one its header names, or `model` of the configuration for a file of
    another tool, which names none. With its description and the hash of its bytes (16 hex digits).

    Raises:
        UserError: for what cannot be read or fits no model; one line that names the file.
    """
    from palp_lab.adapter import read_adapter

    path = path.expanduser()
    if (own := _own(path)) is not None:
        tensors, about = read_adapter(own)
        files = [own]
        adapter = rebuild(about, str(config.device), str(config.dtype))
    else:
        adapter, tensors, about, files = _import(path, config)
    try:
        adapter.load_tensors(tensors)
    except UserError as error:
        adapter.detach()
        raise UserError(f"{path}: {error}") from None
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return adapter, about, digest.hexdigest()[:16]


def about_saved(path: Path) -> dict[str, Any]:
    """What the header of an adapter of ours says; nothing for one of another tool. Raises UserError where there is no
    adapter."""
    from palp_lab.adapter import read_about
    from palp_lab.formats.imported import files_of

    path = path.expanduser()
    if (own := _own(path)) is None:
        files_of(path)
        return {}
    return read_about(own)


def _own(path: Path) -> Path | None:
    """The file of an adapter of ours that a path means, where it means one."""
    from palp_lab.adapter import is_own

    try:
        found = find_adapter(path)
    except UserError:
        return None
    return found if is_own(found) else None


def _import(path: Path, config: DictConfig) -> tuple[Adapter, dict[str, Any], dict[str, Any], list[Path]]:
    from omegaconf import OmegaConf

    from palp_lab.formats.imported import import_adapter, read_contents
    from palp_lab.formats.recipe import Naming
    from palp_lab.parts import open_model

    contents = read_contents(path)  # before the model is opened: a wrong file is said at once
    said = config.imported
    naming = Naming(*(None if word is None else str(word) for word in (said.trigger, said.superclass)))
    model = open_model(config)
    tensors, about = import_adapter(path, contents, model, naming)
    about["model"] = OmegaConf.to_container(config.model, resolve=True)
    return assemble(model, about), tensors, about, [content.path for content in contents]


def rebuild(about: Mapping[str, Any], device: str = "cpu", dtype: str = "float32") -> Adapter:
    """The untrained adapter a saved one's description speaks of, attached to a freshly opened base model.

    Raises UserError where the model's weights are not those it was trained on.
    """
    from omegaconf import OmegaConf

    from palp_lab.build import build

    if missing := [key for key in ("model", "tokens", "edits", "superclass", "placeholder") if key not in about]:
        raise UserError(f"the adapter's header does not say its {missing[0]}; it was not saved by palp-lab train")
    _check_header(about)
    model = build(OmegaConf.create({"model": dict(about["model"])}).model, "model", device=device, dtype=dtype)
    # The fingerprint is that of the weights as they are held, so that it says nothing in another dtype.
    if about.get("dtype") == str(model.dtype) and about.get("fingerprint") not in (None, model.fingerprint):
        raise UserError(
            f"model.path={dict(about['model']).get('path')}: holds other weights than the adapter was trained on; "
            "give back the old folder, or train again"
        )
    return assemble(model, about)


BUILT_FROM_HEADERS = {"model": "palp_lab.model.", "tokens": "palp_lab.tokens.", "edits": "palp_lab.edits."}
"""What the parts a header names may be. The file may come from anybody: no other class of ours, and nothing inside."""


def _check_header(about: Mapping[str, Any]) -> None:
    from palp_lab.build import ALLOWED

    for key, prefix in BUILT_FROM_HEADERS.items():
        node = about[key]
        target = node.get("_target_") if isinstance(node, Mapping) else None
        foreign = isinstance(target, str) and not target.startswith(ALLOWED)  # the allow-list judges it
        inside = [value for name, value in node.items() if name != "_target_"] if isinstance(node, Mapping) else []
        if not isinstance(target, str) or any(_targets(value) for value in inside):
            raise UserError(f"the adapter's header: {key} is no part as palp-lab train writes it; not opened")
        if not foreign and not target.startswith(prefix):
            raise UserError(f"the adapter's header: {key} names {target}, which is no {key}; not opened")


def _targets(node: Any) -> bool:
    if isinstance(node, Mapping):
        return "_target_" in node or any(_targets(value) for value in node.values())
    return isinstance(node, list) and any(_targets(value) for value in node)


def assemble(model: Any, about: Mapping[str, Any]) -> Adapter:
    """The untrained adapter a description speaks of, attached to a model that is open."""
    import torch
    from omegaconf import OmegaConf

    from palp_lab.adapter import Adapter
    from palp_lab.build import build
    from palp_lab.dataset.concept import Concept

    nodes = OmegaConf.create({key: dict(about[key]) for key in ("tokens", "edits")})
    nothing = torch.zeros(0, 3, 1, 1, dtype=torch.uint8)
    concept = Concept(str(about.get("concept", "")), about["superclass"], about["placeholder"], nothing, digest="")
    return Adapter(model, build(nodes.tokens, "tokens"), build(nodes.edits, "edits"), concept)

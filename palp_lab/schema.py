"""Is every key of a composed configuration one that something reads?

The shipped YAML is the schema: a plain node may hold the keys any shipped file of its group holds, with values of the
same kind, or of another that its comment tells of (`ALSO`; the tests compare the two); a node with a `_target_` may
hold what that target's constructor takes. So a typo in somebody's own YAML, or behind a `+` on the command line, is an
error and not silence.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf, open_dict

from palp_lab.build import check_losses, locate, words_of
from palp_lab.cli_errors import as_list, nearest
from palp_lab.composition import conf_folder
from palp_lab.types import UserError

RESERVED = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
"""Keys of Hydra's own inside a node that is instantiated."""

NEVER_BELOW_ROOT = {"defaults", "hydra"}

ALSO: dict[str, set[str]] = {
    "captions": {"text"},
    "trainer.precision": {"text"},
    "trainer.gradient_clip": {"null"},
    "pretrain.*.minutes": {"a number"},
    "free_gigabytes": {"a number"},
}
"""Kinds a key takes beside that of its shipped value: the name of a set of captions, bf16 beside 32, null for none. Any
word may stand for a `*`."""


def check(config: DictConfig, constructors: bool = True, trusting: bool = False) -> None:
    """Raises UserError, naming the key and the nearest right one, for a key or kind of value that nothing reads.

    Args:
        config: a composed configuration with its `verb`.
        constructors: also compare nodes that have a `_target_` with the target's signature (imports the target).
        trusting: take a target's keys for right where a shipped file gives them to it (the tests compare those with
            the signatures), so that nothing heavy is imported where nothing is wrong.
    """
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{missing[0]} has no value: add {missing[0]}=... to the command line")
    data = OmegaConf.to_container(config, resolve=False)
    _compare_finite("", data)
    for look_at_constructors in (False, True)[: 1 + constructors]:  # cheap first: a typo needs no import
        _compare("", data, shipped(str(config.verb)), look_at_constructors and (_trusted if trusting else _imported))


def drop_strangers(config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Takes out what a recipe or a tuning says of a part that was replaced, and returns the keys.

    `method=palp edits=full` leaves behind the rank the recipe gave its low-rank edits, and `losses=[reconstruction]`
    the alignment's weight. Such keys belong to another choice of the same group; they do not apply. What the command
    line itself says is never dropped, so a mistake there stays an error, and neither is a word no shipped file knows.
    What a study says for the verb `run` alone (its ledger, its report) goes where another verb reads the study.
    """
    check_losses(overrides)
    said = {word.lstrip("+~").partition("=")[0] for word in overrides}
    dropped = []
    with open_dict(config):
        for key in sorted(set(shipped("run")) - set(shipped(str(config.verb)))):
            if key in config and not any(word == key or word.startswith(f"{key}.") for word in said):
                dropped.append(key)
                config.pop(key)
        for group in ("tokens", "edits", "dataset"):
            node = config.get(group)
            if not node or "_target_" not in node:
                continue
            strange = _strange(group, node, shipped(str(config.verb)).get(group, {}))
            for key in strange:
                if f"{group}.{key}" not in said:
                    dropped.append(f"{group}.{key}")
                    node.pop(key)
        if "tokens" in said and "tokens.phrase" not in said and (own := _own_phrase(config.get("tokens") or {})):
            dropped.append("tokens.phrase")
            config.tokens.phrase = own  # not taken out: a sweep may set it
        if "_target_" in (config.get("losses") or {}):
            word = next((word for word in words_of(overrides) if word not in config.losses), "my_loss")
            raise UserError(
                f"losses/{word}.yaml: its keys lie at the top; put them below one with the loss's name, {word}:"
            )
        for name, node in list((config.get("losses") or {}).items()):
            known = name in shipped(str(config.verb)).get("losses", {})
            asked = any(word.startswith(f"losses.{name}") for word in said)
            if node is not None and "_target_" not in node and known:
                if asked:
                    used = [one for one, node in config.losses.items() if node is not None and "_target_" in node]
                    raise UserError(
                        f"losses.{name}: this loss is not in use; add it: 'losses=[{','.join([*used, name])}]'"
                    )
                dropped.append(f"losses.{name}")
                config.losses.pop(name)
    return dropped


def _strange(group: str, node: Mapping[str, Any], siblings: Mapping[str, Any]) -> list[str]:
    doubtful = [str(key) for key in node if key not in RESERVED | _trusted(node) and key in siblings]
    if not doubtful:
        return []
    parameters = inspect.signature(locate(str(node["_target_"]), group)).parameters
    return [key for key in doubtful if key not in parameters]


def _own_phrase(node: Mapping[str, Any]) -> str | None:
    """The chosen tokens' own phrase, where a recipe's calls the subject by a field that they do not: by a placeholder
    that they do not learn, say."""
    if "_target_" not in node or node.get("phrase") is None:
        return None
    phrase = inspect.signature(locate(str(node["_target_"]), "tokens")).parameters.get("phrase")
    if phrase is None:
        return None
    own, said = (set(re.findall(r"{(\w+)}", str(text))) for text in (phrase.default, node["phrase"]))
    return str(phrase.default) if said - own - {"superclass"} else None


def _imported(node: Mapping[str, Any]) -> frozenset[str]:
    """No key is taken for right before the target is imported and asked."""
    return frozenset()


def _trusted(node: Mapping[str, Any]) -> frozenset[str]:
    """The keys that shipped files give this node's target."""
    return frozenset(_given().get(str(node["_target_"]), ()))


@cache
def _given() -> dict[str, dict[str, frozenset[str]]]:
    """Target -> the keys beside it with the kinds of their values, over all shipped files."""
    found: dict[str, dict[str, frozenset[str]]] = {}

    def walk(node: Any) -> None:
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(inner)
        if isinstance(node, dict) and "_target_" in node:
            keys = found.setdefault(str(node["_target_"]), {})
            for key, value in node.items():
                keys[str(key)] = keys.get(str(key), frozenset()) | {_kind(value)}

    for path in sorted(conf_folder().rglob("*.yaml")):
        walk(_read(path))
    return found


@cache
def shipped(verb: str) -> dict[str, Any]:
    """All keys the shipped files of a verb define: nested mappings, and at the leaves the set of kinds seen."""
    folder = conf_folder()
    known: dict[str, Any] = {}
    for path in [folder / "base.yaml", folder / f"{verb}.yaml"]:
        _merge(known, {k: v for k, v in _read(path).items() if k not in NEVER_BELOW_ROOT})
    for path in sorted(folder.glob("*/**/*.yaml")):
        group = path.parent.relative_to(folder).parts
        if group[0] == "hydra" or "@package _global_" in path.read_text(encoding="utf-8")[:400]:
            continue
        node: Any = {k: v for k, v in _read(path).items() if k not in NEVER_BELOW_ROOT}
        for name in reversed(group):
            node = {name: node}
        _merge(known, node)
    return known


@cache
def _read(path: Path) -> dict[str, Any]:
    return dict(OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")), resolve=False) or {})  # type: ignore[arg-type]


def _merge(known: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping):
            inner = known.get(key)
            inner = inner if isinstance(inner, dict) else {}
            _merge(inner, value)
            known[key] = inner
        elif not isinstance(known.get(key), dict):
            known[key] = known.get(key, frozenset()) | {_kind(value)}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int):
        return "a whole number"
    if isinstance(value, float):
        return "a number"
    if isinstance(value, str):
        return "anything" if "${" in value else "text"
    return "a list" if isinstance(value, (list, tuple)) else "a mapping"


def _compare_finite(path: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}={value}: must be a finite number")
    if isinstance(value, (dict, list)):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _compare_finite(f"{path}.{name}" if path else str(name), inner)


Trust = Callable[[Mapping[str, Any]], frozenset[str]]
"""What of a node with a `_target_` needs no look at the target's constructor."""


def _compare(path: str, node: Any, known: Any, constructors: Literal[False] | Trust) -> None:
    if isinstance(node, list):
        for index, item in enumerate(node):
            if isinstance(item, dict) and "_target_" in item:
                _compare(f"{path}[{index}]", item, {}, constructors)
        return
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        if constructors:
            _compare_constructor(path, node, constructors)
        return
    for key, value in node.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict) and "_target_" in value:
            _compare(here, value, {}, constructors)
        elif not isinstance(known, dict) or key not in known:
            siblings = [f"{path}.{k}" if path else str(k) for k in (known if isinstance(known, dict) else {})]
            raise UserError(f"{here}: no such key{nearest(here, siblings)}")
        elif isinstance(known[key], dict):
            if value is not None and not isinstance(value, (dict, list)):
                raise UserError(f"{here} is a group of keys, not {value!r}: give {here}.<key>=...")
            if known[key]:
                _compare(here, value, known[key], constructors)
        else:
            _compare_kind(here, value, known[key])
            if isinstance(value, list):
                _compare(here, value, {}, constructors)


def _compare_kind(path: str, value: Any, kinds: frozenset[str]) -> None:
    kind = _kind(value)
    kinds = kinds.union(*(more for pattern, more in ALSO.items() if fnmatchcase(path, pattern)))
    fits = {kind, "anything"} | ({"a number"} if kind == "a whole number" else set())
    if kind == "anything" or fits & kinds or kinds == {"null"}:
        return
    if kind in {"a whole number", "a number"} and "text" in kinds:
        return  # a label may look like a number
    wanted = " or ".join(sorted(kinds - {"null"})) + (" or null" if "null" in kinds else "")
    fix = f", e.g. {as_list(path, [str(value)])}" if kinds == {"a list"} and not isinstance(value, Mapping) else ""
    raise UserError(f"{path}={value!r}: must be {wanted}{fix}")


def _compare_constructor(path: str, node: dict[str, Any], trust: Trust) -> None:
    for key, value in node.items():
        _compare_inside(f"{path}.{key}", value, trust)
        _compare_number(path, str(key), value, str(node["_target_"]))
    if node.keys() <= RESERVED | trust(node):
        return
    target = locate(node["_target_"], path)
    parameters = inspect.signature(target).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for key in node:
        if key not in RESERVED and key not in parameters:
            takes = [f"{path}.{name}" for name in parameters if name != "self"]
            raise UserError(f"{path}.{key}: {node['_target_']} takes no such key{nearest(f'{path}.{key}', takes)}")


NUMBERS = {"float": "a number", "int": "a whole number", "bool": "true or false"}
"""What an annotation asks for."""


def _compare_number(path: str, key: str, value: Any, target: str) -> None:
    """Refuses text where the constructor wants a number, which it would find out only when it counts with it."""
    if _kind(value) != "text" or key in RESERVED or "text" in _given().get(target, {}).get(key, ()):
        return
    parameter = inspect.signature(locate(target, path)).parameters.get(key)
    annotation = getattr(parameter, "annotation", "")
    words = str(getattr(annotation, "__name__", annotation)).split(" | ")
    if words[0] in NUMBERS and set(words[1:]) <= {"None"}:
        raise UserError(f"{path}.{key}={value!r}: must be {NUMBERS[words[0]]}{' or null' if words[1:] else ''}")


def _compare_inside(path: str, value: Any, trust: Trust) -> None:
    """Finds the nodes with a `_target_` in what a constructor is given, however deep."""
    if isinstance(value, dict) and "_target_" in value:
        _compare_constructor(path, value, trust)
    elif isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            _compare_inside(f"{path}.{name}", item, trust)

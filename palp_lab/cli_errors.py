"""What Hydra says when a command line is wrong, said in one line that names the nearest right word."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from palp_lab.composition import conf_folder, own_folders, search_path


def nearest(word: str, candidates: Iterable[str]) -> str:
    """`; did you mean X?` for the closest candidate, or the first few candidates where none is close, or nothing.

    Keys of the word's own group go first. Under one parent only the last parts of dotted keys are compared, else the
    whole counts too, so that `max_stps` finds `trainer.max_steps`, and `trainr.max_steps` finds it rather than some
    other `max_steps`.
    """
    pool = sorted(set(candidates))
    parent, _, last = word.rpartition(".")

    def likeness(candidate: str) -> float:
        above, _, below = candidate.rpartition(".")
        tail = difflib.SequenceMatcher(None, last, below).ratio()
        if above == parent:
            return tail
        return (tail + difflib.SequenceMatcher(None, word, candidate).ratio()) / 2

    for some in (_inside(parent, pool), pool):
        best = max(some, key=likeness, default=None)
        if best is not None and likeness(best) >= 0.6:
            return f"; did you mean {best}?"
    while parent and not _inside(parent, pool):
        parent = parent.rpartition(".")[0]
    shown = _inside(parent, pool) or pool
    return f"; there are: {', '.join(shown[:12])}{', ...' if len(shown) > 12 else ''}" if shown else ""


def _inside(group: str, keys: Iterable[str]) -> list[str]:
    """The keys that lie directly in a group; none where no group is named."""
    return [key for key in keys if group and key.rpartition(".")[0] == group]


def dotted(node: Any, prefix: str = "") -> Iterator[str]:
    """All keys of a nested mapping, with dots."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from dotted(value, f"{prefix}{key}.")


def explain(error: Exception, verb: str, overrides: list[str]) -> str | None:
    """One line for an error of composing; None where it is not the user's.

    Args:
        error: what Hydra raised.
        verb: name of the primary configuration.
        overrides: the command line after the verb.
    """
    from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import MarkedYAMLError

    if isinstance(error, MarkedYAMLError):
        return _no_yaml(error)
    if several := re.match(r"Ambiguous value for argument '(.+?)=(.+)'", str(error)):
        key, values = several.groups()
        return _several(key, values, verb)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, overrides)
    if isinstance(error, MissingConfigException):
        return _no_such_choice(error, overrides)
    if isinstance(error, ConfigCompositionException):
        if wrong := re.search(r"Could not (?:override|delete from config\.?|append).*?'([^']+)'", str(error)):
            return _no_such_key(wrong.group(1), verb, overrides, error)
        cause = error.__cause__
        return first_line(str(error)) + (f" ({first_line(str(cause))})" if cause else "")
    if isinstance(error, ValueError) and "can be specified" in str(error):
        return f"{first_line(str(error))}: -m runs, --cfg and --info only show"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return first_line(str(error))
    return None


def _no_yaml(error: Any) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}:{mark.line + 1}" if mark else "a file"
    why = "; ".join(filter(None, (error.problem, error.context)))
    texts = "flow" in why or "mapping values" in why
    return f"{where}: is no YAML ({why})" + ("; text with braces, brackets or a colon needs quotes" if texts else "")


def first_line(text: str) -> str:
    """The first line that is not empty."""
    return next((line.strip() for line in text.splitlines() if line.strip()), text)


def _unreadable(override: str, overrides: list[str]) -> str:
    key, equals, value = override.partition("=")
    if not equals and override in overrides:
        before, after = overrides[: overrides.index(override)], overrides[overrides.index(override) :]
        if before and (said := re.fullmatch(r"([\w.]+)=(\w.*)", before[-1])):  # a sentence that the shell took apart
            words = list(itertools.takewhile(lambda word: "=" not in word and not word.startswith("-"), after))
            return f"cannot read {override!r}: quote the sentence: '{said[1]}=\"{' '.join([said[2], *words])}\"'"
    if not equals:
        return f"cannot read {override!r}: write key=value (see palp-lab --help)"
    what = (
        "a path that begins with ~" if re.match(r"(\[|\[.*,)?\s*~", value) else "text with braces, commas or brackets"
    )
    quoted = value.strip("\"'").replace('"', '\\"')
    right = f"'{key}=\"{quoted}\"'"
    if (inside := re.fullmatch(r"\[(.*)\]", value)) and not re.search(r"(^|,)\s*(\[|{\s*\w)", inside[1]):  # of texts
        right = as_list(key, re.findall(r"\"[^\"]*\"|'[^']*'|[^,]+", inside[1]))
    return f"cannot read {override}: {what} needs two pairs of quotes: {right}"


def as_list(key: str, items: Iterable[str]) -> str:
    """How a list of texts is written in a shell: `key=[a,b]`, or where that could not be read `'key=["a b","c"]'`."""
    texts = [item.strip().strip("\"'") for item in items]
    if all(re.fullmatch(r"[\w./+-]+", text) for text in texts):
        return f"{key}=[{','.join(texts)}]"
    escaped = (text.replace('"', '\\"') for text in texts)
    return f"""'{key}=[{",".join(f'"{text}"' for text in escaped)}]'"""


def _several(key: str, values: str, verb: str) -> str:
    """What is said of `key=a,b` without -m: a list has brackets, and what is null may become a list or a text."""
    from palp_lab.schema import shipped

    kinds: Any = shipped(verb)
    for part in key.split("."):
        kinds = kinds.get(part) if isinstance(kinds, Mapping) else None
    right, kinds = as_list(key, values.split(",")), kinds if isinstance(kinds, frozenset) else frozenset()
    if "a list" in kinds:
        return f"{key}={values}: a list has brackets: {right}"
    lists = f", {right} for a list" if kinds == {"null"} else ""
    return f"{key}={values}: several values: add -m to run each, or write '{key}=\"{values}\"' for one text{lists}"


EXTRAS = {"joblib": "joblib", "submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray"}
"""Launchers of Hydra's that come with an extra of this package."""


def _no_such_choice(error: Any, words: list[str]) -> str:
    wanted = str(error.missing_cfg_file or "")
    group, _, choice = wanted.rpartition("/")
    options = [str(o) for o in error.options or []]
    folders = [conf_folder(), *own_folders(words)]
    if not group:
        return f"no configuration named {wanted!r}{nearest(wanted, (p.stem for p in conf_folder().glob('*.yaml')))}"
    if group == "hydra/launcher" and choice in EXTRAS:
        return f"{group}={choice}: that launcher is not installed: pip install 'palp-lab[{EXTRAS[choice]}]'"
    if not options:  # Hydra lists none for a group whose choice is a list, as losses is
        options = [p.stem for folder in folders for p in (folder / group).glob("*.yaml")]
    hint = nearest(choice, options)
    listed = "" if hint.startswith("; there") else f" (choices: {', '.join(sorted(options))})"
    return f"{group}={choice}: no such choice{hint}{listed}"


def _no_such_key(key: str, verb: str, overrides: list[str], error: Exception) -> str:
    rest = [o for o in overrides if not o.lstrip("+~").startswith(key)]
    known = set(_keys(verb, rest, hydra=key.startswith("hydra.")))
    if key in known:
        why = first_line(str(error.__cause__ or error))
        if (new := re.match(r"Key '(.+?)' is not in struct", why)) and key.startswith("prompts"):
            own = "; draw sentences of your own with generate.prompts" if verb == "generate" else ""
            return f"{key}: there is no {new[1]}; add it: '+{key}.{new[1]}=...'{own}"
        return f"{key}: {why}"
    if (other := _alias(key)) is not None:
        word, name = key.split(".")[1], other.split(".")[1]
        return f"{key}: {word} is another word for the loss {name}; write {other}"
    if recipe := re.match(r"\w+@(method|study)\.", key):
        chosen = next((word for word in overrides if word.startswith(f"{recipe[1]}=")), f"{recipe[1]}=...")
        return f"{chosen}: its file must have the line '# @package _global_' above its keys"
    if verb == "generate" and key in ("prompt", "sentence", "sentences"):
        return f"{key}: no such key; did you mean generate.prompts?"
    group, name, *_ = [*key.split("."), ""]
    folders = [conf_folder(), *own_folders(overrides)]
    used = [one.split(".")[1] for one in sorted(known) if re.fullmatch(r"losses\.\w+", one)]
    if group == "losses" and name not in used and any((one / group / f"{name}.yaml").is_file() for one in folders):
        return f"{key}: this loss is not in use; add it: 'losses=[{','.join([*used, name])}]'"
    if key.startswith("hydra."):  # those beside it: no other is meant
        known = {one for one in known if one.rpartition(".")[0] == key.rpartition(".")[0]} or known
    return f"{key}: no such key{nearest(key, known)}"


def _alias(key: str) -> str | None:
    """The key that is meant where one names a loss by another word for it, as `losses.sds.weight` does."""
    from palp_lab.build import loss_of

    group, _, rest = key.partition(".")
    word, _, inside = rest.partition(".")
    if group != "losses" or not word or (name := loss_of(word)) == word:
        return None
    return ".".join(filter(None, ("losses", name, inside)))


def _keys(verb: str, overrides: list[str], hydra: bool = False) -> Iterator[str]:
    """Every key and group the command line may name, for the choices it makes; with `hydra` Hydra's own."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from palp_lab.composition import version_options

    folder, own = conf_folder(), own_folders(overrides)
    extra = search_path(own)
    overrides = [word for word in overrides if "=" in word and not word.startswith("-")]
    if not hydra:
        yield from (p.name for one in (folder, *own) if one.is_dir() for p in one.iterdir() if p.is_dir())
    for attempt in (overrides, [o for o in overrides if "," not in o], []):  # a list of values composes in no one cell
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(config_dir=str(folder), **version_options(initialize_config_dir)):
                config = compose(verb, overrides=[*attempt, *extra], return_hydra_config=hydra)
                node = OmegaConf.to_container(config, resolve=False)
                assert isinstance(node, dict)
                yield from dotted({"hydra": node["hydra"]} if hydra else node)
            return
        except Exception:
            continue

"""Where the configuration lies, and composing it without a command line (notebooks, tests)."""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger(__name__)

VERSION_BASE = "1.3"
"""Hydra's behaviour this project is written for. Hydra 1.4 has no other and warns about being told."""


def conf_folder() -> Path:
    """The configuration that travels in the wheel, else the one at the top of the repository."""
    package = Path(__file__).resolve().parent
    packaged = package / "conf"
    return packaged if (packaged / "base.yaml").is_file() else package.parent / "conf"


PATHS = (
    "output", "store", "to", "folder", "results", "ledger", "adapter", "adapters", "images", "targets_file",
    "study_kit_answers",
)  # fmt: skip
"""Keys at the top whose values are files or folders, or lists of them."""

LABEL = 80
"""Characters of a job's folder name."""

FOLDER_FLAGS = ("--config-dir", "-cd")

FLAGS = {"-m", "--multirun", "-r", "--run", "--resolve"}
"""Options of Hydra's that stand alone."""

TAKES_A_VALUE = {
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", *FOLDER_FLAGS,
    "--experimental-rerun",
}  # fmt: skip

INFO = {"--info", "-i"}
"""The option whose value may be left out."""

ABOUT = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}
"""The values that it takes."""


def options_apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of a command line, each with its value, and its other words."""
    options: list[str] = []
    others: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word in TAKES_A_VALUE and left:
            options += [word, left.pop(0)]
        elif word in INFO:
            options.append(f"--info={left.pop(0) if left and left[0] in ABOUT else 'all'}")
        elif word in FLAGS or (word.startswith("-") and "=" in word):
            options.append(word)
        else:
            others.append(word)
    return options, others


def own_folders(words: Sequence[str]) -> list[Path]:
    """The folders of configurations that a command line adds, as `--config-dir mine` or `--config-dir=mine`."""
    joined = [word.partition("=")[2] for word in words if word.startswith(tuple(f"{flag}=" for flag in FOLDER_FLAGS))]
    return [Path(name) for name in [*joined, *(after for word, after in pairwise(words) if word in FOLDER_FLAGS)]]


def refuse_hidden(folders: Sequence[Path]) -> None:
    """Raises UserError for a file in a folder of one's own that bears the name of a shipped one: Hydra would take the
    shipped one, without a word."""
    from palp_lab.types import UserError

    for folder in folders:
        for path in sorted(folder.glob("**/*.yaml")) if folder.resolve() != conf_folder().resolve() else ():
            if (conf_folder() / path.relative_to(folder)).is_file():
                raise UserError(f"{path}: a shipped file has this name, and is the one that is found; give it another")


def at_home(path: str) -> str:
    """A path with the user's own folder for the ~ it may begin with."""
    return os.path.expanduser(path)


def expand_home(config: DictConfig) -> None:
    """Writes the user's own folder for the ~ that a path at the top of a configuration may begin with (`PATHS`). The
    parts see to the paths that are given to them."""
    from omegaconf import ListConfig, OmegaConf

    for key in PATHS:
        if key not in config or OmegaConf.is_missing(config, key):
            continue
        value = config[key]
        if isinstance(value, str) and value.startswith("~"):
            config[key] = at_home(value)
        elif isinstance(value, ListConfig) and any(str(path).startswith("~") for path in value):
            config[key] = [at_home(str(path)) for path in value]


def output_of(words: Sequence[str]) -> Path:
    """The folder that a command line, else the environment, says everything is written below."""
    said = [word.partition("=")[2].strip("\"'") for word in words if word.startswith("output=")]
    return Path(at_home(said[-1] if said else os.environ.get("PALP_LAB_OUTPUT") or "outputs"))


def search_path(folders: Sequence[Path]) -> list[str]:
    """The override that makes Hydra look into further folders, where there are any."""
    places = ",".join(f'"file://{folder.resolve()}"' for folder in folders)
    return [f"hydra.searchpath=[{places}]"] if places else []


def cell_label(number: Any, overrides: Any, constant: Any = ()) -> str:
    """A readable folder name for one job of a sweep: its number and the values that were swept, without those of the
    `constant` keys, which all jobs have.

    At most 80 characters of letters, digits and ``._=-``, so that any file system takes it; where that is too few every
    long value is cut, so that each still shows.
    """
    words = []
    for override in overrides or []:
        key, _, value = str(override).lstrip("+~").partition("=")
        if key not in (constant or ()):
            words.append(f"{key.split('.')[-1]}={value}" if value[:1].isdigit() else value)
    longest = LABEL
    while len(text := "_".join([str(number), *(word[:longest] for word in words)])) > LABEL and longest > 8:
        longest -= 1
    return "".join(c if c.isalnum() or c in "._=-" else "-" for c in text)[:LABEL].rstrip("-._")


def constants(cells: Sequence[Sequence[str]]) -> list[str]:
    """The keys that have one value in all cells of a sweep that have them; none where nothing differs."""
    values: dict[str, set[str]] = {}
    for key, _, value in (line.lstrip("+~").partition("=") for cell in cells for line in cell):
        values.setdefault(key, set()).add(value)
    found = [key for key, given in values.items() if len(given) == 1]
    return found if len(found) < len(values) else []


def register_resolvers() -> None:
    """Makes our resolvers known to OmegaConf. Called at import of every module that composes, so that the worker
    processes of a launcher have them as well."""
    from omegaconf import OmegaConf

    # OmegaConf 2.4, which hydra 1.4 needs, gives the older name to what 2.3 calls the new one
    later = "replace" in inspect.signature(OmegaConf.register_resolver).parameters
    register: Any = OmegaConf.register_resolver if later else OmegaConf.register_new_resolver
    register("cell_label", cell_label, replace=True)
    register("at_home", at_home, replace=True)


def version_options(entry: Callable[..., Any]) -> dict[str, Any]:
    """The `version_base` argument for an entry point of Hydra 1.3, nothing for one of a later line."""
    import hydra

    later = "execution_whitelist" in inspect.signature(hydra.main).parameters
    return {} if later or "version_base" not in inspect.signature(entry).parameters else {"version_base": VERSION_BASE}


def fill_labels(config: DictConfig, choices: Mapping[str, Any]) -> None:
    """Writes the chosen method, dataset and model where the labels were left null."""
    from omegaconf import open_dict

    with open_dict(config):
        for axis, label in config.labels.items():
            if label is None:
                config.labels[axis] = choices.get(str(axis))


def say_untuned(config: DictConfig, folders: Sequence[str | Path] | None = None) -> None:
    """A line of the log where a model has values of its own for other recipes, and none for the one that is run.
    `folders` hold the groups; None: those of the command that runs."""
    from hydra.core.hydra_config import HydraConfig

    if folders is None:
        folders = [one.path for one in HydraConfig.get().runtime.config_sources] if HydraConfig.initialized() else []
    labels = config.labels
    name = f"{labels.model}_{labels.method}"
    known = {path.stem for folder in folders for path in Path(folder, "tuning").glob("*.yaml")}
    if name not in known and any(stem.startswith(f"{labels.model}_") for stem in known):
        logger.info("there is no tuning/%s.yaml: the recipe's own values are used on model=%s", name, labels.model)


def say_changed(config: DictConfig, overrides: Sequence[str]) -> None:
    """A warning where parts are replaced and nobody has chosen the recipe they are replaced in: it is PALP's, by whose
    name the result goes, and other losses leave out its alignment term."""
    keys = [word.lstrip("+~").partition("=")[0] for word in overrides]
    replaced = [key for key in keys if key in ("tokens", "edits", "losses", "stages")]
    if replaced and not {"method", "study", "labels.method"} & {*keys}:
        logger.warning(
            "method is not given: %s replaced in the default, method=%s; add method=ti_db or another recipe, to choose "
            "what the rest is and under whose name the result goes",
            " and ".join(dict.fromkeys(replaced)),
            config.labels.method,
        )


def say_drawn(config: DictConfig, overrides: Sequence[str]) -> None:
    """A warning where nobody has chosen photos for a model that is not of the tiny world and gets its drawn subject."""
    labels, chosen = config.labels, any(re.match(r"\+*(dataset|study|adapters)\b", word) for word in overrides)
    if labels.dataset == "tiny" and not str(labels.model).startswith("tiny") and not chosen:
        logger.warning(
            "dataset is not given: model=%s gets a drawn %s of the tiny world; for photos give dataset=folder "
            "dataset.path=... dataset.superclass=..., and dataset=tiny where the drawn one is meant",
            labels.model,
            config.dataset.superclass,
        )


def without_hydra(whole: DictConfig) -> DictConfig:
    """A copy of a composed configuration without Hydra's own node, its paths with the user's own folder for ~."""
    from omegaconf import open_dict

    config = whole.copy()
    with open_dict(config):
        config.pop("hydra", None)
    expand_home(config)
    return config


def compose(verb: str = "run", *overrides: str, config_dir: str | Path | None = None) -> DictConfig:
    """The configuration `palp-lab <verb> <overrides>` would run with, for notebooks.

    Args:
        verb: run, train, generate, score, report, export, pretrain or doctor.
        overrides: Hydra overrides, e.g. ``"method=palp"``, ``'target="a sketch of {} in the snow"'``.
        config_dir: a folder with own groups, as ``--config-dir``.

    Raises:
        UserError: for an unknown verb, key or choice; the message names the nearest one.
    """
    from palp_lab.build import check_aliases, check_rates
    from palp_lab.schema import drop_strangers

    config = compose_as_written(verb, *overrides, config_dir=config_dir)
    drop_strangers(config, overrides)
    check_aliases(config, overrides)
    check_rates(config, overrides)
    return config


def compose_as_written(verb: str, *overrides: str, config_dir: str | Path | None = None) -> DictConfig:
    """As `compose`, with whatever the files say of parts that were replaced: what `--cfg job` prints."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from palp_lab.cli_errors import explain
    from palp_lab.types import UserError

    register_resolvers()
    refuse_hidden([Path(config_dir)] if config_dir else [])
    extra = search_path([Path(config_dir)] if config_dir else [])
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(conf_folder()), **version_options(initialize_config_dir)):
            whole = hydra_compose(verb, overrides=[*overrides, *extra], return_hydra_config=True)
    except Exception as error:
        line = explain(error, verb, [*overrides, *([f"--config-dir={config_dir}"] if config_dir else [])])
        if line is None:
            raise
        raise UserError(line) from error
    config = without_hydra(whole)
    fill_labels(config, whole.hydra.runtime.choices)
    return config

"""The cells of a sweep: each choice of groups is composed once, and a key goes to the cells whose recipe has it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from palp_lab.cli_errors import dotted, nearest
from palp_lab.composition import cell_label, fill_labels, without_hydra
from palp_lab.launch import attempt
from palp_lab.schema import drop_strangers
from palp_lab.types import UserError


class ChoiceLoader(ConfigLoader):
    """Hydra's loader, which composes each choice of groups once and copies it for the cells that make it. Final."""

    def __init__(self, inner: ConfigLoader) -> None:
        self.inner = inner
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._tasks: dict[tuple[str, ...], DictConfig] = {}
        self._groups: dict[str, bool] = {}
        self._parsed: dict[str, Override] = {}
        self.constant: list[str] = []
        """Keys that the cells do not differ in: they are left out of folder names."""

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process gets: it composes for itself."""
        kept = {"inner": self.inner, "constant": self.constant}
        return {**kept, "_composed": {}, "_tasks": {}, "_groups": {}, "_parsed": {}}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """One cell: what its choice of groups composes to, with its values written in, as Hydra would."""
        config = self._load_sweep_config(master_config, sweep_overrides)
        if self.constant:
            names = config.hydra.job.config.override_dirname
            names.exclude_keys = [*names.exclude_keys, *self.constant]
        return config

    def _load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        if any(not self._plain(line) for line in sweep_overrides):
            return self.inner.load_sweep_config(master_config, sweep_overrides)
        config = copy.deepcopy(self._chosen(master_config, sweep_overrides))
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        for line in sweep_overrides:
            if not self._is_choice(line):
                one = self._parse(line)
                OmegaConf.update(config, one.key_or_group, one.value(), merge=True)
        config.hydra.overrides.task = list(sweep_overrides)
        config.hydra.job.override_dirname = _dirname(config.hydra.job.config.override_dirname, sweep_overrides)
        return config

    def load_task(self, master_config: DictConfig, lines: Sequence[str]) -> DictConfig:
        """The same without Hydra's own node, labels filled: what a cell that is only planned needs."""
        plain = all(map(self._plain, lines))
        whole = self._chosen(master_config, lines) if plain else self.load_sweep_config(master_config, list(lines))
        choices = tuple(line for line in lines if not plain or self._is_choice(line))
        if choices not in self._tasks:
            self._tasks[choices] = without_hydra(whole)
            fill_labels(self._tasks[choices], whole.hydra.runtime.choices)
        config = copy.deepcopy(self._tasks[choices])
        for line in lines:
            if line not in choices:
                one = self._parse(line)
                OmegaConf.update(config, one.key_or_group, one.value(), merge=True)
        return config

    def applicable(self, master_config: DictConfig, cells: Iterable[Sequence[str]]) -> list[list[str]]:
        """The cells without the values their recipe has no key for; cells that become equal come once.

        Raises UserError for a key that no cell has.
        """
        cells = [list(cell) for cell in cells]
        known: dict[tuple[str, ...], set[str]] = {}
        found: dict[tuple[str, ...], list[str]] = {}
        applied: set[str] = set()
        for cell in cells:
            choices = tuple(line for line in cell if not self._plain(line) or self._is_choice(line))
            if choices not in known:
                known[choices] = self._keys(master_config, choices)
            lines = [line for line in cell if line in choices or _root(self._parse(line)) in known[choices]]
            applied.update(lines)
            found.setdefault(tuple(lines), lines)
        for line in (line for cell in cells for line in cell if line not in applied):
            key = self._parse(line).key_or_group
            where = " in any cell of this sweep" if len(known) > 1 else ""
            raise UserError(f"{key}: no such key{where}{nearest(key, set().union(*known.values()))}")
        return list(found.values())

    def _keys(self, master_config: DictConfig, choices: tuple[str, ...]) -> set[str]:
        """Every key of the cells that make these choices, without what belongs to parts that were replaced."""
        if all(map(self._plain, choices)):
            whole = self._chosen(master_config, choices)
        else:
            whole = self.inner.load_sweep_config(master_config, list(choices))
        config = without_hydra(whole)
        if config.verb != "doctor":
            drop_strangers(config, choices)
        return set(dotted(OmegaConf.to_container(config, resolve=False)))

    def _chosen(self, master_config: DictConfig, lines: Iterable[str]) -> DictConfig:
        choices = tuple(line for line in lines if self._is_choice(line))
        if choices not in self._composed:
            self._composed[choices] = self.inner.load_sweep_config(master_config, list(choices))
        return self._composed[choices]

    def _parse(self, line: str) -> Override:
        if line not in self._parsed:
            self._parsed[line] = OverridesParser.create().parse_override(line)
        return self._parsed[line]

    def _plain(self, line: str) -> bool:
        """Whether a line only chooses of a group or sets a value that is there; what adds or deletes is Hydra's."""
        one = self._parse(line)
        return not (one.is_delete() or one.is_add() or one.is_force_add() or one.package or one.is_hydra_override())

    def _is_choice(self, line: str) -> bool:
        one = self._parse(line)
        key = one.key_or_group
        if key not in self._groups:
            self._groups[key] = bool(self.inner.get_group_options(key))
        return self._groups[key] and not isinstance(one.value(), dict)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Hydra's."""
        return self.inner.load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)

    def get_search_path(self) -> Any:
        """Hydra's."""
        return self.inner.get_search_path()

    def get_sources(self) -> Any:
        """Hydra's."""
        return self.inner.get_sources()

    def list_groups(self, parent_name: str) -> list[str]:
        """Hydra's."""
        return self.inner.list_groups(parent_name)

    def get_group_options(self, group_name: str, *arguments: Any, **more: Any) -> list[str]:
        """Hydra's."""
        return self.inner.get_group_options(group_name, *arguments, **more)

    def compute_defaults_list(self, config_name: str | None, overrides: list[str], run_mode: RunMode) -> Any:
        """Hydra's."""
        return self.inner.compute_defaults_list(config_name, overrides, run_mode)


def _root(one: Override) -> str:
    """The key an override writes to, of a list the list itself."""
    return re.sub(r"[.\[]\d+\b.*", "", one.key_or_group)


def _dirname(how: DictConfig, lines: Sequence[str]) -> str:
    """Hydra's `${hydra.job.override_dirname}`: the values in the order of the alphabet."""
    kept = sorted(line for line in lines if line.partition("=")[0] not in how.exclude_keys)
    return re.sub("=", how.kv_sep, how.item_sep.join(kept))


def plan_cells(loader: ChoiceLoader, config: DictConfig, folder: Path, cells: Sequence[Sequence[str]], at: int) -> None:
    """Runs the jobs of a dry sweep in this process, each with a folder below the sweep's, as a launcher would."""
    for number, lines in enumerate(cells, start=at):
        task = loader.load_task(config, lines)
        own, studied = folder / cell_label(number, lines, loader.constant), tuple(config.hydra.sweeper.params or ())
        attempt(str(config.verb), task, list(lines), own, swept=True, studied=studied)

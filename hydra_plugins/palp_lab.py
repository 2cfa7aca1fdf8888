"""Our sweepers, where Hydra looks for plugins: the only name space it takes them from. What they do is in palp_lab."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from palp_lab.composition import constants
from palp_lab.search import Search, run_search
from palp_lab.sweeper import ChoiceLoader, plan_cells
from palp_lab.types import UserError


class RecipeSweeper(BasicSweeper):
    """Hydra's grid sweeper over recipes that do not all have the same keys. Final.

    `method=ti_db,dreambooth losses.prior_preservation.count=50` is one command: the number goes to the cells that have
    such a loss. A key that no cell has is refused before anything runs, and named with the nearest right one.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """As Hydra's, with a loader that remembers what it composed; the launcher gets it as well."""
        self.loader = ChoiceLoader(hydra_context.config_loader)
        context = HydraContext(config_loader=self.loader, callbacks=hydra_context.callbacks)
        super().setup(hydra_context=context, task_function=task_function, config=config)
        if config.get("dry_run"):
            self.launcher = Planner(self.loader, config)

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        """The next batch; before the first one every key is given to the cells that have it."""
        if self.batch_index == 0 and self.overrides and self.config is not None:
            cells = self.loader.applicable(self.config, [cell for batch in self.overrides for cell in batch])
            self.loader.constant = constants(cells)
            size = self.max_batch_size or len(cells)
            self.overrides = [cells[i : i + size] for i in range(0, len(cells), size)]
        return super().get_job_batch()

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: `applicable` has composed every choice and looked for every key already."""


class FrontSweeper(RecipeSweeper):
    """A search for the front by Optuna's samplers where a grid is too large (`hydra/sweeper=optuna`). Final.

    Jobs are run by whatever launcher there is, `at_once` at a time.
    """

    def __init__(
        self,
        sampler: str,
        trials: int,
        at_once: int,
        seed: int,
        journal: str,
        params: dict[str, str] | None = None,
    ) -> None:
        super().__init__(max_batch_size=None, params=params)
        self.sampler, self.trials, self.at_once, self.seed, self.journal = sampler, trials, at_once, seed, journal

    def sweep(self, arguments: list[str]) -> Any:
        """Asks for trials, launches their cells, tells what they returned; prints the front."""
        assert self.config is not None and self.launcher is not None
        if self.config.get("dry_run"):
            raise UserError("dry_run=true: a search does not know its cells beforehand; plan one of them without -m")
        parser = OverridesParser.create(config_loader=self.loader)
        overrides = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        name = str(self.config.study_name)
        search = Search(overrides, self.sampler, self.seed, Path(self.journal), name)
        self.loader.constant = [line.partition("=")[0].lstrip("+~") for line in search.fixed]
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        run_search(search, self.trials, self.at_once, self._launch)

    def _launch(self, cells: Sequence[Sequence[str]], first: int) -> list[Any]:
        assert self.config is not None and self.launcher is not None
        lines = [self.loader.applicable(self.config, [cell])[0] for cell in cells]
        found: list[Any] = []
        for job in self.launcher.launch(lines, initial_job_idx=first):
            try:
                found.append(job.return_value)
            except Exception:  # whatever a launcher made of a lost job; the verdict at the end names it
                found.append(None)
        return found


class Planner:
    """Stands for a launcher where nothing is to be run: jobs need no copies of Hydra's node, no log files. Final."""

    def __init__(self, loader: ChoiceLoader, config: DictConfig) -> None:
        self.loader, self.config = loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Plans the cells one after the other."""
        plan_cells(self.loader, self.config, Path(self.config.hydra.sweep.dir), job_overrides, initial_job_idx)
        return []

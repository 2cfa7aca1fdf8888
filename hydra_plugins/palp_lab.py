"""Our sweeper, where Hydra looks for plugins: the only name space it takes them from. What it does is in palp_lab."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from palp_lab.sweeper import ChoiceLoader, plan_cells


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
            size = self.max_batch_size or len(cells)
            self.overrides = [cells[i : i + size] for i in range(0, len(cells), size)]
        return super().get_job_batch()

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: `applicable` has composed every choice and looked for every key already."""


class Planner:
    """Stands for a launcher where nothing is to be run: jobs need no copies of Hydra's node, no log files. Final."""

    def __init__(self, loader: ChoiceLoader, config: DictConfig) -> None:
        self.loader, self.config = loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Plans the cells one after the other."""
        plan_cells(self.loader, self.config, Path(self.config.hydra.sweep.dir), job_overrides, initial_job_idx)
        return []

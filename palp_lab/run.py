"""palp-lab run: one cell of a study, train -> generate -> score -> result.json; with -m a sweep and its report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from palp_lab.memory import known_result, remember
from palp_lab.study.sweeps import current, leave_cells
from palp_lab.tracked import NAN, objectives, send_result, tracked_cell, train_tracked
from palp_lab.types import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from palp_lab.cell import Cell
    from palp_lab.study.result import Result

logger = logging.getLogger(__name__)

T = TypeVar("T")


def run(config: DictConfig) -> tuple[float, float]:
    """Runs what is missing of a cell and returns its text alignment and identity at the last step (image alignment
    where identity is not measured; NaN where neither is), for sweepers that search.

    With `targets_file` a method that has a target is run once per line, and the means are returned; a line that fails
    is named, the others are run all the same. With `dry_run` nothing is made; what would be is listed. Raises UserError
    for what the user can mend.
    """
    cells = list(open_cells(config))
    if config.dry_run:
        from palp_lab.plan import plan_cell, print_plan

        plans = [plan_cell(cell, known=known_result(cell) is not None) for cell in cells]
        leave_cells(plans)
        if (job := current()) is None or not job.swept:
            print_plan(plans)
        return NAN, NAN
    values = [objectives(result) for result in run_each(cells, bool(config.fail_fast))]
    return tuple(sum(column) / len(column) for column in zip(*values, strict=True))  # type: ignore[return-value]


def run_each(cells: Sequence[Cell], fail_fast: bool = False) -> list[Result]:
    """The results of the cells of one job, each left for the report as soon as it is there; failures as `each_cell`."""
    from palp_lab.result_folder import RESULT, result_folder

    left: list[dict[str, str]] = []

    def finish(cell: Cell) -> Result:
        result, folder = run_cell(cell), result_folder(cell)
        left.append({"run": cell.run, "result": str((folder / RESULT).resolve())})
        leave_cells(left)
        logger.info("%s", folder)
        return result

    return each_cell(cells, finish, fail_fast)


def each_cell(cells: Sequence[Cell], work: Callable[[Cell], T], fail_fast: bool = False) -> list[T]:
    """What `work` makes of the cells of one job.

    One that fails does not keep the others from being run, but with `fail_fast`; its error is raised at the end.
    """
    finished: list[T] = []
    failed: list[tuple[Cell, Exception]] = []
    for cell in cells:
        try:
            finished.append(work(cell))
        except Exception as wrong:
            failed.append((cell, wrong))
            if fail_fast or len(cells) == 1:
                break
            logger.error("%r failed: %s", cell.target, wrong)
    if failed:
        cell, error = failed[0]
        if len(cells) == 1 or not isinstance(error, UserError):
            raise error
        raise UserError(f"{len(failed)} of {len(cells)} targets failed, the first of them {cell.target!r}: {error}")
    return finished


def open_cells(config: DictConfig) -> Iterator[Cell]:
    """The cells of a configuration: one, or one per line of `targets_file`; cells that turn out equal come once.

    Raises UserError for several targets in a run of several processes: each but the first ends with the first cell's
    training, and would train it beside another cell of the first one.
    """
    from omegaconf import OmegaConf

    from palp_lab.cell import Cell

    if config.targets_file is None:
        yield Cell(config)
        return
    if config.trainer.devices != 1:
        raise UserError(
            f"targets_file={config.targets_file}: several targets cannot share a run of "
            f"trainer.devices={config.trainer.devices}; give one command per target, or take trainer.devices=1 "
            "(-m then sweeps target=... as well)"
        )
    seen: set[str] = set()
    for target in read_targets(Path(config.targets_file)):
        own = OmegaConf.merge(config, {"target": target})
        cell = Cell(own)  # type: ignore[arg-type]
        if cell.run not in seen:
            seen.add(cell.run)
            yield cell


def read_targets(path: Path) -> list[str]:
    """One target per line; empty lines and those that begin with # are passed over."""
    from palp_lab.dataset.concept import check_sentence
    from palp_lab.study.fields import read_text

    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), start=1)]
    found = [
        check_sentence(line, f"{path}, line {number}") for number, line in lines if line and not line.startswith("#")
    ]
    if not found:
        raise UserError(f"{path}: holds no target; write one sentence with {{}} per line")
    return found


def run_cell(cell: Cell) -> Result:
    """The result of a cell: from the study's ledger if it is known there, else from its stages, made where missing."""
    from palp_lab.result_folder import RESULT, result_folder
    from palp_lab.study.result import save_result

    if (known := known_result(cell)) is not None:
        logger.info("%s: known from %s", cell.run[:8], cell.config.ledger)
        if not _readable(path := result_folder(cell) / RESULT):
            save_result(known, path)
        return known
    _ = cell.protocol_words  # a scorer that is not there is said before anything is trained
    result = make_result(cell)
    remember(cell, result)
    return result


def _readable(path: Path) -> bool:
    """Whether there is a result; one that is damaged is named, and is none."""
    from palp_lab.study.result import load_result

    try:
        return path.exists() and bool(load_result(path))
    except UserError as error:
        logger.warning("%s; it is written anew", error)
        return False


def make_result(cell: Cell) -> Result:
    """Makes what is missing of a cell and writes its folder, in one tracked run where logger=wandb."""
    from palp_lab.result_folder import publish, result_folder

    with tracked_cell(cell) as tracked:
        result = publish(cell, train_tracked(cell, tracked))
        send_result(tracked, result, result_folder(cell))
    return result


def end_sweep(config: DictConfig, cells: Sequence[Mapping[str, Any]], command: str) -> None:
    """After the last cell of a sweep: the plan of a dry run, or the report of all cells that have a result. `command`
    is the sweep's, for the page where its study does not name another."""
    from omegaconf import OmegaConf

    if config.dry_run:
        from palp_lab.plan import print_plan

        print_plan(cells)
        return
    from palp_lab.report import report
    from palp_lab.result_folder import study_folder

    folder = study_folder(config)
    asked = {
        **OmegaConf.to_container(config.report, resolve=True),  # type: ignore[dict-item]
        "results": [cell["result"] for cell in cells],
        "folder": str(folder),
        "logger": OmegaConf.to_container(config.logger, resolve=True),
        "study_name": str(config.study_name),
        "seed": 0,
        "growing": True,
        "command": config.report.command or command,
    }
    report(OmegaConf.create(asked))
    print(f"  {folder / 'cells'}: pictures, adapters and numbers of each cell")
    if config.ledger:
        from palp_lab.report import question_of
        from palp_lab.study.notebook import note, results_so_far

        ledger, name = Path(config.ledger), str(config.study_name)
        results = results_so_far(ledger, name, [Path(cell["result"]) for cell in cells])
        title = str(config.report.title or name)
        print(f"  {note(results, question_of(OmegaConf.create(asked)), title, ledger.parent, name)}: all cells so far")

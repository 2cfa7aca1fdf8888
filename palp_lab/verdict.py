"""The end of a sweep: which cells failed? Read from what is on disk, so that every launcher is judged alike."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from palp_lab.cli_errors import first_line
from palp_lab.composition import without_hydra
from palp_lab.launch import STATUS, complain, keep_traceback
from palp_lab.study.sweeps import CELLS, Left, cells_of, left_by
from palp_lab.types import UserError

ALIKE = 4
"""So many cells that failed for one reason are named in one line."""

_sweeps: list[tuple[Any, frozenset[Left]]] = []
"""The sweep this process drives, from its start to its verdict: its configuration, and what other sweeps left in its
folder."""


class NameFailures(Callback):
    """Hydra callback: ends the program with status 1 after a sweep in which a job failed or was lost, and names it; and
    before anything is run, with status 2, where jobs would change the folder they work in."""

    def on_run_start(self, config: Any, **kwargs: Any) -> None:
        """Refuses a change of folder."""
        refuse_chdir(config)

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Refuses a change of folder, and remembers the sweep: Hydra 1.3 does not call `on_multirun_end` where a
        launcher loses a worker."""
        refuse_chdir(config)
        folder = Path(config.hydra.sweep.dir)
        there = (*folder.glob(f"*/{STATUS}"), *folder.glob(f"**/{CELLS}"))
        _sweeps[:] = [(config, frozenset(map(left_by, there)))]

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """Raises SystemExit(1) where a job failed. Hydra swallows exceptions of callbacks, but not this one."""
        if status := finish():
            raise SystemExit(status)


def refuse_chdir(config: Any) -> None:
    """Raises SystemExit(2), since Hydra swallows other exceptions of callbacks, after a line that says why, where every
    job would work in a folder of its own: relative paths, the store's among them, would mean another folder each time.
    """
    if config.hydra.job.chdir:
        line = "hydra.job.chdir=true: relative paths, the store's too, would change with every job; take it out"
        raise SystemExit(complain(line, 2))


def finish() -> int:
    """Ends the sweep that was started, if any: lets the verb close it with what was finished, and names what failed; of
    the cells that still ran when the user stopped it, none is said to be lost. Returns the exit status."""
    stopped = sys.exc_info()[0] is KeyboardInterrupt
    sweeps, _sweeps[:] = list(_sweeps), []
    return max(
        (max(close_sweep(*one), name_failures(Path(one[0].hydra.sweep.dir), one[1], stopped)) for one in sweeps),
        default=0,
    )


def close_sweep(config: Any, earlier: Collection[Left] = ()) -> int:
    """Calls the verb's `end_sweep(config, cells, command)`, where it has one, with all cells its jobs left, without
    those an `earlier` sweep did. Returns the exit status: 0, or 1 where that failed; the cells' results are safe either
    way."""
    module = importlib.import_module(f"palp_lab.{config.hydra.job.name}")
    end_sweep = getattr(module, "end_sweep", None)
    folder = Path(config.hydra.sweep.dir)
    if end_sweep is None or not (cells := cells_of(folder, earlier)):
        return 0
    try:
        end_sweep(without_hydra(config), cells, command_of(config))
    except UserError as error:
        return complain(f"the sweep's end: {error}", 1)
    except Exception as error:
        line = f"{type(error).__name__}: {first_line(str(error))}"
        return complain(f"the sweep's end: {line} (traceback: {keep_traceback(folder)})", 1)
    return 0


def command_of(config: Any) -> str:
    """The command line that makes a sweep again, for a shell, without what only says how its jobs are launched."""
    own = [one.path for one in config.hydra.runtime.config_sources if one.provider == "command-line"]
    folders = [f"--config-dir={path}" for path in own]
    return shlex.join(["palp-lab", str(config.hydra.job.name), "-m", *folders, *config.hydra.overrides.task])


def name_failures(sweep: Path, earlier: Collection[Left] = (), stopped: bool = False) -> int:
    """Prints the failed and lost jobs of a sweep's folder. Returns the exit status: 1 where there are any."""
    lines, failed, jobs = failures(sweep, earlier, stopped)
    if lines:
        print(
            f"palp-lab: {failed} of {jobs} cells failed (under {sweep}):",
            *lines,
            sep="\n  ",
            file=sys.stderr,
            flush=True,
        )
    return int(failed > 0)


def failures(sweep: Path, earlier: Collection[Left] = (), stopped: bool = False) -> tuple[list[str], int, int]:
    """One line per job of a sweep's folder that failed or never finished, their number, and that of all jobs. Many
    that failed alike share a line, with the first of them. What was there `earlier` is another sweep's; where the user
    has `stopped` the sweep, what still ran has not failed."""
    wrong: dict[str, list[str]] = {}
    jobs = 0
    for path in sorted(sweep.glob(f"*/{STATUS}")):
        if earlier and left_by(path) in earlier:
            continue
        jobs += 1
        status = json.loads(path.read_text(encoding="utf-8"))
        if status["state"] not in ("done", "running" if stopped else ""):
            cell = " ".join(status.get("overrides", [])) or path.parent.name
            wrong.setdefault(status.get("error", "lost: its process ended without a word"), []).append(cell)
    lines = []
    for why, cells in wrong.items():
        named = cells if len(cells) < ALIKE else [f"{len(cells)} cells, the first of them {cells[0]}"]
        lines += [f"{cell}: {why}" for cell in named]
    return lines, sum(map(len, wrong.values())), jobs

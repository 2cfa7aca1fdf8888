"""One verb under Hydra: errors become one line and an exit status, and a sweep outlives a failing cell."""

from __future__ import annotations

import functools
import importlib
import json
import logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.build import check_aliases, check_rates
from palp_lab.cli_errors import explain, first_line, nearest
from palp_lab.composition import (
    conf_folder,
    expand_home,
    fill_labels,
    options_apart,
    output_of,
    own_folders,
    refuse_hidden,
    register_resolvers,
    say_changed,
    say_drawn,
    say_untuned,
)
from palp_lab.study.sweeps import Job, begin
from palp_lab.types import UserError
from palp_lab.workers import own_device

if TYPE_CHECKING:
    from omegaconf import DictConfig

STATUS = "status.json"
"""Left in every job's folder: running, done or failed. A job that is still running when its sweep is over was lost."""

ONE_CHOICE = " )"
"""How a choice of one ends, so that it is known again."""

logger = logging.getLogger(__name__)

register_resolvers()


def launch(verb: str, arguments: list[str]) -> int:
    """Composes and runs a verb as Hydra does, with `arguments` after it. Returns the exit status."""
    import hydra
    from hydra.errors import ConfigCompositionException

    from palp_lab.trusted import hydra_options, trusted_hydra
    from palp_lab.verdict import finish

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would have printed
    task = functools.partial(job, verb)
    task.__module__ = __name__  # type: ignore[attr-defined]
    # argparse cannot take an option between two overrides; people write it there
    before, (flags, words) = sys.argv, options_apart(arguments)
    program = hydra.main(config_path=str(conf_folder()), config_name=verb, **hydra_options(hydra.main))
    try:
        refuse_missing(arguments)
        refuse_hidden(own_folders(arguments))
        sys.argv = [before[0], *flags, *words]
        while True:
            try:
                with trusted_hydra():
                    program(task)()
                break
            except ConfigCompositionException as error:
                if not (left := left_to_cells(error, words) if {"-m", "--multirun"} & set(flags) else None):
                    raise
                sys.argv, words = [before[0], *flags, *left], left
    except SystemExit as stop:
        return max(stop.code if isinstance(stop.code, int) else int(stop.code is not None), finish())
    except KeyboardInterrupt:
        complain(stopped(verb, arguments), 130)
        finish()
        return 130
    except UserError as error:
        return complain(str(error), 2)
    except Exception as error:
        line = explain(error, verb, arguments)
        if line is not None:
            return complain(line, 2)
        output = output_of(arguments)
        if isinstance(error, OSError) and str(error.filename or "").startswith(str(output)):
            return complain(
                f"output={output}: cannot be written to ({error.strerror}: {error.filename}); give output=<folder>, or "
                "set PALP_LAB_OUTPUT",
                2,
            )
        complain(f"{_summary(error)} (traceback: {keep_traceback(output / 'logs')})", 1)
        finish()
        return 1
    finally:
        sys.argv = before
    return 0


OPTIONAL = ("study", "debug", "tuning")
"""Groups that the configuration marks as optional, so that Hydra passes over a choice of them that there is not."""


def refuse_missing(words: list[str]) -> None:
    """Raises UserError for a choice of an optional group that no folder of configurations has."""
    if any(word.startswith("hydra.searchpath=") for word in words):
        return
    folders = [conf_folder(), *own_folders(words)]
    for word in words:
        group, equals, choices = word.lstrip("+~").partition("=")
        if group not in OPTIONAL or not equals or "(" in choices:  # choice(...), glob(...): Hydra's own
            continue
        known = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
        for choice in choices.split(","):
            if choice not in ("", "null") and not any((f / group / f"{choice}.yaml").is_file() for f in folders):
                raise UserError(f"{group}={choice}: no such choice{nearest(choice, known)}")


TRAINED = {"run": None, "train": None, "pretrain": None, "generate": "adapters", "score": "images", "export": "adapter"}
"""The verbs that train, and the key with which one does not, since it is given what was made before."""


def stopped(verb: str, words: Iterable[str]) -> str:
    """What is said after Ctrl-C."""
    given = {word.partition("=")[0] for word in words}
    trains = verb in TRAINED and TRAINED[verb] not in given
    return "stopped; the same command goes on from the last checkpoint" if trains else "stopped"


def left_to_cells(error: Exception, words: list[str]) -> list[str] | None:
    """The command line with a key that the sweep's defaults do not have as a choice of one, which only cells read: some
    of them may have it. None where the error is another one, or the key is Hydra's own."""
    wrong = re.search(r"Could not override '((?!hydra\.)[^']+)'", str(error))
    line = next((word for word in words if wrong and word.startswith(f"{wrong.group(1)}=")), None)
    if line is None or line.endswith(ONE_CHOICE):
        return None
    key, _, value = line.partition("=")
    return [f"{key}=choice({value}{ONE_CHOICE}" if word == line else word for word in words]


def complain(line: str, status: int) -> int:
    """Prints one line on stderr and hands the exit status back."""
    print(f"palp-lab: {' '.join(line.split())}", file=sys.stderr, flush=True)
    return status


def job(verb: str, config: DictConfig) -> Any:
    """One job: checks the configuration, calls `palp_lab.<verb>.<verb>(config)`, and leaves its status in its folder.

    In a sweep a failure is kept for the end and (nan, nan) stands for the cell's values; alone, and with `fail_fast`,
    it ends the program.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    about = HydraConfig.get()
    fill_labels(config, about.runtime.choices)
    swept = about.mode == RunMode.MULTIRUN
    if swept and "joblib" in str(about.launcher.get("_target_")):
        own_device(int(about.job.num))
    folders = [source.path for source in about.runtime.config_sources if source.schema == "file"]
    name = about.runtime.choices.get("study")
    study = keys_of_study(folders, name)
    if verb == "run" and not swept and about.sweeper.get("params"):
        logger.info("study=%s: one of its cells; -m runs them all", name)
    own = tuple(about.sweeper.get("params") or ()) if swept else ()
    return attempt(verb, config, list(about.overrides.task), Path(about.runtime.output_dir), swept, study, own)


PARTS = ("tokens", "edits", "losses", "optimizer")
"""Groups whose keys in a study's file tell its cells from those of other studies, as if they were given by hand."""


def keys_of_study(folders: Iterable[str], study: str | None) -> tuple[str, ...]:
    """The dotted keys of `PARTS` that the file of a study sets; none where there is no such file."""
    from omegaconf import OmegaConf

    def leaves(node: Any, key: str) -> Iterator[str]:
        if not isinstance(node, dict):
            yield key
            return
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}")

    path = next((file for folder in folders if (file := Path(folder) / "study" / f"{study}.yaml").is_file()), None)
    if study is None or path is None:
        return ()
    node = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(node, dict)
    return tuple(key for part in PARTS if part in node for key in leaves(node[part], part))


def attempt(
    verb: str,
    config: DictConfig,
    overrides: list[str],
    folder: Path,
    swept: bool,
    study: tuple[str, ...] = (),
    studied: tuple[str, ...] = (),
) -> Any:
    """What a job does, whoever composed it: `folder` is its own, `overrides` what its command line says, `study` the
    keys of parts that its study sets, `studied` those its study sweeps."""
    leave_status(folder, "running", overrides=overrides)
    begin(Job(folder, dict(word.lstrip("+~").partition("=")[::2] for word in overrides), swept, study))
    try:
        value = _call(verb, config, overrides, swept, studied)
    except UserError as error:
        line, status = str(error), 2
    except SystemExit as stop:
        if not stop.code:
            leave_status(folder, "done", overrides=overrides)
            return None
        line, status = f"{verb} ended with status {stop.code}", stop.code if isinstance(stop.code, int) else 1
        if not swept:
            leave_status(folder, "failed", overrides=overrides, error=line)
            raise
    except Exception as error:
        line, status = f"{_summary(error)} (traceback: {keep_traceback(folder)})", 1
    else:
        leave_status(folder, "done", overrides=overrides)
        return value
    leave_status(folder, "failed", overrides=overrides, error=line)
    complain(f"{' '.join(overrides)}: {line}" if swept else line, status)
    if not swept or config.get("fail_fast"):
        raise SystemExit(status)
    return float("nan"), float("nan")


def _call(verb: str, config: DictConfig, overrides: list[str], swept: bool, studied: tuple[str, ...] = ()) -> Any:
    from palp_lab.schema import check, drop_strangers

    if swept and config.trainer.devices != 1:
        raise UserError(
            f"trainer.devices={config.trainer.devices} cannot be swept with -m: every rank would sweep again; "
            "take trainer.devices=1 and hydra/launcher=joblib or submitit_slurm, or one command per cell"
        )
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # of the `srun` that has started this process
    if tasks > 1 and config.get("trainer") and config.trainer.devices != 1:
        raise UserError(
            f"trainer.devices={config.trainer.devices}: srun has started this command {tasks} times, and each would "
            f"start its further processes itself; take --ntasks=1 --gpus-per-task={config.trainer.devices}"
        )
    if config.get("dry_run") and verb != "run":
        raise UserError(f"dry_run=true: {verb} has no plan to show; palp-lab run dry_run=true lists what is to be done")
    if config.get("targets_file") and verb not in ("run", "train"):
        raise UserError(
            f"targets_file={config.targets_file}: {verb} takes one target; give target=..., or sweep it with -m"
        )
    if verb != "doctor":
        drop_strangers(config, overrides)
        check_aliases(config, overrides)
        check_rates(config, overrides, studied)
    check(config, constructors=verb != "doctor", trusting=True)
    expand_home(config)
    if verb in ("run", "train"):
        say_untuned(config)
        say_changed(config, overrides)
    if verb in ("run", "train", "score", "generate"):
        say_drawn(config, overrides)
    if verb != "doctor":
        import torch

        if int(config.threads) < 1:
            raise UserError(f"threads={config.threads}: give 1 or more")
        torch.set_num_threads(config.threads)
    return getattr(importlib.import_module(f"palp_lab.{verb}"), verb)(config)


def leave_status(folder: Path, state: str, **more: Any) -> None:
    """Writes the status file of a job whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"{STATUS}.{os.getpid()}"
    beside.write_text(json.dumps({"state": state, **more}, indent=1), encoding="utf-8")
    beside.replace(folder / STATUS)


def keep_traceback(folder: Path) -> Path:
    """Writes the traceback of the exception being handled into a folder, or where that cannot be written into one of
    the system's, and returns the file."""
    name = f"error-{datetime.now():%Y%m%d-%H%M%S-%f}.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="palp_lab-"))
        (folder / name).write_text(traceback.format_exc(), encoding="utf-8")
    return folder / name


def _summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(str(error)) or 'no message'}"

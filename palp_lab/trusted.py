"""What Hydra's own node may name: a study's file can write there, and Hydra would run it before our code is asked."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra._internal import hydra as program
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from palp_lab.build import allowed, locate
from palp_lab.composition import version_options
from palp_lab.types import UserError

HYDRAS_OWN = ("hydra.*", "hydra_plugins.*", "logging.*")
"""What Hydra's own configuration names: launchers, sweepers, log handlers."""

PLUGINS = re.compile(
    r"(hydra\._internal\.core_plugins|hydra_plugins)(\.\w+)+(Launcher|Sweeper)"
    r"|hydra\.experimental\.callbacks\.(LogJobReturn|PickleJobInfo)Callback"
)

LOG_PARTS = re.compile(
    r"logging\.\w*(Handler|Formatter|Filter)|logging\.handlers\.\w*FileHandler|colorlog\.ColoredFormatter"
)

LOGGING = ("hydra.job_logging", "hydra.hydra_logging")

CALLED_BY_LOGGING = ("()", "class", "queue", "listener")

LOG_TEXTS = {"version", "level", "filename", "format", "datefmt", "propagate", "disable_existing_loggers"}
"""Keys of logging that are no node, whatever they come to be."""

WIDENS = "PALP_LAB_TARGETS"


def hydra_options(entry: Callable[..., Any]) -> dict[str, Any]:
    """What each line of Hydra wants to be told: 1.3 the behaviour to keep, 1.4 what a configuration may run."""
    options = version_options(entry)
    if "execution_whitelist" in inspect.signature(entry).parameters:
        options["execution_whitelist"] = [*(f"{prefix}*" for prefix in allowed()), *HYDRAS_OWN]
    return options


class TrustedLoader(ConfigLoaderImpl):
    """Hydra's loader, which hands out no configuration whose own node of Hydra's names what may not be run. It goes to
    the worker processes of a launcher as well. Final."""

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Hydra's, checked. Cells of a sweep are composed by it too."""
        config = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        check_hydra(config)
        return config


@contextmanager
def trusted_hydra() -> Iterator[None]:
    """Inside, Hydra's program composes with `TrustedLoader`: what is checked is what is run, and is composed once."""
    before = program.ConfigLoaderImpl  # type: ignore[attr-defined]
    program.ConfigLoaderImpl = TrustedLoader  # type: ignore[attr-defined]
    try:
        yield
    finally:
        program.ConfigLoaderImpl = before  # type: ignore[attr-defined]


def check_hydra(config: DictConfig) -> None:
    """Raises UserError for a target below `hydra` that is neither Hydra's, ours nor allowed; names key and target."""
    _walk(config, "hydra", "hydra")


def _walk(parent: DictConfig | ListConfig, name: Any, key: str) -> None:
    node: Any = parent._get_node(name)
    if node is None or node._is_none() or node._is_missing():
        return
    logs = key.startswith(LOGGING)
    called = name == "_target_" or (logs and name in CALLED_BY_LOGGING)
    if node._is_interpolation():
        written = str(node._value())
        whole = re.fullmatch(r"\$\{.*\}", written, re.DOTALL) is not None
        if called or (whole and name not in LOG_TEXTS and (logs or key in ("hydra", "hydra.job.env_set"))):
            raise UserError(f"{key}={written}: what Hydra runs must be written out; put the value there")
        try:
            node = node._dereference_node()
        except OmegaConfBaseException:  # of the job's time, as its folder is: Hydra says so where it is needed
            return
    value = node._value()
    if isinstance(node, DictConfig | ListConfig) and isinstance(value, dict | list):
        for inner in list(node) if isinstance(node, DictConfig) else range(len(node)):
            _walk(node, inner, f"{key}.{inner}")
    elif key == f"hydra.job.env_set.{WIDENS}":
        raise UserError(f"{key}: a configuration cannot widen what may be built; set {WIDENS} in the environment")
    elif called and isinstance(value, str):
        _check(value, key, logs)
    elif logs and re.match(r"ext://(?!sys\.std(err|out|in)$)", str(value)):
        raise UserError(f"{key}={value}: a log takes ext://sys.stderr or ext://sys.stdout")
    elif called:
        raise UserError(f"{key}={value}: must be the dotted name of a class")


def _check(target: str, key: str, logs: bool) -> None:
    if (LOG_PARTS if logs else PLUGINS).fullmatch(target):
        return
    if not target.startswith(allowed()):
        whose = "the log handlers and formatters" if logs else "the launchers and sweepers"
        raise UserError(
            f"{key}={target}: of Hydra's own only {whose}, and {', '.join(p + '*' for p in allowed())}, may be run; "
            f"where it is a package of your own set {WIDENS}={target.split('.')[0]}"
        )
    if not logs:
        locate(target, key.removesuffix("._target_"))

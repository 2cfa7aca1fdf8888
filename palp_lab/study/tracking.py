"""The run of a cell in Weights & Biases. Files are the truth; what is sent there can be sent again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palp_lab.types import UserError

STEP = "trainer/global_step"
"""The one step axis of everything that is logged, as Lightning names it."""


@dataclass(frozen=True)
class Project:
    """Where runs go: conf/logger/wandb.yaml."""

    project: str
    entity: str | None = None
    mode: str = "online"
    group: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in ("online", "offline", "disabled"):
            raise UserError(f"logger.mode={self.mode}: must be online, offline or disabled")


def run_id(*parts: str) -> str:
    """The id of a run: the same cell of the same study is the same run, on every machine and after every restart."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def mode_of(project: Project) -> str:
    """online, offline or disabled; `WANDB_MODE` in the environment wins."""
    return os.environ.get("WANDB_MODE") or project.mode


@contextmanager
def open_run(
    project: Project, id: str, name: str, job_type: str, config: Mapping[str, Any], folder: Path
) -> Iterator[Any]:
    """A run that is finished whatever happens inside the block, so that the next of this process is a run of its own.

    `config` is plain data. `WANDB_MODE` in the environment wins over `project.mode`. Raises UserError where W&B cannot
    be reached or does not know the user.
    """
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    if wandb.run is not None:
        wandb.finish()
    try:
        run = wandb.init(
            project=project.project, entity=project.entity, group=project.group, tags=list(project.tags),
            id=id, name=name, job_type=job_type, config=dict(config), dir=str(folder), resume="allow",
            mode=mode_of(project),  # type: ignore[arg-type]
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
        )  # fmt: skip
    except (wandb.errors.UsageError, wandb.errors.CommError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"logger=wandb: {first}; run `wandb login`, or add logger.mode=offline") from error
    status = 1
    try:
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        yield run
        status = 0
    finally:
        run.finish(exit_code=status)


def send_pictures(run: Any, rows: Sequence[Mapping[str, Any]], limit: int = 64) -> None:
    """Pictures of a cell as a table, one row each, and the first `limit` as panels with prompt and seed as caption.

    A row holds `image` (a path) and scalars: step, prompt, seed and what was measured on this picture. Pictures inside
    a table do not survive offline syncing everywhere, hence the panels. `limit` is ours.
    """
    import wandb

    if not rows:
        return
    columns: list[Any] = list(dict.fromkeys(name for row in rows for name in row if name != "image"))
    table = wandb.Table(columns=["image", *columns])
    for row in rows:
        table.add_data(wandb.Image(str(row["image"])), *(row.get(name) for name in columns))
    panels: list[Any] = [
        wandb.Image(str(row["image"]), caption=f"{row.get('prompt')} (seed {row.get('seed')})") for row in rows[:limit]
    ]
    run.log({"pictures": table, "samples": panels, STEP: max(int(row.get("step") or 0) for row in rows)})


def send_files(run: Any, sizes: Mapping[str, int]) -> None:
    """A table of files by name, with their bytes."""
    import wandb

    run.log({"files": wandb.Table(columns=["file", "bytes"], data=[[name, size] for name, size in sizes.items()])})


def send_summary(run: Any, values: Mapping[str, float | None]) -> None:
    """Final numbers of a run; what was not measured is left out."""
    for name, value in values.items():
        if value is not None:
            run.summary[name] = value


def project_of(logger: Any) -> Project:
    """The project a logger's configuration names."""
    return Project(logger.project, logger.entity, logger.mode, logger.group, tuple(logger.tags))

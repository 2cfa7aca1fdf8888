"""What the verbs send to Weights & Biases where logger=wandb: one run a cell or a folder, job_type is the verb.

A run is None where nothing is tracked; what sends to it then does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from palp_lab.cell import Cell
    from palp_lab.study.result import Result
    from palp_lab.study.store import Stage

logger = logging.getLogger(__name__)

NAN = float("nan")


@contextmanager
def tracked_cell(cell: Cell) -> Iterator[Any]:
    """The cell's run where logger=wandb, else None."""
    from palp_lab.result_folder import result_folder

    folder = result_folder(cell)
    with tracked(cell.config, [cell.run], folder.name, cell.plain, folder) as run:
        yield run


@contextmanager
def tracked(
    config: DictConfig, parts: Sequence[str], name: str, about: Mapping[str, Any], folder: Path | None = None
) -> Iterator[Any]:
    """A run of the configured verb where logger=wandb; None elsewhere, in a further process of a distributed training,
    and where all of it has been sent before.

    Args:
        config: names verb, study and logger.
        parts: what the run is of, e.g. hashes; with study and verb they decide its id, so that the same work sent twice
            is one run.
        name: what people see.
        about: plain data, the run's configuration.
        folder: where W&B writes; None: the study's folder, never one that holds pictures for others to read.
    """
    from palp_lab.training import is_further_rank

    if config.logger.name != "wandb" or is_further_rank():
        yield None
        return
    from palp_lab.result_folder import study_folder
    from palp_lab.study.tracking import mode_of, open_run, project_of, run_id
    from palp_lab.study.writing import write_text

    verb, project, folder = str(config.verb), project_of(config.logger), folder or study_folder(config)
    id = run_id(str(config.study_name), verb, *parts)
    where = run_id(str(project.entity), project.project, mode_of(project))  # another project has none of it yet
    sent = folder / "wandb" / f"{id}.{where[:8]}.sent"
    if sent.exists():
        logger.info("Weights & Biases has %s already; delete %s to send it again", name, sent)
        yield None
        return
    with open_run(project, id, name, verb, about, folder) as run:
        yield run
    write_text(sent, f"{mode_of(project)}: {project.entity or ''}/{project.project}/{id}\n")


def train_tracked(cell: Cell, run: Any) -> Stage:
    """The cell's training, every number of it sent as it is made, or afterwards where it was finished before."""
    from palp_lab.engine.callbacks import read_log
    from palp_lab.engine.loggers import build_loggers
    from palp_lab.result_folder import result_folder
    from palp_lab.study.tracking import STEP

    board = None
    if cell.config.logger.name == "tensorboard":
        board = Path(str(cell.config.logger.folder)) / result_folder(cell).name
    fresh = board is None or not board.exists()
    loggers = build_loggers(run, board)
    training = cell.train(loggers)
    for row in read_log(training.folder / "log.csv") if training.cached else []:
        step = int(row["step"])
        numbers = {name: float(text) for name, text in row.items() if text and name != "step"}
        if run is not None:
            run.log({**numbers, STEP: step})
        elif fresh:
            for one in loggers:
                one.log_metrics(numbers, step=step)
    for one in loggers if board is not None else []:
        one.finalize("success")
    return training


def send_result(run: Any, result: Result, folder: Path) -> None:
    """A result's pictures with what was measured on each, and its final numbers. `folder` holds the pictures."""
    from palp_lab.study.tracking import send_pictures, send_summary

    if run is None:
        return
    last = max(record.step for record in result.records)
    rows: list[dict[str, Any]] = []
    for record in result.records:
        if record.step != last:
            continue
        for i, (image, seed) in enumerate(zip(record.images, record.picture_seeds, strict=True)):
            each = {name: m.per_image[i] for name, m in record.metrics.items() if m.per_image and len(m.per_image) > i}
            rows.append({"image": folder / image, "step": last, "prompt": record.prompt, "seed": seed, **each})
    send_pictures(run, rows)
    text, likeness = objectives(result)
    send_summary(run, {"text_alignment": text, "identity": likeness, "seconds": result.cost.seconds})


def send_drawn(run: Any, paths: Iterable[Path], step: int = 0) -> None:
    """Pictures that palp-lab drew, each with its prompt, its seed and how it was drawn."""
    from palp_lab.pictures import read_picture
    from palp_lab.study.tracking import send_pictures

    if run is None:
        return
    drawn = [(path, read_picture(path)) for path in paths]
    send_pictures(
        run, [{"image": path, "step": step, "prompt": p.prompt, "seed": p.seed, **p.knobs} for path, p in drawn]
    )


def send_files(run: Any, paths: Iterable[Path]) -> None:
    """Names and sizes of exported files or folders. Weights stay on the disk, here as in training."""
    from palp_lab.study.tracking import send_files as send
    from palp_lab.study.tracking import send_summary

    if run is None:
        return
    sizes = {path.name: _bytes(path) for path in paths}
    send(run, sizes)
    send_summary(run, {"bytes": float(sum(sizes.values()))})


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)


def objectives(result: Result) -> tuple[float, float]:
    """Text alignment and identity (image alignment where identity is not measured), means over the prompts with the
    concept at the last step; NaN where neither is measured."""
    last = max((record.step for record in result.records), default=0)
    records = [record for record in result.records if record.step == last]

    def mean(*names: str) -> float:
        for name in names:
            found = [r.metrics[name].value for r in records if name in r.metrics]
            values = [value for value in found if value is not None]
            if values:
                return sum(values) / len(values)
        return NAN

    return mean("text_alignment"), mean("identity", "image_alignment")

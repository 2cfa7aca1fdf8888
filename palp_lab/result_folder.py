"""A finished cell as a folder people open: result.json, adapter/, images/, bounds/, strip/, config.yaml, log.csv."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from palp_lab.cell import adapter_file
from palp_lab.keys import UNREAD, cell_name, versions
from palp_lab.study.result import Cost, Result, save_result
from palp_lab.study.result import Protocol as ProtocolEntry
from palp_lab.study.store import digest
from palp_lab.study.sweeps import current
from palp_lab.study.writing import write_text

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from palp_lab.cell import Cell
    from palp_lab.study.fields import Scalar
    from palp_lab.study.store import Stage

RESULT = "result.json"


def result_folder(cell: Cell) -> Path:
    """Where a cell's result lies: below the output, under a name that a person can read."""
    config = cell.config
    name = cell_name(dict(config.labels), cell.concept.name, int(config.seed), cell.target, cell.run)
    return study_folder(config) / "cells" / name


def study_folder(config: DictConfig) -> Path:
    """Where a study's report lies, and its cells below."""
    return Path(config.output) / str(config.study_name)


def publish(cell: Cell, training: Stage) -> Result:
    """Writes the folder of a cell and returns its result. Files are links into the store where the file system can;
    `result.json` is written last, so a folder that has one is whole."""
    from omegaconf import OmegaConf

    folder = result_folder(cell)
    records = tuple(record for step in cell.steps for record in cell.scores(step))
    stage, bounds = cell.bounds()
    for step in cell.steps:
        name = f"step_{step:06d}"
        link(adapter_file(training.folder, step), folder / "adapter" / f"{name}.safetensors")
        link_all(cell.pictures(step).folder, folder / "images" / name)
    link(adapter_file(training.folder, cell.steps[-1]), folder / "adapter" / "adapter.safetensors")
    publish_strip(cell, folder / "strip")
    link_all(stage.folder / "bounds", folder / "bounds")
    # A copy: people open it in programs that write in place, and the store's own must stay what it is.
    write_text(folder / "log.csv", (training.folder / "log.csv").read_text(encoding="utf-8"))
    if (training.folder / "gallery").is_dir():
        link_all(training.folder / "gallery", folder / "gallery")
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cell.config, resolve=True))
    cost = training.about["cost"]
    result = Result(
        run=cell.run,
        axes=axes(cell),
        records=records,
        bounds=bounds,
        protocol=ProtocolEntry(**cell.protocol_words),
        cost=Cost(**{key: cost.get(key) for key in Cost.__dataclass_fields__}),
        versions={**versions(), "device": cell.machine["device"], "threads": cell.machine["threads"]},
        training_log={"csv": "log.csv"},
        data={
            **cell.concept.record(),
            "text": cell.model.record(cell.concept.superclass),
            "hashes": {
                "model": cell.model.fingerprint,
                "photos": cell.concept.digest,
                "held_out": cell.concept.held_out_digest,
                "words": digest([cell.concept.clean("{}"), cell.concept.described("a {}")])[:16],
            },
        },
        folder=folder,
    )
    save_result(result, folder / RESULT)
    return result


def axes(cell: Cell) -> dict[str, Scalar]:
    """What a result is filed under: the labels, the concept, the seeds, and whatever else was overridden by hand."""
    config = cell.config
    found: dict[str, Scalar] = {
        "method": config.labels.method,
        "dataset": config.labels.dataset,
        "concept": cell.concept.name,
        "model": config.labels.model,
        "train_seed": int(config.seed),
        "target": cell.target,
        "study": str(config.study_name),
        "max_steps": int(config.trainer.max_steps),
        "batch_size": int(config.trainer.batch_size),
        "shots": len(cell.concept.photos),
    }
    return found | overridden(cell)


def overridden(cell: Cell) -> dict[str, Scalar]:
    """What the command line or the study's file set: dotted keys (`losses.prompt_alignment.weight`) with their values
    now, and parts that were replaced (`losses`) with their names."""
    from omegaconf import OmegaConf

    job = current()
    found: dict[str, Scalar] = {}
    said = {**dict.fromkeys(job.study, ""), **job.overrides} if job else {}
    for key, text in said.items():
        root, _, rest = key.partition(".")
        if root not in FILED or rest in UNREAD.get(root, ()) or key in NAMED:
            continue
        value = OmegaConf.select(cell.config, key, default=_ABSENT) if rest else text
        if isinstance(value, (str, int, float, bool)):
            found[key] = value
        elif value is not _ABSENT:  # a list, or null: as one would write it, so that such cells are told apart as well
            plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            found[key] = json.dumps(plain, separators=(",", ":")).replace('"', "")
    return found


_ABSENT = object()
"""What a key that this cell's recipe does not have is."""


FILED = {
    "tokens", "edits", "losses", "optimizer", "trainer", "augment", "generate", "dataset", "captions", "stages",
    "model", "dtype",
}  # fmt: skip
"""Keys and groups under which a result is filed where they were overridden: what may be varied beside the axes."""

NAMED = {"dataset", "model", "dataset.superclass", "dataset.seed", "dataset.shots", "dataset.subject"}
"""Overridden keys that the axes name already."""


def link(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`, or a copy of it on another file system."""
    if target.exists() and os.path.samefile(source, target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        os.link(source, part)
    except OSError:
        shutil.copyfile(source, part)
    os.replace(part, target)
    part.unlink(missing_ok=True)  # replacing a file by another name of itself leaves both


def link_all(source: Path, target: Path, rename: str | None = None) -> None:
    """Links every picture below a folder; with `rename`, the one picture there under that name."""
    for path in sorted(source.rglob("*.png")):
        name = Path(f"{rename}.png") if rename else path.relative_to(source)
        link(path, target / name)


def publish_strip(cell: Cell, folder: Path) -> None:
    """The one-step estimates of the base and of every step, and `strip.json`, which says what they are.

    A method without a target is probed once per target of a sweep; the first sentence in the alphabet stays, as the
    methods with a target are listed.
    """
    about = folder / "strip.json"
    if about.exists() and json.loads(about.read_text(encoding="utf-8")).get("sentence", "") < cell.probe:
        return
    pictures = {"base": {0: "base.png"}, str(cell.config.labels.method): {}}
    link_all(cell.estimates("class_word").folder, folder, "base")
    for step in cell.steps:
        link_all(cell.estimates(step).folder, folder, f"step_{step:06d}")
        pictures[str(cell.config.labels.method)][step] = f"step_{step:06d}.png"
    where = "" if cell.config.strip.t == 1 else f", read {1 - float(cell.config.strip.t):.0%} of the way down from it"
    caption = f"One-step estimate of the clean picture from the same pure noise{where}, prompted “{cell.probe}”"
    write_text(about, json.dumps({"caption": caption, "sentence": cell.probe, "pictures": pictures}, indent=1) + "\n")

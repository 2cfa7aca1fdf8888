"""What a run would need before it is run: stages that are there, hours, gigabytes."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from palp_lab.build import build
from palp_lab.keys import digest
from palp_lab.model import synchronize

if TYPE_CHECKING:
    from palp_lab.adapter import Adapter
    from palp_lab.cell import Cell

PICTURE_BYTES = 1.5
"""Bytes of a PNG per pixel (ours; three channels, which compress to about half)."""
PASSES = {"subject": 3.0, "judge": 4.0}
"""Cost of a training row in passes of the denoiser without a graph: forward and backward count as three; a loss with
judges adds four, two judges under two prompts each (ours, from counting)."""
COUNTED_FROM = 5e8
"""Bytes of weights from which the memory of a step is counted (ours: it takes 5 to 15 seconds, and any machine has what
a smaller model needs)."""
SECONDS_PER_SCORE = 0.05
"""Per scored picture (ours; a tiny CLIP, an identity encoder and a reader on one core)."""

COUNTED = (
    "{}: all tensors at the peak of a training step or a batch of pictures, counted from their shapes; scorers, and "
    "what torch and the device take for themselves, come on top"
)
AT_LEAST = (
    "at least {}: all weights, and gradients and moments of what is trained; the activations of a step come on top and "
    "are not counted"
)

NAMED = ("method", "concept", "train_seed", "target", "study")
"""Axes that the line of every cell names, or no cell differs in."""

_pass_seconds: dict[str, float] = {}
_adapter_bytes: dict[str, int] = {}
_step_bytes: dict[str, int | None] = {}
_measured: dict[Path, list[tuple[Mapping[str, Any], float, int]]] = {}
"""What the cells of a sweep share is found out once: a plan of hundreds of cells takes seconds."""


def plan_cell(cell: Cell, known: bool = False) -> dict[str, Any]:
    """A cell as plain data: its hash, its labels, and every stage with whether it is there, seconds and bytes. A cell
    that is `known` to the study's ledger needs none."""
    from palp_lab.result_folder import axes as axes_of

    drawn: list[int | str] = [*cell.steps, *cell.fills]
    stages: list[tuple[str, int | str]] = [("train", 0), *(("pictures", one) for one in drawn)]
    stages += [("scores", step) for step in cell.steps] + [("bounds", 0)]
    rows = []
    for kind, step in [] if known else stages:
        inputs = cell.stage_inputs(kind, step)
        there = cell.store.find(kind, inputs, thorough=False) is not None
        seconds, size = (0.0, 0) if there else estimate(cell, kind, step)
        if kind == "train" and not there and (drawn_first := class_stage(cell)):
            rows.append(drawn_first)
        rows.append({"kind": kind, "key": digest(inputs), "there": there, "seconds": seconds, "bytes": size})
    labels = {"method": cell.config.labels.method, "concept": cell.concept.name, "seed": int(cell.config.seed)}
    axes = {axis: value for axis, value in axes_of(cell).items() if axis not in NAMED}
    missing = {str(row["kind"]) for row in rows if not row["there"]}
    memory, counted = memory_of(cell, missing)
    about = {"run": cell.run, **labels, "target": cell.target, "axes": axes}
    return {**about, "stages": rows, "memory": memory, "counted": counted}


def print_plan(cells: Iterable[Mapping[str, Any]]) -> None:
    """One line per cell, with the axes its cells differ in, and the sums; a stage that cells share counts once."""
    counted: set[str] = set()
    seconds, size, missing = 0.0, 0, 0
    listed = list(cells)
    every = dict.fromkeys(axis for cell in listed for axis in cell["axes"])
    axes = [axis for axis in every if "." not in axis or axis.rpartition(".")[2] not in every]  # not one axis twice
    varied = [axis for axis in axes if len({str(cell["axes"].get(axis)) for cell in listed}) > 1]
    for cell in listed:
        todo = [stage for stage in cell["stages"] if not stage["there"]]
        fresh = [stage for stage in todo if stage["key"] not in counted]
        counted.update(stage["key"] for stage in fresh)
        own = sum(stage["seconds"] for stage in fresh)
        seconds, size = seconds + own, size + sum(stage["bytes"] for stage in fresh)
        missing += bool(todo)
        state = "finished" if not todo else ", ".join(dict.fromkeys(stage["kind"] for stage in todo)) + " to do"
        words = [cell["run"][:8], str(cell["method"]), cell["concept"], f"seed {cell['seed']}", cell["target"] or ""]
        words += [f"{axis}={cell['axes'][axis]}" for axis in varied if axis in cell["axes"]]
        print("  ".join(word for word in words if word) + f"  {state}  ({duration(own)})")
    print(
        f"{len(listed)} cells, {missing} to do: about {duration(seconds)} of one process and {size / 1e9:.2f} GB; "
        "training from what earlier ones took where there are any like it, else from one timed pass of the model"
    )
    largest = max(listed, key=lambda cell: cell["memory"], default={"memory": 0})
    if largest["memory"]:
        needed = f"{largest['memory'] / 1e9:.2f} GB of memory for the largest"
        all_counted = all(cell["counted"] for cell in listed if cell["memory"])
        print(COUNTED.format(needed) if all_counted else AT_LEAST.format(needed))


def duration(seconds: float) -> str:
    """A time a person can plan with."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def estimate(cell: Cell, kind: str, step: int | str) -> tuple[float, int]:
    """Seconds and bytes of a missing stage."""
    how, side = cell.config.generate, cell.model.resolution
    if kind == "train":
        return training_seconds(cell), adapter_bytes(cell) * len(cell.steps)
    texts = len(cell.sentences) + len(cell.drift)
    count = texts * len(cell.seeds)
    if kind == "pictures":
        rows = 1 if how.guidance == 1 else 2
        return count * (int(how.steps) * rows + 1) * pass_seconds(cell), int(count * side * side * PICTURE_BYTES)
    return count * SECONDS_PER_SCORE, count * 1000


def training_seconds(cell: Cell) -> float:
    """From the median of like trainings in the store: same model, machine, losses, batch; scaled to the steps."""
    how = cell.config.trainer
    mine = _kind_of_training(cell.stage_inputs("train"))
    rates = sorted(
        seconds / inputs["config"]["trainer"]["max_steps"]
        for inputs, seconds, _ in _trainings(cell)
        if _kind_of_training(inputs) == mine
    )
    if rates:
        return rates[len(rates) // 2] * int(how.max_steps)
    passes = PASSES["subject"] * len({role for loss in cell.losses.values() for role in loss.reads})
    passes += PASSES["judge"] * sum(loss.judged and loss.weight != 0 for loss in cell.losses.values())
    return int(how.max_steps) * int(how.batch_size) * passes * pass_seconds(cell)


def class_stage(cell: Cell) -> dict[str, Any] | None:
    """The class pictures that the base model draws before a training, as a stage that cells share; None where there is
    nothing to draw."""
    from palp_lab.engine.prior import GUIDANCE, STEPS, asking, class_file, draws

    if not draws(cell.losses):
        return None
    path = class_file(cell.model, cell.concept, cell.losses, cell.store.root / "class_pictures")
    if path.is_file():
        return None
    count, rows = int(asking(cell.losses).count), 1 if GUIDANCE == 1 else 2
    size = count * 3 * 4 * cell.model.resolution**2  # kept as float32
    seconds = count * (STEPS * rows + 1) * pass_seconds(cell)
    return {"kind": "class pictures", "key": path.stem, "there": False, "seconds": seconds, "bytes": size}


def _trainings(cell: Cell) -> list[tuple[Mapping[str, Any], float, int]]:
    if cell.store.root not in _measured:
        _measured[cell.store.root] = cell.store.measured("train")
    return _measured[cell.store.root]


def _kind_of_training(inputs: Mapping[str, Any]) -> str:
    config = inputs["config"]
    shape = [inputs["model"], inputs.get("machine"), sorted(config["losses"]), config["trainer"]["batch_size"]]
    return digest({"shape": [*shape, config["edits"], config["trainer"].get("accumulate")]})


def pass_seconds(cell: Cell) -> float:
    """Seconds per row of one pass of the denoiser without a graph, timed once per process."""
    key = cell.model.fingerprint
    if key not in _pass_seconds:
        rows = 2
        x_t = torch.zeros(rows, *cell.model.latent_shape, device=cell.model.device)
        t = torch.zeros(rows, dtype=torch.long, device=cell.model.device)
        cond = cell.model.unconditional(rows)
        with torch.no_grad():
            cell.model.predict(x_t, t, cond)
            synchronize(cell.model.device)
            began = time.perf_counter()
            cell.model.predict(x_t, t, cond)
            synchronize(cell.model.device)
        _pass_seconds[key] = (time.perf_counter() - began) / rows
    return _pass_seconds[key]


def memory_of(cell: Cell, missing: Collection[str]) -> tuple[int, bool]:
    """Bytes at the peak of the missing stages that need the model, and whether activations are counted among them."""
    if not missing:
        return 0, False
    weights, took = cell.model.weight_bytes, {"train": 4 * adapter_bytes(cell), "pictures": 0}
    counted = {kind: _step_peak(cell, kind) if weights >= COUNTED_FROM else None for kind in took if kind in missing}
    least = max((took[kind] for kind in counted), default=0)
    whole = max((size or 0 for size in counted.values()), default=0)
    return weights + max(least, whole), bool(counted) and None not in counted.values()


def _step_peak(cell: Cell, kind: str) -> int | None:
    """Bytes beside the weights at the peak of a training step, or of a batch of pictures; counted once for all cells
    that train or draw alike. None where a part cannot be run through on shapes alone."""
    from palp_lab.engine.footprint import Uncounted

    drawn = [kind, cell.plain["generate"]["batch_size"], cell.plain["generate"]["guidance"]]
    learned = [cell.plain[part] for part in ("tokens", "edits", "losses", "trainer", "log")]
    key = digest([cell.model.fingerprint, str(cell.model.dtype), *(learned if kind == "train" else drawn)])
    if key not in _step_bytes:
        try:
            _step_bytes[key] = _count(cell, kind)
        except Uncounted:
            _step_bytes[key] = None
    return _step_bytes[key]


def _count(cell: Cell, kind: str) -> int:
    from palp_lab.dataset.captions import read_captions
    from palp_lab.engine.footprint import drawing_peak, training_peak
    from palp_lab.engine.prior import GUIDANCE, draws
    from palp_lab.training import read_settings

    if kind == "pictures":
        how = cell.config.generate
        return drawing_peak(cell.model, int(how.batch_size), float(how.guidance) != 1)
    with _adapter(cell) as adapter:
        captions = read_captions(cell.plain["captions"])
        peak = training_peak(adapter, cell.losses, read_settings(cell.plain), captions, cell.target)
    # Class pictures are drawn before the first step, one at once where no more fit.
    return max(peak, drawing_peak(cell.model, 1, GUIDANCE != 1)) if draws(cell.losses) else peak


@contextmanager
def _adapter(cell: Cell) -> Iterator[Adapter]:
    from palp_lab.adapter import Adapter

    tokens, edits = build(cell.config.tokens, "tokens"), build(cell.config.edits, "edits")
    adapter = Adapter(cell.model, tokens, edits, cell.concept)
    try:
        yield adapter
    finally:
        edits.detach()


def adapter_bytes(cell: Cell) -> int:
    """Size of one saved adapter: four bytes per trainable number. Counted once per model, class, tokens and edits."""
    concept = [cell.concept.superclass, cell.concept.placeholder]
    key = digest([cell.model.fingerprint, concept, cell.plain["tokens"], cell.plain["edits"]])
    if key not in _adapter_bytes:
        with _adapter(cell) as adapter:
            _adapter_bytes[key] = 4 * sum(parameter.numel() for _, parameter in adapter.parts())
    return _adapter_bytes[key]

"""The result of one trained adapter: `result.json`, schema `palp_lab.result/1` (documented in docs/result_schema.md).

A result is plain data: what was trained (axes), what was measured at which step with which prompt (records), what
trivial rivals reach under the same protocol (bounds), what it cost. Not measured is null, never NaN or a sentinel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from palp_lab.study.directions import direction_of, higher_is_better, known_metrics, register_metric
from palp_lab.study.fields import Fields, Scalar, parse, read_text
from palp_lab.study.writing import write_text

__all__ = [
    "AXES", "BOUNDS", "LEVELS", "SCHEMA", "Bound", "Cost", "MetricValue", "Protocol", "Record", "Result",
    "direction_of", "higher_is_better", "known_metrics", "load_result", "register_metric", "save_result",
]  # fmt: skip

SCHEMA = "palp_lab.result/1"
LEVELS = ("image", "pair", "set")
"""What one value of a metric looks at: one picture, two pictures, or all pictures of a record."""
BOUNDS = ("class_word", "described", "held_out_photos", "training_photos", "true_renders")
"""The trivial rivals a study draws: base with the class word or with the full description, three sets of photos."""
AXES = ("method", "dataset", "concept", "model", "train_seed")
"""Axes every result has; `target` and `study` may be null, and further keys are free."""


@dataclass(frozen=True)
class MetricValue:
    """One metric on one set of pictures: its mean `value`, the values `per_image` in the order of the pictures
    (null where the metric has none, as with pairs), and `n`, how many values the mean is over."""

    level: str
    value: float | None
    per_image: tuple[float | None, ...] | None = None
    n: int = 0

    @classmethod
    def read(cls, fields: Fields) -> MetricValue:
        fields.only(("level", "value", "per_image", "n"))
        level = fields.text("level")
        if level not in LEVELS:
            fields.fail("level", f"must be one of {', '.join(LEVELS)}, found '{level}'")
        return cls(level, fields.number_or_null("value"), fields.numbers_or_null("per_image"), fields.whole("n"))


@dataclass(frozen=True)
class Record:
    """Pictures of one prompt at one training step with one setting of the knobs, and what was measured on them.

    `prompt` and `target` are sentences with the slot {} (a prompt without the concept, for drift, has none);
    `own_target` says that the adapter was tuned for this very prompt. `images` are relative to the result's folder.
    """

    step: int
    prompt: str
    metrics: Mapping[str, MetricValue]
    prompt_group: str | None = None
    target: str | None = None
    own_target: bool = False
    knobs: Mapping[str, Scalar] = field(default_factory=dict)
    picture_seeds: tuple[int, ...] = ()
    images: tuple[str, ...] = ()

    @classmethod
    def read(cls, fields: Fields) -> Record:
        fields.only(cls.__dataclass_fields__)
        return cls(
            step=fields.whole("step"),
            prompt=fields.text("prompt"),
            metrics=_metrics(fields),
            prompt_group=fields.text_or_null("prompt_group"),
            target=fields.text_or_null("target"),
            own_target=fields.flag("own_target"),
            knobs=fields.scalars("knobs"),
            picture_seeds=fields.wholes("picture_seeds"),
            images=fields.texts("images"),
        )


@dataclass(frozen=True)
class Bound:
    """What a trivial rival reaches: a name of `BOUNDS`, the prompt it is scored against, its pictures, its metrics."""

    name: str
    prompt: str | None
    metrics: Mapping[str, MetricValue]
    images: tuple[str, ...] = ()

    @classmethod
    def read(cls, fields: Fields) -> Bound:
        fields.only(cls.__dataclass_fields__)
        name = fields.text("name")
        if name not in BOUNDS:
            fields.fail("name", f"must be one of {', '.join(BOUNDS)}, found '{name}'")
        return cls(name, fields.text_or_null("prompt"), _metrics(fields), fields.texts("images"))


@dataclass(frozen=True)
class Protocol:
    """The named, versioned way of measuring, with the hashes of the networks that measured."""

    name: str
    version: str
    hashes: Mapping[str, Scalar] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Fields) -> Protocol:
        fields.only(cls.__dataclass_fields__)
        return cls(fields.text("name"), str(fields.need("version")), fields.scalars("hashes"))


@dataclass(frozen=True)
class Cost:
    """What the training took: wall-clock seconds, peak memory in bytes, trainable parameters, adapter size in bytes."""

    seconds: float | None = None
    peak_memory: float | None = None
    trainable_parameters: float | None = None
    adapter_bytes: float | None = None

    @classmethod
    def read(cls, fields: Fields) -> Cost:
        fields.only(cls.__dataclass_fields__)
        return cls(*(fields.number_or_null(key) for key in cls.__dataclass_fields__))


@dataclass(frozen=True)
class Result:
    """One trained adapter, measured. `run` is the hash of its cell; `folder` is where it was read from, if anywhere."""

    run: str
    axes: Mapping[str, Scalar]
    records: tuple[Record, ...]
    bounds: tuple[Bound, ...] = ()
    protocol: Protocol | None = None
    cost: Cost = Cost()
    versions: Mapping[str, Scalar] = field(default_factory=dict)
    training_log: Mapping[str, Any] | None = None
    data: Mapping[str, Any] | None = None
    folder: Path | None = field(default=None, compare=False)

    @classmethod
    def from_json(cls, text: str, where: str = "result.json", folder: Path | None = None) -> Result:
        """Read and validate; every complaint is one line that names the file and the key."""
        fields = parse(text, where)
        if fields.text("schema") != SCHEMA:
            fields.fail("schema", f"is '{fields.values['schema']}', this version reads {SCHEMA}")
        fields.only({"schema", *cls.__dataclass_fields__} - {"folder"})
        axes = fields.scalars("axes")
        for axis in AXES:
            if axes.get(axis) is None:
                fields.fail(f"axes.{axis}", "is missing")
        return cls(
            run=fields.text("run"),
            axes={"target": None, "study": None, **axes},
            records=tuple(Record.read(record) for record in fields.children("records")),
            bounds=tuple(Bound.read(bound) for bound in fields.children("bounds")),
            protocol=None if fields.values.get("protocol") is None else Protocol.read(fields.child("protocol")),
            cost=Cost.read(fields.child("cost")),
            versions=fields.scalars("versions"),
            training_log=fields.child("training_log").values if fields.values.get("training_log") else None,
            data=fields.child("data").values if fields.values.get("data") else None,
            folder=folder,
        )

    def to_json(self, indent: int | None = 1) -> str:
        """The JSON text; what could not be read back (NaN, a missing axis) is refused here already."""
        values = {"schema": SCHEMA, **asdict(self)}
        del values["folder"]
        text = json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=True)
        Result.from_json(text, where=f"result of {self.run}")
        return text

    def compact(self) -> Result:
        """The same without file paths, training log and words about files, but with the hashes of what it was made of:
        what a study's results.jsonl keeps."""
        records = tuple(replace(record, images=()) for record in self.records)
        bounds = tuple(replace(bound, images=()) for bound in self.bounds)
        hashes = (self.data or {}).get("hashes")
        data = {"hashes": hashes} if hashes else None
        return replace(self, records=records, bounds=bounds, training_log=None, data=data, folder=None)


def load_result(path: Path) -> Result:
    """Read one result.json; picture paths stay relative to its folder, kept as `Result.folder`."""
    path = Path(path)
    return Result.from_json(read_text(path), where=str(path), folder=path.parent)


def save_result(result: Result, path: Path) -> Path:
    """Write one result.json, whole or not at all."""
    return write_text(Path(path), result.to_json() + "\n")


def _metrics(fields: Fields) -> dict[str, MetricValue]:
    metrics = fields.child("metrics")
    return {name: MetricValue.read(metrics.child(name)) for name in metrics.values}

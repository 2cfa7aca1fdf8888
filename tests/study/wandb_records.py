"""Reads an offline Weights & Biases file: LevelDB-style log framing around protobuf records."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768
HEADER = 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class Offline:
    """What one offline run recorded."""

    run: Any = None
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)
    exit_code: int | None = None


def frames(path: Path) -> Iterator[bytes]:
    """The payloads of a .wandb file."""
    data = path.read_bytes()
    assert data[:4] == b":W&B", "not an offline file"
    at, pending = HEADER, b""
    while at + HEADER <= len(data):
        room = BLOCK - at % BLOCK
        if room < HEADER:
            at += room
            continue
        _checksum, length, kind = struct.unpack_from("<IHB", data, at)
        piece = data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind == 0 or at > len(data):
            return
        pending += piece
        if kind in (FULL, LAST):
            yield pending
            pending = b""


def read_offline(folder: Path, patience: float = 20.0) -> list[Offline]:
    """Every offline run below a folder, in the order they began, as soon as each has its last record.

    A service process writes the files and may be a moment behind the run's own `finish`.
    """
    until = time.monotonic() + patience
    while True:
        runs = [_read(path) for path in folder.rglob("*.wandb")]
        if all(offline.exit_code is not None for offline in runs) or time.monotonic() > until:
            return sorted(runs, key=lambda offline: offline.run.start_time.ToNanoseconds())
        time.sleep(0.05)


def _read(path: Path) -> Offline:
    from wandb.proto.wandb_internal_pb2 import Record

    offline = Offline()
    if path.stat().st_size > HEADER:
        for payload in frames(path):
            record = Record.FromString(payload)
            kind = record.WhichOneof("record_type")
            if kind == "run" and offline.run is None:
                offline.run = record.run
            elif kind == "history":
                items = record.history.item
                offline.history.append(
                    {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
                )
            elif kind == "summary":
                for item in record.summary.update:
                    offline.summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            elif kind == "metric":
                offline.metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
            elif kind == "artifact":
                offline.artifacts.append(record.artifact.type)
            elif kind == "exit":
                offline.exit_code = record.exit.exit_code
    return offline

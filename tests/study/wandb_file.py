"""A reader for the file of an offline run: records framed as in LevelDB's log, each a protocol buffer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEAD, FULL, FIRST, MIDDLE, LAST = 32768, 7, 1, 2, 3, 4


def frames(path: Path) -> Iterator[bytes]:
    """The records' bytes. The file starts with 7 bytes (":W&B", 0xBEE1, version 0) inside the first block."""
    content = path.read_bytes()
    assert content[:4] == b":W&B", "not an offline run"
    place, parts = HEAD, b""
    while place + HEAD <= len(content):
        room = BLOCK - place % BLOCK
        if room < HEAD:
            place += room
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + HEAD])
        body = content[place + HEAD : place + HEAD + length]
        place += HEAD + length
        if kind in (FULL, FIRST):
            parts = b""
        parts += body
        if kind in (FULL, LAST):
            yield parts


def records(path: Path) -> list[Any]:
    """The records as messages with `run`, `config`, `history`, `summary`, `exit`."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for content in frames(path):
        record = Record()
        record.ParseFromString(content)
        found.append(record)
    return found

"""Finished stages on disk, addressed by what went into them.

    <store>/<kind>/<key>/            whole: manifest.json names every file with its size and hash
    <store>/<kind>/<key>.partial/    begun: continued where the stage can be, otherwise begun anew
    <store>/<kind>/<key>.lock        held by the process that works on it; the system frees it when that process ends

The key is the hash of the canonical JSON of the stage's inputs. A folder gets its final name in one rename after its
manifest has been written, so what bears that name is whole; reading checks it against the manifest all the same.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palp_lab.study.locks import locked
from palp_lab.study.writing import write_text
from palp_lab.types import UserError

SCHEMA = "palp_lab.stage/1"
MANIFEST = "manifest.json"
SCRATCH = "scratch"
"""Folder inside a stage for what only continuing needs (checkpoints of the training); gone once the stage is whole."""

HALF_WRITTEN = re.compile(r"\.\d+\.")
"""How the name of a file begins that a process was still writing: killed there, it leaves it behind."""

logger = logging.getLogger(__name__)
Plain = Mapping[str, Any]
"""Plain data: what JSON can say, without NaN."""


@dataclass(frozen=True)
class Stage:
    """A finished stage: where it lies, what it says about itself, and whether it was there already."""

    key: str
    folder: Path
    about: Plain
    seconds: float
    bytes: int
    cached: bool


def canonical(value: Any) -> str:
    """The one JSON text of plain data: keys sorted, 1.0 written as 1 (a config may say either)."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Hash of plain data: the key of a stage."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


class Store:
    """The stages below one folder. Several processes may share it."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def folder(self, kind: str, key: str) -> Path:
        """Where the whole stage lies or would lie."""
        return self.root / kind / key

    def find(self, kind: str, inputs: Plain, thorough: bool = True) -> Stage | None:
        """The finished stage of these inputs, or None. One that does not match its manifest counts as missing, and is
        named in the log. `thorough=False` compares sizes only (for listings)."""
        key = digest(inputs)
        folder = self.folder(kind, key)
        if not folder.is_dir():
            return None
        manifest, problem = _described(folder, thorough)
        if problem:
            logger.warning("%s: %s; the stage is made anew", folder, problem)
            return None
        size = sum(file["bytes"] for file in manifest["files"].values())
        return Stage(key, folder, manifest["about"], manifest["seconds"], size, cached=True)

    def make(self, kind: str, inputs: Plain, build: Callable[[Path], Plain], resume: bool = False) -> Stage:
        """The finished stage of these inputs, built first if it is missing.

        `build(folder)` fills the partial folder and returns what the stage says about itself (plain data). With
        `resume` it finds there what an earlier, interrupted build left. One process builds, others wait for it. A
        store that cannot be written to gives what it has.
        Raises UserError when the disk is full, and what was begun stays partial; where a missing stage cannot be made.
        """
        key = digest(inputs)
        with _said_in_one_line(self.root), ExitStack() as held:
            try:
                held.enter_context(locked(self.root / kind / f"{key}.lock", f"{kind} {key[:8]}"))
            except UserError as error:
                if found := self.find(kind, inputs):
                    return found
                raise UserError(f"store={self.root}: lacks {kind} {key[:8]}, and cannot take it: {error}") from error
            if found := self.find(kind, inputs):
                return found
            return self._build(kind, key, inputs, build, resume)

    def join(self, kind: str, inputs: Plain, build: Callable[[Path], Plain]) -> None:
        """Takes part in a build another process of the same work holds the lock of and will finish (a further rank of
        a distributed training)."""
        partial = self.root / kind / f"{digest(inputs)}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        build(partial)

    def measured(self, kind: str) -> list[tuple[Plain, float, int]]:
        """Inputs, seconds and bytes of all finished stages of a kind: what an estimate can lean on."""
        rows = []
        for path in sorted((self.root / kind).glob(f"*/{MANIFEST}")):
            try:
                manifest = json.loads(path.read_text(encoding="utf-8"))
                size = sum(file["bytes"] for file in manifest["files"].values())
                rows.append((manifest["inputs"], float(manifest["seconds"]), size))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return rows

    def _build(self, kind: str, key: str, inputs: Plain, build: Callable[[Path], Plain], resume: bool) -> Stage:
        whole, partial = self.folder(kind, key), self.root / kind / f"{key}.partial"
        for stale in (whole, *(() if resume else (partial,))):
            shutil.rmtree(stale, ignore_errors=True)
        partial.mkdir(parents=True, exist_ok=True)
        manifest, problem = _described(partial)
        if problem is not None:  # else an earlier build has ended, and was stopped before its folder had its name
            manifest = self._fill(kind, key, inputs, build, partial)
        # Only now: until the manifest is there, what is begun can but be continued.
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)
        os.replace(partial, whole)
        size = sum(file["bytes"] for file in manifest["files"].values())
        return Stage(key, whole, manifest["about"], manifest["seconds"], size, cached=problem is None)

    def _fill(
        self, kind: str, key: str, inputs: Plain, build: Callable[[Path], Plain], partial: Path
    ) -> dict[str, Any]:
        """Builds into a partial folder and writes its manifest, which is returned."""
        (partial / MANIFEST).unlink(missing_ok=True)
        began = time.perf_counter()
        try:
            about = dict(build(partial))
        except BaseException:
            _remove_empty(partial)  # what failed before it had written anything leaves nothing
            raise
        seconds = float(about.get("seconds") or time.perf_counter() - began)
        for half in (path for path in partial.rglob(".*") if HALF_WRITTEN.match(path.name)):
            half.unlink()
        files = {name: _measure(partial / name) for name in _names(partial)}
        manifest = {"schema": SCHEMA, "kind": kind, "key": key, "seconds": seconds, "about": about}
        manifest |= {"inputs": _plain(inputs), "files": files}
        write_text(partial / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n")
        return manifest


def _remove_empty(folder: Path) -> None:
    """Removes a folder in which there are no files, with the folders inside it."""
    if folder.is_dir() and not any(path.is_file() for path in folder.rglob("*")):
        shutil.rmtree(folder, ignore_errors=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _names(folder: Path) -> list[str]:
    """Every file of a stage but its manifest and what only continuing needs, relative, in a fixed order."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return sorted(path.as_posix() for path in paths if path.parts[0] != SCRATCH)


def _measure(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _described(folder: Path, thorough: bool = True) -> tuple[dict[str, Any], str | None]:
    """A folder's manifest, and the first thing that is wrong with it."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return manifest, _problem(folder, manifest, thorough)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {}, f"{MANIFEST} cannot be read ({error})"


def _problem(folder: Path, manifest: Plain, thorough: bool) -> str | None:
    """The first way in which a folder differs from its manifest."""
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"] or (thorough and _measure(path) != expected):
            return f"{name} was changed"
    return None


@contextmanager
def _said_in_one_line(root: Path) -> Iterator[None]:
    """A full disk is the user's to mend: one line, whichever library met it first."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _is_full(error):
            raise UserError(f"{root}: the disk is full; free space and repeat the command, it continues") from error
        raise


def _is_full(error: BaseException) -> bool:
    numbers = (errno.ENOSPC, errno.EDQUOT)
    while True:
        if isinstance(error, OSError) and error.errno in numbers:
            return True
        # safetensors and torch report it in words of their own.
        if os.strerror(errno.ENOSPC) in str(error) or os.strerror(errno.EDQUOT) in str(error):
            return True
        if error.__cause__ is None and error.__context__ is None:
            return False
        error = error.__cause__ or error.__context__  # type: ignore[assignment]

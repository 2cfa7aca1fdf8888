"""One worker per piece of work: a lock that the operating system frees when its holder ends, however it ends."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from palp_lab.types import UserError

logger = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Holds the lock at `path` inside the block, waiting for another holder (which is named in the log).

    The kernel's own lock (flock) rather than a file that merely exists: after a kill -9 there is nothing to clear away,
    and a process number that was given out again cannot fool it. The file says who holds it, for people. Raises
    UserError where the folder cannot be written to, or its file system gives no locks.
    """
    descriptor = _acquire(path, what)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}@{socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


_held: list[int] = []


def hold(path: Path) -> bool:
    """Takes the lock at `path` for the rest of this process's life, or says at once that another has it. The file
    stays, so that whoever opens it next opens the same."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    _held.append(descriptor)
    return True


def _acquire(path: Path, what: str) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"{path.parent}: cannot be written to ({error.strerror})") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("%s: waiting for process %s, which is making it", what, _holder(descriptor))
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            os.close(descriptor)
            raise UserError(
                f"{path.parent}: its file system gives no locks ({error.strerror}), without which two processes could "
                "write one file; take a folder on another one (Lustre: mounted with -o flock)"
            ) from error
        if _same_file(descriptor, path):
            return descriptor
        # The holder before us unlinked the file while we waited: this lock guards nothing any more.
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another"


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False

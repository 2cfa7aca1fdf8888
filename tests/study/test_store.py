"""The store: what is whole is whole, whoever died, and one process works where two were started."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from palp_lab.study.store import MANIFEST, SCRATCH, Store, canonical, digest
from palp_lab.study.writing import write_text
from palp_lab.types import UserError

INPUTS = {"method": "palp", "seed": 0, "lr": 1.0}


def write(folder: Path) -> dict:
    (folder / "deep").mkdir(exist_ok=True)
    (folder / "deep" / "numbers.txt").write_text("1 2 3")
    return {"n": 3}


def refuse(folder: Path) -> dict:
    raise AssertionError("the stage was there already")


def test_the_key_is_of_the_content_alone() -> None:
    assert digest({"a": 1.0, "b": (1, 2)}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": True}) != digest({"a": "1"})
    assert canonical({"é": 0.1}) == '{"\\u00e9":0.1}'


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, Path("x"), object()])
def test_what_is_not_plain_data_is_no_key(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        digest({"a": value})


def test_a_stage_is_made_once(tmp_path: Path) -> None:
    first = Store(tmp_path).make("train", INPUTS, write)
    again = Store(tmp_path).make("train", INPUTS, refuse)
    assert (first.cached, again.cached) == (False, True)
    assert again.about == {"n": 3}
    assert again.bytes == 5
    assert (again.folder / "deep" / "numbers.txt").read_text() == "1 2 3"
    manifest = json.loads((again.folder / MANIFEST).read_text())
    assert manifest["inputs"] == {"method": "palp", "seed": 0, "lr": 1}
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [first.key]


def test_other_inputs_and_other_kinds_are_other_stages(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make("train", INPUTS, write)
    assert store.find("train", {**INPUTS, "seed": 1}) is None
    assert store.find("pictures", INPUTS) is None


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "manifest"])
def test_a_damaged_stage_is_named_and_made_anew(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    folder = store.make("train", INPUTS, write).folder
    victim = folder / (MANIFEST if damage == "manifest" else "deep/numbers.txt")
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_text({"cut": "1 2", "flipped": "1 2 4", "manifest": "{"}[damage])
    assert store.find("train", INPUTS) is None
    assert victim.name in caplog.text
    assert not store.make("train", INPUTS, write).cached
    assert store.find("train", INPUTS) is not None


def test_a_failure_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    def break_off(folder: Path) -> dict:
        write(folder)
        raise RuntimeError("a NaN loss")

    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="NaN"):
        store.make("train", INPUTS, break_off)
    assert store.find("train", INPUTS) is None
    assert store.make("train", INPUTS, write).about == {"n": 3}


@pytest.mark.parametrize("resume", [True, False])
def test_only_a_stage_that_can_be_continued_finds_its_beginnings(tmp_path: Path, resume: bool) -> None:
    seen: list[bool] = []

    def build(folder: Path) -> dict:
        seen.append((folder / SCRATCH / "step_5").exists())
        (folder / SCRATCH).mkdir(exist_ok=True)
        (folder / SCRATCH / "step_5").touch()
        if len(seen) == 1:
            raise RuntimeError("interrupted")
        return write(folder)

    store = Store(tmp_path)
    with pytest.raises(RuntimeError):
        store.make("train", INPUTS, build, resume)
    stage = store.make("train", INPUTS, build, resume)
    assert seen == [False, resume]
    assert not (stage.folder / SCRATCH).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("how", ["plainly", "in its own words"])
def test_a_full_disk_is_one_line(tmp_path: Path, how: str) -> None:
    def build(folder: Path) -> dict:
        write(folder)
        try:
            with open("/dev/full", "w") as stream:
                stream.write("x")
                stream.flush()
        except OSError as error:
            if how == "plainly":
                raise
            raise RuntimeError(f"I/O error: {error}") from None
        return {}

    with pytest.raises(UserError, match="the disk is full; free space") as caught:
        Store(tmp_path).make("train", INPUTS, build)
    assert "\n" not in str(caught.value)
    assert Store(tmp_path).find("train", INPUTS) is None


def test_two_at_once_do_the_work_once(tmp_path: Path) -> None:
    built: list[int] = []

    def slowly(folder: Path) -> dict:
        built.append(1)
        time.sleep(0.2)
        return write(folder)

    threads = [threading.Thread(target=Store(tmp_path).make, args=("train", INPUTS, slowly)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [1]
    assert not list((tmp_path / "train").glob("*.lock"))


HOLD = """
import sys, time
from pathlib import Path
from palp_lab.study.store import Store
def build(folder):
    (folder / "half").write_text("half")
    print("begun", flush=True)
    time.sleep(60)
    return {}
Store(Path(sys.argv[1])).make("train", {"method": "palp", "seed": 0, "lr": 1.0}, build)
"""


def test_what_a_killed_process_left_half_written_is_no_part_of_a_stage(tmp_path: Path) -> None:
    def build(folder: Path) -> dict[str, object]:
        (folder / "adapters").mkdir()
        (folder / "adapters" / ".4711.step_000050.safetensors").write_bytes(b"half")
        (folder / "adapters" / "step_000050.safetensors").write_bytes(b"whole")
        return {}

    folder = Store(tmp_path).make("train", {"a": 1}, build, resume=True).folder
    assert [path.name for path in (folder / "adapters").iterdir()] == ["step_000050.safetensors"]


@pytest.mark.parametrize("at", ["manifest", "scratch", "name"])
def test_what_is_interrupted_after_the_last_step_of_a_build_is_not_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """A full disk or a kill while files are measured, described, cleared away or named: hours of training stay."""
    found: list[bool] = []

    def build(folder: Path) -> dict[str, object]:
        checkpoint = folder / SCRATCH / "last.ckpt"
        found.append(checkpoint.exists())
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.touch()
        return write(folder)

    broken, ending = {
        "manifest": ("write_text", MANIFEST), "scratch": ("shutil.rmtree", SCRATCH), "name": ("os.replace", ".partial"),
    }[at]  # fmt: skip
    works = {"manifest": write_text, "scratch": shutil.rmtree, "name": os.replace}[at]
    store = Store(tmp_path)

    def fail(path: Path, *more: object, **named: object) -> object:
        if Path(path).name.endswith(ending):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return works(path, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(f"palp_lab.study.store.{broken}", fail)
        with pytest.raises(UserError, match="repeat the command, it continues"):
            store.make("train", INPUTS, build, resume=True)
    stage = store.make("train", INPUTS, build, resume=True)
    assert found in ([False], [False, True]), "a build that has ended begins again without its checkpoint"
    assert not (stage.folder / SCRATCH).exists()
    assert (there := store.find("train", INPUTS)) is not None and replace(there, cached=stage.cached) == stage


def test_what_failed_before_it_had_written_anything_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> dict[str, object]:
        (folder / "scratch").mkdir()
        if (tmp_path / "write").exists():
            (folder / "scratch" / "last.ckpt").touch()
        raise UserError("target: is missing")

    for kept in (False, True):
        with pytest.raises(UserError):
            store.make("train", {"a": 1}, fail, resume=True)
        assert bool(list((tmp_path / "train").glob("*.partial"))) is kept
        (tmp_path / "write").touch()


def test_the_lock_of_a_killed_process_is_no_lock(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    killed: list[int] = []

    def kill() -> None:
        time.sleep(0.3)
        killed.append(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    killer = threading.Thread(target=kill)
    killer.start()

    def take_over(folder: Path) -> dict:
        assert killed, "the holder was still alive"
        return write(folder)

    stage = Store(tmp_path).make("train", INPUTS, take_over)
    killer.join()
    assert not stage.cached
    assert not (stage.folder / "half").exists()


def test_what_was_measured_is_known_for_estimates(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make("train", INPUTS, lambda folder: write(folder) | {"seconds": 12.5})
    [(inputs, seconds, size)] = store.measured("train")
    assert (inputs["method"], seconds, size) == ("palp", 12.5, 5)
    assert store.measured("pictures") == []


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def read_only(path: Path, *_: object, **__: object) -> int:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))


@pytest.mark.parametrize(
    ("call", "fails", "said"),
    [("fcntl.flock", no_locks, "gives no locks (No locks available)"), ("os.open", read_only, "Read-only file system")],
)
def test_a_store_that_cannot_be_written_to_gives_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, fails: object, said: str
) -> None:
    """Somebody else's, or on a file system without locks; what it lacks is one line that names it."""
    whole = Store(tmp_path).make("train", INPUTS, write)
    monkeypatch.setattr(f"palp_lab.study.locks.{call}", fails)
    assert Store(tmp_path).make("train", INPUTS, refuse).folder == whole.folder
    with pytest.raises(UserError) as caught:
        Store(tmp_path).make("train", {**INPUTS, "seed": 1}, refuse)
    assert str(caught.value).startswith(f"store={tmp_path}: lacks train ") and said in str(caught.value)
    assert "\n" not in str(caught.value)

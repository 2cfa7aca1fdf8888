"""A disk that fills up while something is written: one line, and nothing half-written is taken for whole."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.micro_lab import MicroLab, environment

pytestmark = pytest.mark.slow

SCRIPT = """
set -u
mount -t tmpfs -o size={small}k tmpfs {disk} || exit 77
{command} > {said} 2>&1; echo $? > {status}
find {disk} -name manifest.json > {manifests}
mount -o remount,size=50m {disk} || exit 77
{command} > {again} 2>&1; echo $? >> {status}
"""


@pytest.mark.parametrize("small", [60, 150, 400])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(micro_lab: MicroLab, tmp_path: Path, small: int) -> None:
    """Sizes that fill up in the training, in its checkpoint, and in the pictures."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    names = {name: tmp_path / name for name in ("disk", "said", "again", "status", "manifests")}
    names["disk"].mkdir()
    store, output = names["disk"] / "store", tmp_path / "output"
    arguments = micro_lab.command("method=ti_db", "generate.seeds=8", f"output={output}", f"store={store}")
    command = " ".join(f"'{word}'" for word in arguments)
    script = SCRIPT.format(small=small, command=command, **names)
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", script], env=environment(), capture_output=True, timeout=280)
    if ran.returncode == 77 or b"unshare" in ran.stderr:
        pytest.skip("may not mount a small disk here")
    said = names["said"].read_text()
    assert names["status"].read_text().split() == ["2", "0"], said + names["again"].read_text()
    lines = [line for line in said.splitlines() if line.startswith("palp-lab:")]
    assert len(lines) == 1 and ("disk is full" in lines[0] or "No space left" in lines[0])
    assert "Traceback" not in said
    assert len(names["manifests"].read_text().splitlines()) < 7, "the disk was not small enough to test anything"

"""What every test shares: no network, one thread, nothing written outside temporary folders, and the random micro
pipeline as fixtures."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

SCRATCH = Path(tempfile.mkdtemp(prefix="palp-lab-tests-"))

# Before anything heavy is imported: these are read at import.
os.environ.update(
    OMP_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    PALP_LAB_OUTPUT=str(SCRATCH / "outputs"),
    **{f"WANDB_{name}DIR": str(SCRATCH / "wandb") for name in ("", "DATA_", "CACHE_", "CONFIG_", "ARTIFACT_")},
)
(SCRATCH / "wandb").mkdir()

pytest_plugins = ["tests.micro", "tests.micro_sdxl", "tests.micro_lab"]

LOCAL = ("127.", "::1", "localhost", "0.0.0.0")
_connect = socket.socket.connect


def _stay_home(self: socket.socket, address: object) -> None:
    """Lets sockets reach this machine only: a test that needs the network fails and says so."""
    if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOCAL):  # type: ignore[index]
        raise OSError(f"a test reached for the network: {address}")
    return _connect(self, address)  # type: ignore[arg-type]


socket.socket.connect = _stay_home  # type: ignore[method-assign, assignment]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes what the suite wrote."""
    shutil.rmtree(SCRATCH, ignore_errors=True)


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder in which commands run and below which they write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALP_LAB_OUTPUT", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


@pytest.fixture(scope="session")
def palp_lab_data() -> Path:
    """The folder of real photos and tokenizers named by PALP_LAB_DATA; without it the test is skipped, and the summary
    says so."""
    folder = os.environ.get("PALP_LAB_DATA")
    if not folder:
        pytest.skip("PALP_LAB_DATA is not set: real photos and tokenizers were not tested")
    path = Path(folder)
    assert path.is_dir(), f"PALP_LAB_DATA={folder} is not a folder"
    return path.resolve()


def pytest_terminal_summary(terminalreporter) -> None:  # type: ignore[no-untyped-def]
    """Says once, in capitals, what was left out for want of data."""
    left_out = [r for r in terminalreporter.stats.get("skipped", []) if "PALP_LAB_DATA" in str(r.longrepr)]
    if left_out:
        terminalreporter.write_line(
            f"NOT TESTED: {len(left_out)} tests need PALP_LAB_DATA=<folder of real photos>", red=True
        )


@pytest.fixture(autouse=True)
def hub_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test was refused is no answer to another."""
    for module in ("model.folder", "metrics.embedders"):
        monkeypatch.setattr(f"palp_lab.{module}._REFUSED", {})

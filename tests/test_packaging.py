"""What is installed from a wheel is whole: the configuration and the weights travel in it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, built without network."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh folder with the unpacked wheel: what pip would put on the path."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder


def palp_lab(installed: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, "-m", "palp_lab", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_every_yaml_and_every_weight(built: Path) -> None:
    names = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"palp_lab/conf/{path.relative_to(ROOT / 'conf')}" in names
    assert "hydra_plugins/palp_lab.py" in names
    weights = [
        p
        for p in (ROOT / "palp_lab" / "tinyworld" / "weights").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    ]
    assert weights
    for path in weights:
        assert str(path.relative_to(ROOT)) in names
    assert not [n for n in names if n.startswith(("tests/", "experiments/", "outputs/"))]


def test_the_source_distribution_can_be_built_again(built: Path, tmp_path: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        # Python 3.11.4 learned the filter.
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    source = next(tmp_path.iterdir())
    assert (source / "conf" / "base.yaml").is_file()
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=source, check=True, capture_output=True
    )
    assert "palp_lab/conf/base.yaml" in zipfile.ZipFile(next((source / "dist").glob("*.whl"))).namelist()


def test_the_wheel_composes_from_any_folder(installed: Path, tmp_path: Path) -> None:
    done = palp_lab(installed, tmp_path, "run", "method=palp", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "prompt_alignment" in done.stdout
    help_page = palp_lab(installed, tmp_path, "run", "--help")
    assert "palp" in help_page.stdout
    info = palp_lab(installed, tmp_path, "run", "--info", "searchpath")
    assert str(installed / "palp_lab" / "conf") in info.stdout


def test_the_wheel_opens_its_own_model(installed: Path, tmp_path: Path) -> None:
    done = palp_lab(installed, tmp_path, "doctor", "device=cpu", "free_gigabytes=0")
    assert "ok   model" in done.stdout, done.stdout + done.stderr


def test_a_sweep_in_worker_processes_knows_the_resolvers(installed: Path, tmp_path: Path) -> None:
    """joblib's workers import our modules anew; a resolver registered elsewhere would be missing there."""
    done = palp_lab(
        installed,
        tmp_path,
        "doctor",
        "-m",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "seed=0,1",
        "threads=100000",
    )
    assert done.returncode == 1
    assert "2 of 2 cells failed" in done.stderr
    assert "lost" not in done.stderr

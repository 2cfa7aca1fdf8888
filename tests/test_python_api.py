"""docs/python.md, run block by block, and the names that `from palp_lab import ...` gives."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import palp_lab
from palp_lab.metrics.reader import ElementReader
from tests.metrics.conftest import write_clip, write_resnet

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
SHIPPED = Path(palp_lab.__file__).parent / "tinyworld" / "weights"


def blocks() -> list[tuple[int, str]]:
    """The Python blocks of the page with the line each begins on."""
    text = PAGE.read_text(encoding="utf-8")
    return [(text[: m.start(1)].count("\n") + 1, m.group(1)) for m in re.finditer(r"```python\n(.*?)```", text, re.S)]


@pytest.fixture
def random_weights(tmp_path: Path, micro_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random networks under the names of the shipped ones, so that the page runs in seconds."""
    from transformers import ResNetConfig

    from palp_lab.tinyworld import LABELS

    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "tiny").symlink_to(micro_path, target_is_directory=True)
    write_clip(weights / "clip")
    write_resnet(weights / "identity")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
        ElementReader(LABELS, backbone).save(weights / "reader")
    monkeypatch.setattr("palp_lab.model.folder.SHIPPED", weights)
    monkeypatch.setattr("palp_lab.metrics.embedders.SHIPPED", weights)
    return weights


@pytest.fixture
def fresh() -> Iterator[None]:
    """No model or protocol left over from another test, and none left for the next."""
    from palp_lab import parts

    parts._open.clear()
    yield
    parts._open.clear()


def run_page() -> dict[str, Any]:
    """Every block in one namespace, as a notebook has it; lines in tracebacks are the page's."""
    names: dict[str, Any] = {"__name__": "notebook"}
    for line, block in blocks():
        exec(compile("\n" * (line - 1) + block, str(PAGE), "exec"), names)
    return names


def check(names: dict[str, Any], capsys: pytest.CaptureFixture[str], side: int) -> None:
    assert len(blocks()) >= 7
    assert names["training"].folder.is_dir() and names["outcome"].last.is_file()
    assert len(names["pictures"]) >= 2 and names["image"].shape == (3, side, side)
    said = capsys.readouterr().out
    assert "method" in said, "the misspelt key names the right one"
    assert "stay_close" in said and "text_alignment" in said
    mine, base = names["mine"], names["base"]
    assert [(p.sentence, p.seed) for p in mine] == [(p.sentence, p.seed) for p in base]
    assert any(not torch.equal(a.image, b.image) for a, b in zip(mine, base, strict=True))
    assert names["record"].metrics["identity"].value is not None


def test_the_page_runs_from_top_to_bottom(
    output: Path, random_weights: Path, fresh: None, capsys: pytest.CaptureFixture[str]
) -> None:
    check(run_page(), capsys, side=32)


@pytest.mark.slow
def test_the_page_runs_on_the_shipped_weights(output: Path, fresh: None, capsys: pytest.CaptureFixture[str]) -> None:
    if not (SHIPPED / "tiny").is_dir():
        pytest.skip("NO WEIGHTS: palp_lab/tinyworld/weights is not there; the page ran on random networks only")
    check(run_page(), capsys, side=64)


def test_every_public_name_is_there_and_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in palp_lab.__all__:
        assert getattr(palp_lab, name) is not None
        assert name == "__version__" or re.search(rf"\b{name}\b", page), (
            f"{name} is public, but docs/python.md is silent"
        )


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(AttributeError, match="compose"):
        palp_lab.composes  # noqa: B018


def test_importing_costs_nothing() -> None:
    """The package and the names of what only describes load none of the heavy libraries."""
    code = (
        "import sys, palp_lab; from palp_lab import compose, UserError;"
        "print(sorted({'torch', 'diffusers', 'transformers', 'lightning', 'matplotlib', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

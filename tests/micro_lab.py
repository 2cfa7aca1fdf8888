"""A laboratory of random networks: everything the command needs, in a second, so that tests can run the whole path."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.metrics.conftest import write_clip, write_resnet

PROTOCOL = """
_target_: palp_lab.metrics.protocols.protocol
name: micro
version: 1
embedders:
  clip: {{_target_: palp_lab.metrics.embedders.ClipEmbedder, path: "{clip}"}}
  identity: {{_target_: palp_lab.metrics.embedders.VisionEmbedder, path: "{identity}"}}
metrics:
  text_alignment: {{_target_: palp_lab.metrics.alignment.TextAlignment, space: clip}}
  identity: {{_target_: palp_lab.metrics.alignment.ImageAlignment, space: identity}}
  drift_with_class_word: {{_target_: palp_lab.metrics.drift.Drift, class_word: true, space: clip}}
"""

PROMPTS = """
_target_: palp_lab.prompts.Prompts
groups:
  style: ["a sketch of a {} in the snow"]
  same_style: ["a photo of a {} wearing a red hat at night"]
drift_with_class_word: ["a photo of a {}"]
"""


@dataclass(frozen=True)
class MicroLab:
    """Folders of the networks, a `--config-dir` that names them, and the overrides that choose them."""

    conf: Path
    overrides: tuple[str, ...]

    def compose(self, *overrides: str):  # type: ignore[no-untyped-def]
        from palp_lab.composition import compose

        return compose("run", *self.overrides, *overrides, config_dir=self.conf)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "palp_lab", "run", "--config-dir", str(self.conf), *self.overrides, *arguments]

    def __call__(self, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """`palp-lab run` in a process of its own."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=timeout, env=environment(), check=False
        )


def environment() -> dict[str, str]:
    """One thread, no network, and this checkout."""
    root = str(Path(__file__).parents[1])
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="session")
def micro_lab(tmp_path_factory: pytest.TempPathFactory, micro_path: Path) -> MicroLab:
    """Tiny-world photos, a random pipeline and random scorers. Read only."""
    root = tmp_path_factory.mktemp("lab")
    for group, text in (("metrics", PROTOCOL), ("prompts", PROMPTS)):
        (root / "conf" / group).mkdir(parents=True)
        words = text
        if group == "metrics":
            words = text.format(clip=write_clip(root / "clip"), identity=write_resnet(root / "identity"))
        (root / "conf" / group / "micro.yaml").write_text(words)
    overrides = (
        f"model.path={micro_path}", "metrics=micro", "prompts=micro", "device=cpu", "log.progress=false", "log.every=1",
        "trainer.max_steps=4", "trainer.batch_size=2", "trainer.save_every=1", "edits.rank=2", "dataset.shots=2",
        "generate.steps=2", "generate.seeds=2", "report.resamples=20",
    )  # fmt: skip
    return MicroLab(root / "conf", overrides)

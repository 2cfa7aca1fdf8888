"""What it costs to be asked: the command's help, and composing a configuration."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from palp_lab.composition import compose
from tests.bench.measuring import compare, report, stopwatch

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

CPU = torch.device("cpu")


def python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def test_command() -> None:
    rows = compare(
        {
            "python -c pass": stopwatch(lambda: python("-c", "pass"), CPU),
            "palp-lab --help": stopwatch(lambda: python("-m", "palp_lab", "--help"), CPU),
            "palp-lab run --help": stopwatch(lambda: python("-m", "palp_lab", "run", "--help"), CPU),
            "palp-lab run --cfg job": stopwatch(lambda: python("-m", "palp_lab", "run", "--cfg", "job"), CPU),
        },
        CPU,
    )
    report("command", "How long does the command take to answer?", "call", rows, CPU, "a fresh process each")


def test_composing() -> None:
    import yaml
    from omegaconf import OmegaConf

    text = OmegaConf.to_yaml(compose("run"))
    rows = compare(
        {
            "yaml.safe_load of the result": stopwatch(lambda: yaml.safe_load(text), CPU),
            "compose('run')": stopwatch(lambda: compose("run"), CPU),
            "with a method and five values": stopwatch(
                lambda: compose("run", "method=p_plus", "seed=1", "edits=lora", "dataset.seed=3", "threads=2"), CPU
            ),
        },
        CPU,
    )
    report("composing", "What does composing a configuration cost?", "configuration", rows, CPU, "in one process")

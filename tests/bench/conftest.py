"""The lab that everything is measured on: PALP_LAB_BENCH_DEVICE names the device, else the best there is."""

from __future__ import annotations

import os

import pytest
import torch

from palp_lab.model import choose_device
from tests.bench.lab import Lab, open_lab
from tests.metrics.conftest import clip_path, resnet_path  # noqa: F401


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device(choose_device(os.environ.get("PALP_LAB_BENCH_DEVICE", "auto")))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Lab:
    return open_lab(tmp_path_factory.mktemp("lab"), device.type)

"""The skeletons that PALP_LAB_DATA holds; without it everything here is skipped, and the summary says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from palp_lab.model.unet import UNetModel
from tests.architectures.skeletons import Skeleton

NAMES = ("sd14", "sd21")


@pytest.fixture(scope="session", params=NAMES)
def skeleton(request: pytest.FixtureRequest, palp_lab_data: Path) -> Skeleton:
    """Each published architecture in turn."""
    folder = palp_lab_data / "skeletons" / request.param
    assert (folder / "model_index.json").is_file(), f"PALP_LAB_DATA has no skeletons/{request.param}"
    return Skeleton(request.param, folder)


@pytest.fixture(scope="session")
def published(skeleton: Skeleton) -> UNetModel:
    """In true size, on the meta device. Read only: what attaches edits detaches them."""
    return skeleton.true_size()


@pytest.fixture(scope="session")
def narrow(skeleton: Skeleton, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow copy with random weights, as a pipeline folder. Read only."""
    return skeleton.narrow(tmp_path_factory.mktemp("narrow") / skeleton.name)

"""Pictures for galleries and of the class."""

from __future__ import annotations

import pytest
import torch

from palp_lab.engine.pictures import draw
from palp_lab.model.unet import UNetModel


@pytest.mark.parametrize("scheduler", ["ddim", "euler_a"])
def test_a_picture_depends_on_its_own_seed_alone(micro: UNetModel, scheduler: str) -> None:
    """Also where the scheduler adds noise at every step."""
    cond = micro.base_text(["a photo of a cat"] * 2)
    together = draw(micro, cond, [3, 4], scheduler, 3, 5.0).int()
    swapped = draw(micro, cond, [4, 3], scheduler, 3, 5.0).int()
    assert (together - swapped.flip(0)).abs().max() <= 1
    assert (together[0] - together[1]).abs().float().mean() > 1
    assert torch.equal(together, draw(micro, cond, [3, 4], scheduler, 3, 5.0).int())

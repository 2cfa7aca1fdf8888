"""Class pictures: kept by all that decides them."""

from __future__ import annotations

import torch

from palp_lab.engine import prior
from palp_lab.types import Kind
from tests.losses.toy import ToyModel


def test_what_is_kept_is_told_apart_by_model_prompt_and_number() -> None:
    """Else a recipe would be given the class of another one."""
    model = ToyModel(Kind.EPS)
    other = ToyModel(Kind.EPS, seed=1)
    half = ToyModel(Kind.EPS)
    half.dtype = torch.float16
    keys = [
        prior._key(model, "a cat", 4),
        prior._key(model, "a dog", 4),
        prior._key(model, "a cat", 5),
        prior._key(other, "a cat", 4),
        prior._key(half, "a cat", 4),
    ]
    assert len(set(keys)) == len(keys)
    assert prior._key(ToyModel(Kind.EPS), "a cat", 4) == keys[0]

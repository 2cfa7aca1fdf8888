"""Identities: held-out combinations stay out of pretraining, and a held-out individual is far from all others."""

import numpy as np
import pytest

from palp_lab.tinyworld import CLASSES, is_heldout, nearest_pretraining_identity, sample_identity
from palp_lab.tinyworld.factors import COLOUR_NAMES, PATTERNS, stable_hash
from palp_lab.types import UserError


def _reserved(identity):
    return is_heldout(identity.superclass, identity.colour, identity.second, identity.pattern)


@pytest.mark.parametrize("superclass", CLASSES)
def test_splits_share_no_named_combination(superclass):
    assert not any(_reserved(sample_identity(superclass, seed)) for seed in range(300))
    assert all(_reserved(sample_identity(superclass, seed, "heldout")) for seed in range(100))


def test_about_fifteen_percent_is_reserved():
    share = np.mean([is_heldout("cat", a, b, p) for a in COLOUR_NAMES for b in COLOUR_NAMES for p in PATTERNS])
    assert 0.11 < share < 0.19


def test_the_hash_is_the_same_everywhere():
    assert stable_hash("identity", "cat", "red", 1) == stable_hash("identity", "cat", "red", 1)
    assert stable_hash("a", "bc") != stable_hash("ab", "c")
    assert stable_hash("tiny world") == 1318508309


def test_heldout_identities_are_far_from_every_pretraining_identity():
    distances = [nearest_pretraining_identity(sample_identity("dog", seed, "heldout"), 1000) for seed in range(8)]
    # No pretraining identity has the named combination, so at least one named factor (distance 1) always differs.
    assert min(distances) > 1.0


def test_distance_to_itself_is_zero():
    assert nearest_pretraining_identity(sample_identity("fish", 17), 50) == 0.0


def test_the_same_seed_is_the_same_individual():
    assert sample_identity("car", 9) == sample_identity("car", 9)
    assert sample_identity("car", 9).hidden != sample_identity("car", 10).hidden


def test_wrong_names_say_what_to_choose():
    with pytest.raises(UserError, match="choose one of cat"):
        sample_identity("zebra", 0)
    with pytest.raises(UserError, match="pretrain or heldout"):
        sample_identity("cat", 0, "test")

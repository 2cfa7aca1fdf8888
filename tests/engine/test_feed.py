"""Data streams: who is drawn when, and that pictures keep their captions, masks and latents."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from palp_lab.engine.feed import Feed
from palp_lab.engine.settings import Augmentation
from palp_lab.types import Kind, Role, UserError
from tests.losses.toy import ToyModel

PICTURES = torch.stack([torch.full((3, 2, 2), 40 * i, dtype=torch.uint8) for i in range(5)])
MASKS = torch.stack([torch.full((2, 2), i % 2 == 0) for i in range(5)])


def feed(batch: int = 4, variants: int = 1, seed: int = 0, **how: float) -> Feed:
    augmentation = Augmentation(variants, how.get("flip", 0.0), how.get("crop", 1.0))
    return Feed(Role.SUBJECT, ToyModel(Kind.EPS), PICTURES, ["a {}", "the {}"], batch, augmentation, seed, MASKS)


def level(x0: torch.Tensor) -> list[int]:
    """Which picture a latent came from: the toy's encoder keeps the grey level, with a little noise."""
    return [round((v + 1) * 127.5 / 40) for v in x0.mean((1, 2, 3)).tolist()]


def test_a_draw_is_a_function_of_seed_and_step() -> None:
    one, two = feed().draw(0, 7, 0, 1), feed().draw(0, 7, 0, 1)
    assert torch.equal(one.x0, two.x0)
    assert torch.equal(one.noise, two.noise)
    assert torch.equal(one.t, two.t)
    assert one.sentences == two.sentences
    other = feed().draw(0, 8, 0, 1)
    assert not torch.equal(one.noise, other.noise)


@pytest.mark.parametrize("variants", [0, 1, 3])
def test_latents_keep_their_masks(variants: int) -> None:
    """Even pictures are all subject, odd ones not at all."""
    stream = feed(batch=16, variants=variants, flip=0.5, crop=0.9)
    stream.mean = stream.mean if variants else None
    for step in range(3):
        drawn = stream.draw(0, step, 0, 1)
        for which, mask in zip(level(drawn.x0 - 0), drawn.mask, strict=True):
            assert mask.mean() == (which % 2 == 0)


def test_rows_of_one_step_take_variants_of_their_own() -> None:
    stream = feed(batch=16, variants=3, flip=0.5)
    stream.mean = torch.arange(15.0)[:, None, None, None].expand(15, 2, 2, 2)
    stream.std = torch.zeros_like(stream.mean)
    seen = stream.draw(0, 0, 0, 1).x0[:, 0, 0, 0].long()
    assert set((seen % 3).tolist()) == {0, 1, 2}
    assert (seen // 3).tolist() == stream._photos(0, 0).tolist()


@pytest.mark.parametrize("variants", [0, 3])
def test_a_picture_keeps_its_own_caption(variants: int) -> None:
    """Shuffled, augmented, cut into micro-batches: the sentence of a row is that of its picture."""
    own = [f"a {{}} of level {i}" for i in range(5)]
    augmentation = Augmentation(variants, 0.5, 0.9)
    stream = Feed(Role.SUBJECT, ToyModel(Kind.EPS), PICTURES, ["a {}"], 8, augmentation, 0, own=own)
    for step, micro in ((0, 0), (3, 1), (4, 0)):
        drawn = stream.draw(0, step, micro, 2)
        assert drawn.sentences == tuple(own[which] for which in level(drawn.x0))
    plain = Feed(Role.SUBJECT, ToyModel(Kind.EPS), PICTURES, ["a {}"], 8, augmentation, 0)
    assert torch.equal(plain.draw(0, 3, 1, 2).x0, stream.draw(0, 3, 1, 2).x0), "nothing else changes"


def test_every_picture_is_seen_equally_often() -> None:
    stream = feed(batch=4)
    seen = torch.cat([stream._photos(0, step) for step in range(10)])
    assert set(Counter(seen.tolist()).values()) == {8}
    assert seen[:5].tolist() != seen[5:10].tolist(), "each round has an order of its own"


@pytest.mark.parametrize("micros", [2, 4])
def test_micro_batches_are_rows_of_the_batch(micros: int) -> None:
    stream = feed(batch=8)
    whole, parts = stream.draw(0, 3, 0, 1), [stream.draw(0, 3, m, micros) for m in range(micros)]
    assert torch.equal(whole.x0, torch.cat([part.x0 for part in parts]))
    assert torch.equal(whole.noise, torch.cat([part.noise for part in parts]))
    assert torch.equal(whole.t, torch.cat([part.t for part in parts]))
    assert whole.sentences == sum((part.sentences for part in parts), ())


def test_roles_have_streams_of_their_own() -> None:
    model, plain = ToyModel(Kind.EPS), Augmentation(1)
    subject = Feed(Role.SUBJECT, model, PICTURES, ["a {}"], 4, plain, 0).draw(0, 0, 0, 1)
    prior = Feed(Role.PRIOR, model, PICTURES, ["a {}"], 4, plain, 0).draw(0, 0, 0, 1)
    assert not torch.equal(subject.noise, prior.noise)


def test_the_posterior_is_sampled_anew() -> None:
    stream = feed(batch=5)
    one, two = (stream.draw(0, step, 0, 1) for step in (0, 1))
    a = one.x0[torch.tensor(level(one.x0)).argsort()]
    b = two.x0[torch.tensor(level(two.x0)).argsort()]
    assert not torch.equal(a, b)
    assert (a - b).abs().max() < 1.0


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(UserError, match="no pictures"):
        Feed(Role.SUBJECT, ToyModel(Kind.EPS), PICTURES[:0], ["a {}"], 4, Augmentation(), 0)
    with pytest.raises(UserError, match="captions"):
        Feed(Role.SUBJECT, ToyModel(Kind.EPS), PICTURES, [], 4, Augmentation(), 0)


def test_rows_that_cannot_be_split_are_said() -> None:
    with pytest.raises(UserError, match="3 rows per step cannot be split among 2"):
        feed(batch=3).draw(0, 0, 0, 2)


def test_latents_are_drawn_apart_from_the_noise() -> None:
    """One stream for both would tie the picture to the noise that is added to it."""

    fed = feed(batch=256)
    fed.mean, fed.std = torch.zeros_like(fed.mean), torch.ones_like(fed.std)
    drawn = fed.draw(0, 1, 0, 1)
    both = torch.stack([drawn.x0.flatten().double(), drawn.noise.flatten().double()])
    assert drawn.x0.std() > 0.5
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.15

"""Keys near the superclass's: zero at the start, positive after, pulling back."""

from __future__ import annotations

import pytest
import torch

from palp_lab.adapter import Adapter
from palp_lab.edits.lora import LoraEdits
from palp_lab.edits.none import NoEdits
from palp_lab.losses.base import StepContext, personal_text
from palp_lab.losses.key_locking import KeyLocking
from palp_lab.losses.passes import Pass
from palp_lab.model.unet import UNetModel
from palp_lab.tokens.learned import LearnedTokens
from palp_lab.types import Role, UserError
from tests.losses.toy import CONCEPT

SENTENCE = "a photo of a {} in the snow"


def context(adapter: Adapter, *sentences: str) -> StepContext:
    model, generator = adapter.model, torch.Generator().manual_seed(0)
    sentences = sentences or (SENTENCE,) * 2
    x = torch.randn(len(sentences), *model.latent_shape, generator=generator)
    t = torch.arange(len(sentences)) * 490 + 10
    cond = personal_text(adapter, sentences)
    data = Pass(x, x, t, x, sentences, cond, model.predict(x, t, cond))
    return StepContext(adapter, {Role.SUBJECT: data}, seed=0, step=0)


def test_zero_where_the_word_is_the_class_word(micro: UNetModel) -> None:
    """The placeholder stands where the class word stood, starts as its vector, and the weights are the base's."""
    adapter = Adapter(micro, LearnedTokens(), LoraEdits(rank=2), CONCEPT)
    assert KeyLocking()(context(adapter)).item() == pytest.approx(0.0, abs=1e-10)


def test_relative_to_the_base_keys_and_by_hand(micro: UNetModel) -> None:
    adapter = Adapter(micro, LearnedTokens(), NoEdits(), CONCEPT)
    with torch.no_grad():
        adapter.tokens.vectors[0][:, ::2].add_(0.5)  # not the same for all: a layer norm would take that out again
    ctx = context(adapter)
    value = KeyLocking()(ctx)
    place = 5  # start, a, photo, of, a, <v>
    own = micro.keys(ctx.passes[Role.SUBJECT].cond[slice(0, 1)])
    base = micro.keys(micro.base_text(["a photo of a cat in the snow"]))
    wanted = [
        ((k - k0)[0, place].square().sum() / k0[0, place].square().sum()) for k, k0 in zip(own, base, strict=True)
    ]
    torch.testing.assert_close(value, torch.stack(wanted).mean())
    assert value > 1e-3
    value.backward()
    assert adapter.tokens.vectors[0].grad.abs().max() > 0


def test_a_caption_without_the_class_word_as_a_word_is_named(micro: UNetModel) -> None:
    adapter = Adapter(micro, LearnedTokens(), NoEdits(), CONCEPT)
    with pytest.raises(UserError, match=r"key_locking: 'a photo of two cats' does not hold the class word 'cat'"):
        KeyLocking()(context(adapter, SENTENCE, "a photo of two {}s"))


def test_a_mean_over_rows_so_that_micro_batches_are_the_batch(micro: UNetModel) -> None:
    adapter = Adapter(micro, LearnedTokens(), NoEdits(), CONCEPT)
    with torch.no_grad():
        adapter.tokens.vectors[0][:, ::2].add_(0.5)  # not the same for all: a layer norm would take that out again
    rows = (SENTENCE, "a sketch of a {}", SENTENCE)
    apart = [KeyLocking()(context(adapter, row)) for row in rows]
    assert not torch.allclose(apart[0], apart[1])
    torch.testing.assert_close(KeyLocking()(context(adapter, *rows)), torch.stack(apart).mean())


def test_weights_are_pulled_back_too(micro: UNetModel) -> None:
    adapter = Adapter(micro, LearnedTokens(), LoraEdits(rank=2), CONCEPT)
    named = dict(adapter.parts())
    key = next(name for name in named if "attn2.to_k.lora_B" in name)
    other = next(name for name in named if "attn1.to_k.lora_B" in name)
    with torch.no_grad():
        named[key].add_(0.1)
    KeyLocking()(context(adapter)).backward()
    assert named[key].grad.abs().max() > 0
    assert named[other].grad is None


def test_captions_without_a_learned_word_are_refused(micro: UNetModel) -> None:
    adapter = Adapter(micro, LearnedTokens(phrase="sks {placeholder}"), NoEdits(), CONCEPT)
    ctx = context(adapter)
    data = ctx.passes[Role.SUBJECT]
    object.__setattr__(data, "cond", micro.base_text(["a cat", "a cat"]))
    with pytest.raises(UserError, match=r"losses\.key_locking"):
        KeyLocking()(ctx)

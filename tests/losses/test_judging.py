"""How many passes judging takes, and that sharing one changes no gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from palp_lab.adapter import Adapter
from palp_lab.edits.none import NoEdits
from palp_lab.losses.base import StepContext
from palp_lab.losses.prompt_alignment import PromptAlignment
from palp_lab.model.unet import UNetModel
from palp_lab.types import Kind, Role
from tests.contracts import parts
from tests.losses.toy import CONCEPT, ToyModel, ToyTokens, gradients, toy_adapter, toy_context


def words_only(kind: Kind) -> Adapter:
    """A toy on which only the word is learned."""
    adapter = Adapter(ToyModel(kind), ToyTokens(), NoEdits(), CONCEPT)
    with torch.no_grad():
        adapter.tokens.vector.add_(0.3)
    return adapter


def judged(adapter: Adapter, **how: Any) -> tuple[Tensor, list[tuple[int, bool, bool]]]:
    """The gradient of the term, and the passes it took beyond the one with a graph."""
    ctx = toy_context(adapter)
    calls = adapter.model.denoiser.calls
    before = len(calls)
    value = PromptAlignment(**how)(ctx)
    return gradients(value, adapter), calls[before:]


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(
    ("scales", "together", "apart"),
    [
        ({"alpha": 15.0, "beta": 7.5}, 12, [8, 8]),
        ({"alpha": 15.0, "beta": 1.0}, 12, [8, 4]),
        ({"alpha": 1.0, "beta": 7.5}, 12, [4, 8]),
        ({"alpha": 1.0, "beta": 1.0}, 8, [4, 4]),
        ({"alpha": 0.0, "beta": 0.0}, 4, [4, 4]),
        ({"alpha": 15.0, "beta": 7.5, "noise": "fresh", "align_t": "independent"}, 12, [8, 8]),
    ],
)
def test_base_and_personal_rows_share_a_pass_where_only_words_are_learned(
    kind: Kind, scales: dict[str, Any], together: int, apart: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the empty prompt are the same for both and made once."""
    shared, one = judged(words_only(kind), **scales)
    assert [rows for rows, _, _ in one] == [together]
    monkeypatch.setattr(NoEdits, "shares_base_pass", False)
    separate, two = judged(words_only(kind), **scales)
    assert [rows for rows, _, _ in two] == apart
    assert not any(graph for _, _, graph in (*one, *two))
    torch.testing.assert_close(shared, separate, rtol=1e-12, atol=1e-14)
    assert (separate.abs().max() > 1e-6) == (scales["beta"] > 0), "of two empty prompts the difference is 0"


def test_an_edit_of_the_weights_keeps_two_passes() -> None:
    _, calls = judged(toy_adapter(Kind.EPS))
    assert calls == [(8, False, False), (8, True, False)]


@pytest.mark.parametrize("kind", list(Kind))
def test_the_three_prompts_of_nfsd_share_a_pass(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, calls = judged(toy_adapter(kind), reference="nfsd")
    assert calls == [(12, False, False)]

    def one_by_one(self: StepContext, x_t: Tensor, t: Tensor, texts: list[Any]) -> tuple[Tensor, ...]:
        return tuple(self.base(x_t, t, p or [""] * len(x_t), float(p is not None)) for p in texts)

    monkeypatch.setattr(StepContext, "base_each", one_by_one)
    separate, calls = judged(toy_adapter(kind), reference="nfsd")
    assert len(calls) == 3
    torch.testing.assert_close(shared, separate, rtol=1e-12, atol=1e-14)


def test_a_second_reader_makes_no_pass() -> None:
    adapter = words_only(Kind.V)
    ctx = toy_context(adapter)
    first = PromptAlignment()(ctx)
    before = len(adapter.model.denoiser.calls)
    assert torch.equal(first, PromptAlignment()(ctx))
    assert len(adapter.model.denoiser.calls) == before


def test_words_that_differ_by_site_share_a_pass_too(micro: UNetModel, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = parts.adapter(micro, tokens="per_layer", edits="none")
    parts.train_a_little(adapter)
    passes: list[int] = []
    real = UNetModel.predict
    monkeypatch.setattr(UNetModel, "predict", lambda self, x, t, c: passes.append(len(x)) or real(self, x, t, c))
    x_t, t = parts.scene(micro)
    asked = (["a sketch of a cat"] * 2, 15.0, ["a photo of a {}"] * 2, 7.5)
    shared = StepContext(adapter, {}, 0, 0).both(x_t, t, *asked)
    monkeypatch.setattr(NoEdits, "shares_base_pass", False)
    separate = StepContext(adapter, {}, 0, 0).both(x_t, t, *asked)
    assert passes == [6, 4, 4]
    for one, two in zip(shared, separate, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("adapter", [words_only, toy_adapter])
@pytest.mark.parametrize(
    "other",
    [
        {"alpha": 3.0}, {"beta": 3.0}, {"noise": "fresh"}, {"align_t": "independent"}, {"clamp": 0.05},
        {"clean": "a painting of a {}"}, {"reference": "noise"}, {"reference": "noise", "alpha": 3.0},
    ],
    ids=str,
)  # fmt: skip
def test_two_terms_of_one_step_are_what_each_would_be_alone(adapter: Any, other: dict[str, Any]) -> None:
    """What a step remembers is told apart by all that decides it."""
    terms = [PromptAlignment(), PromptAlignment(reference="noise"), PromptAlignment(**other)]
    ctx = toy_context(adapter(Kind.EPS))
    together = [term(ctx) for term in terms]
    alone = [term(toy_context(adapter(Kind.EPS))) for term in terms]
    assert all(map(torch.equal, together, alone))


@pytest.mark.parametrize("adapter", [words_only, toy_adapter])
def test_other_sentences_than_the_photos_are_read_too(adapter: Any) -> None:
    """The photos' own caption has been encoded already; no other has."""
    ctx = toy_context(adapter(Kind.EPS))
    data = ctx.passes[Role.SUBJECT]
    sentences = ["a sketch of {}"] * len(data.x0)
    with torch.no_grad():
        expected = ctx.model.predict(data.x_t, data.t, ctx.adapter.encode(sentences)).raw
    assert torch.equal(ctx.personal(data.x_t, data.t, sentences, 1.0), expected)
    assert torch.equal(ctx.personal(data.x_t, data.t, data.sentences, 1.0), data.pred.raw)

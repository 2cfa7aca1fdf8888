"""What prompt alignment does beyond its gradient: streams, switches, bounds, balance."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from palp_lab.adapter import Adapter
from palp_lab.dataset.concept import Concept
from palp_lab.diffusion.prediction import Prediction
from palp_lab.edits.none import NoEdits
from palp_lab.engine.gradients import at_prediction
from palp_lab.losses.judges import NEGATIVE_PROMPT
from palp_lab.losses.prompt_alignment import PromptAlignment
from palp_lab.losses.reconstruction import Reconstruction
from palp_lab.model.base import AbstractModel, TextCond, Words
from palp_lab.types import Kind, Role, UserError
from tests.losses.toy import CONCEPT, ToyModel, ToyTokens, gradients, toy_adapter, toy_context


@pytest.mark.parametrize("kind", list(Kind))
def test_silent_where_personal_and_clean_are_the_same(kind: Kind) -> None:
    """An untrained change, a word that is the class word, the same sentence and guidance: nothing to align."""
    adapter = toy_adapter(kind, start=0.0, moved=False)
    same = "a photo of a {}"
    ctx = toy_context(adapter, target=same, caption=same)
    loss = PromptAlignment(alpha=7.5, beta=7.5)
    assert loss(ctx).abs() < 1e-25
    with torch.no_grad():
        adapter.tokens.vector.add_(0.3)
    assert loss(toy_context(adapter, target=same, caption=same)) > 1e-8


@pytest.mark.parametrize("kind", list(Kind))
def test_exact_prediction_is_judged_where_it_stands(kind: Kind) -> None:
    """An overfitted network noises its estimate back to the same x_t (same t, same noise)."""
    ctx = toy_context(toy_adapter(kind))
    data = ctx.passes[Role.SUBJECT]
    exact = data.pred.with_raw(data.pred.target(data.x0, data.noise))
    again = ctx.model.path.add_noise(exact.x0, data.noise, data.t)
    torch.testing.assert_close(again, data.x_t, rtol=1e-10, atol=1e-12)


def test_the_clean_estimate_at_the_end_of_the_clock_is_not_made_in_half_precision() -> None:
    """Eq. 2 divides by 0.068 there: with a half precision output it is computed in float32 or wider."""
    ctx = toy_context(toy_adapter(Kind.EPS))
    data = ctx.passes[Role.SUBJECT]
    last = torch.full_like(data.t, 999)
    half = Prediction(data.noise.half(), data.x_t.half(), last, Kind.EPS, ctx.model.path)
    exact = Prediction(data.noise.half().double(), data.x_t.half().double(), last, Kind.EPS, ctx.model.path)
    assert half.x0.dtype == torch.float32
    torch.testing.assert_close(half.x0.double(), exact.x0, rtol=1e-5, atol=1e-4)


def test_the_clamp_acts_on_the_value_and_not_on_the_derivative() -> None:
    adapter = toy_adapter(Kind.EPS)
    ctx = toy_context(adapter)
    data = ctx.passes[Role.SUBJECT]
    tight = PromptAlignment(reference="noise", clamp=0.01)
    free = PromptAlignment(reference="noise")
    assert data.pred.x0.abs().max() > 0.01
    assert not torch.allclose(tight.direction(ctx, data), free.direction(ctx, data))
    at_output = torch.autograd.grad(tight(ctx), data.pred.raw, retain_graph=True)[0]
    torch.testing.assert_close(at_output, -tight.direction(ctx, data) / data.pred.raw.numel())
    assert at_output.abs().min() > 0, "a clamped cell still takes its gradient"
    judged = tight._judged(ctx, data)
    held = data.pred.x0.detach().clamp(-0.01, 0.01)
    assert data.pred.x0.min() < -0.01, "there is something below to be held"
    torch.testing.assert_close(judged.x_t, ctx.model.path.add_noise(held, data.noise, data.t))
    wide = PromptAlignment(reference="noise", clamp=1e6)
    assert torch.equal(wide.direction(ctx, data), free.direction(ctx, data))


def test_the_word_can_be_left_out() -> None:
    adapter = toy_adapter(Kind.EPS)
    ctx = toy_context(adapter)
    count = adapter.tokens.vector.numel()
    both = gradients(PromptAlignment()(ctx), adapter)
    weights_only = gradients(PromptAlignment(align_updates_embedding=False)(ctx), adapter)
    assert both[:count].abs().max() > 0
    assert torch.equal(weights_only[:count], torch.zeros(count, dtype=torch.float64))
    torch.testing.assert_close(weights_only[count:], both[count:])


def test_what_is_logged_at_the_prediction_is_there_without_the_word_too() -> None:
    with_word, without = PromptAlignment(), PromptAlignment(align_updates_embedding=False)
    ctx = toy_context(toy_adapter(Kind.EPS))
    pull = [at_prediction(loss(ctx), loss.outputs(ctx)) for loss in (with_word, without)]
    assert pull[0] > 0 and pull[1] == pytest.approx(pull[0])
    assert with_word.outputs(ctx)[0] is ctx.passes[Role.SUBJECT].pred.raw is not without.outputs(ctx)[0]


def test_a_trained_text_encoder_is_not_cut_off_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = toy_adapter(Kind.EPS)
    parts = [*adapter.parts(), ("edits.text_encoder.up", torch.nn.Parameter(torch.zeros(1)))]
    monkeypatch.setattr(type(adapter), "parts", lambda self: parts)
    with pytest.raises(UserError, match=r"align_updates_embedding=false keeps this loss from all of the text"):
        PromptAlignment(align_updates_embedding=False)(toy_context(adapter))
    PromptAlignment()(toy_context(adapter))


def test_the_control_has_a_prompt_of_its_own_and_needs_no_target() -> None:
    control = PromptAlignment(clean="a photo of a {}")
    assert not control.needs_target
    assert control.clean_prompt(toy_context(toy_adapter(Kind.EPS), target=None)) == "a photo of a cat"
    assert control.clean_prompt(toy_context(toy_adapter(Kind.EPS))) == "a photo of a cat", "a target changes nothing"
    assert PromptAlignment().needs_target
    with pytest.raises(UserError, match="target"):
        PromptAlignment()(toy_context(toy_adapter(Kind.EPS), target=None))


def test_the_judges_prompt_holds_the_class_word() -> None:
    assert PromptAlignment().clean_prompt(toy_context(toy_adapter(Kind.EPS))) == "a sketch of a cat in Paris"


def test_an_independent_t_stays_in_its_range() -> None:
    ctx = toy_context(toy_adapter(Kind.EPS), batch=64)
    judged = PromptAlignment(align_t="independent", align_t_range=(0.05, 0.2))._judged(ctx, ctx.passes[Role.SUBJECT])
    assert judged.t.min() >= 50
    assert judged.t.max() < 200
    assert not torch.equal(judged.t, ctx.passes[Role.SUBJECT].t)


@pytest.mark.parametrize("kind", list(Kind))
def test_nfsd_by_hand(kind: Kind) -> None:
    """r = delta_D + 7.5 delta_C in units of noise, with the unconditional noise itself below t = 200."""
    adapter = toy_adapter(kind)
    ctx = toy_context(adapter, batch=16)
    data = ctx.passes[Role.SUBJECT]
    assert (data.t < 200).any()
    assert (data.t >= 200).any()
    loss = PromptAlignment(reference="nfsd", alpha=7.5, rescale=False)
    x_t = loss._judged(ctx, data).x_t

    def eps(prompt: str) -> torch.Tensor:
        with torch.no_grad(), adapter.off():
            return ctx.model.predict(x_t, data.t, ctx.model.base_text([prompt] * 16)).eps

    empty = eps("")
    domain = torch.where((data.t < 200)[:, None, None, None], empty, empty - eps(NEGATIVE_PROMPT))
    r = domain + 7.5 * (eps("a sketch of a cat in Paris") - empty)
    alpha, sigma = ctx.model.path.coefficients(data.t, x_t)
    k = sigma / alpha if kind is Kind.EPS else sigma
    torch.testing.assert_close(loss.direction(ctx, data), k * r, rtol=1e-9, atol=1e-11)


MEANS = {"": 0.3, "a sketch of a cat in Paris": 2.0}
PERSONAL = -1.0


class GaussianModel(ToyModel):
    """The exact noise prediction for data of unit variance around a mean: the conditioning is the mean."""

    def encode_text(self, words: Words, vectors: tuple[torch.Tensor, ...] = ()) -> TextCond:
        raise NotImplementedError

    def base_text(self, prompts: Sequence[str]) -> TextCond:
        means = torch.tensor([MEANS[prompt] for prompt in prompts], dtype=torch.float64)
        return TextCond(means[:, None, None], torch.full((len(prompts),), -1))

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, cond: TextCond) -> Prediction:
        alpha, sigma = self.path.coefficients(t, x_t)
        return Prediction(sigma * (x_t - alpha * cond.tokens[:, :, :, None]), x_t, t, self.kind, self.path)


class BelievedMean(ToyTokens):
    """One number: the mean the personalized model believes its word's pictures have."""

    def bind(self, model: AbstractModel, concept: Concept) -> None:
        self.model = model
        self.vector = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def encode(self, prompts: Sequence[str]) -> TextCond:
        own = self.vector.expand(len(prompts), 1, 1)
        return TextCond(own, torch.zeros(len(prompts), dtype=torch.long))


@pytest.mark.parametrize("noise", ["same", "fresh"])
@pytest.mark.parametrize(
    ("alpha", "beta", "weight", "rests_at"),
    [
        (1.0, 1.0, 1.0, 0.0),
        (7.5, 1.0, 1.0, 3.683),
        (15.0, 7.5, 1.0, 2.711),
        (15.0, 7.5, 0.25, 1.274),
        (15.0, 7.5, 0.1, 0.282),
        (15.0, 7.5, 5.0, 3.462),
    ],
)
def test_the_balance_of_gaussians(alpha: float, beta: float, weight: float, rests_at: float, noise: str) -> None:
    """Photos around -1, the clean prompt around 2, anything around 0.3, all of unit variance: the two losses settle at
    (2 mu_P + w (alpha mu_c + (beta - alpha) mu_0)) / (2 + w beta)."""
    adapter = Adapter(GaussianModel(Kind.EPS), BelievedMean(), NoEdits(), CONCEPT)
    mean = adapter.tokens.vector
    losses = [Reconstruction(), PromptAlignment(weight=weight, alpha=alpha, beta=beta, noise=noise)]
    for step in range(150):
        ctx = toy_context(adapter, step=step, batch=128, centre=PERSONAL)
        mean.grad = None
        sum(loss.weight * loss(ctx) for loss in losses).backward()  # type: ignore[union-attr]
        with torch.no_grad():
            mean -= 4 * mean.grad / (1 + weight * beta / 2) / (1 + step / 20)
    closed = (2 * PERSONAL + weight * (alpha * 2.0 + (beta - alpha) * 0.3)) / (2 + weight * beta)
    assert closed == pytest.approx(rests_at, abs=1e-3)
    assert mean.item() == pytest.approx(closed, abs=0.1)


def test_logging_makes_no_further_pass() -> None:
    ctx = toy_context(toy_adapter(Kind.V))
    loss = PromptAlignment()
    loss(ctx)
    before = len(ctx.model.denoiser.calls)
    assert loss.logged(ctx)["residual"] > 0
    assert len(ctx.model.denoiser.calls) == before


@pytest.mark.parametrize("other", [Reconstruction(), PromptAlignment(reference="noise", noise="fresh")])
def test_other_losses_leave_its_draws_alone(other: object) -> None:
    one, two = toy_context(toy_adapter(Kind.EPS)), toy_context(toy_adapter(Kind.EPS))
    loss = PromptAlignment(noise="fresh", align_t="independent")
    other(two)  # type: ignore[operator]
    assert torch.equal(loss(one), loss(two))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reference", "persnal"),
        ("noise", "new"),
        ("align_t", "other"),
        ("align_t_range", (0.9, 0.1)),
        ("align_t_range", [0.1]),
        ("align_t_range", [0.1, 0.2, 0.3]),
        ("align_t_range", 0.1),
        ("clean", "a cat"),
    ],
)
def test_a_wrong_value_is_named(key: str, value: object) -> None:
    with pytest.raises(UserError, match=key):
        PromptAlignment(**{key: value})

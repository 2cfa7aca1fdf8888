from __future__ import annotations

import pytest
import torch

from palp_lab.diffusion.guidance import guide
from palp_lab.diffusion.path import AbstractPath, RectifiedFlow, VariancePreserving
from palp_lab.diffusion.prediction import Prediction, native_target
from palp_lab.types import Kind

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
PATHS: dict[Kind, AbstractPath] = {
    Kind.EPS: VariancePreserving((1 - BETAS).cumprod(0)),
    Kind.V: VariancePreserving((1 - BETAS).cumprod(0)),
    Kind.FLOW: RectifiedFlow(1000),
}


def draw(kind: Kind) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 4, 3, 3, generator=rng, dtype=torch.float64).unbind(0)
    t = torch.tensor([1, 250, 500, 900, 999])
    return x0, noise, t.double() if kind is Kind.FLOW else t


@pytest.mark.parametrize("kind", list(Kind))
def test_a_perfect_output_gives_back_the_clean_latent_and_the_noise(kind: Kind) -> None:
    x0, noise, t = draw(kind)
    path = PATHS[kind]
    x_t = path.add_noise(x0, noise, t)
    pred = Prediction(native_target(kind, path, x0, noise, t), x_t, t, kind, path)
    torch.testing.assert_close(pred.x0, x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(pred.eps, noise, rtol=0, atol=1e-10)
    torch.testing.assert_close(pred.target(x0, noise), pred.raw, rtol=0, atol=0)


@pytest.mark.parametrize("kind", list(Kind))
def test_x0_and_eps_of_any_output_lie_on_the_path_through_x_t(kind: Kind) -> None:
    x0, noise, t = draw(kind)
    path = PATHS[kind]
    x_t = path.add_noise(x0, noise, t)
    pred = Prediction(torch.randn_like(x0), x_t, t, kind, path)
    torch.testing.assert_close(path.add_noise(pred.x0, pred.eps, t), x_t, rtol=0, atol=1e-10)
    again = pred.with_raw(native_target(kind, path, pred.x0, pred.eps, t))
    torch.testing.assert_close(again.raw, pred.raw, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", list(Kind))
def test_the_same_belief_written_in_each_kind_reads_the_same(kind: Kind) -> None:
    x0, noise, t = draw(kind)
    path = PATHS[kind]
    alpha, sigma = path.coefficients(t, x0)
    x_t = path.add_noise(x0, noise, t)
    belief = torch.randn_like(x0)
    by_noise = (x_t - sigma * belief) / alpha
    pred = Prediction(native_target(kind, path, by_noise, belief, t), x_t, t, kind, path)
    torch.testing.assert_close(pred.x0, by_noise, rtol=1e-9, atol=1e-9)


def test_derived_forms_of_half_precision_outputs_are_computed_wider() -> None:
    path = PATHS[Kind.EPS]
    t = torch.tensor([999])
    x0, noise = torch.randn(2, 1, 4, 3, 3).unbind(0)
    x_t = path.add_noise(x0, noise, t)
    pred = Prediction(noise.to(torch.bfloat16), x_t, t, Kind.EPS, path)
    assert pred.x0.dtype == torch.float32


def test_variance_preserving_keeps_unit_variance_and_flow_is_linear() -> None:
    t = torch.arange(1000)
    vp = PATHS[Kind.EPS]
    torch.testing.assert_close(vp.alpha(t) ** 2 + vp.sigma(t) ** 2, torch.ones(1000, dtype=torch.float64))
    flow = PATHS[Kind.FLOW]
    torch.testing.assert_close(flow.alpha(t) + flow.sigma(t), torch.ones(1000, dtype=torch.float64))
    assert flow.sigma(torch.tensor([0.0])) == 0


@pytest.mark.parametrize("kind", [Kind.EPS, Kind.FLOW])
def test_t_stays_in_the_asked_part_of_the_clock(kind: Kind) -> None:
    drawn = PATHS[kind].draw_t(4000, torch.Generator().manual_seed(0), 0.2, 0.4)
    assert drawn.min() >= 200 and drawn.max() < 400
    assert drawn.float().mean() == pytest.approx(300, abs=5)
    whole = PATHS[kind].draw_t(20000, torch.Generator().manual_seed(0))
    assert whole.min() < 5 and 995 <= whole.max() < 1000


def test_every_step_of_a_discrete_clock_is_drawn() -> None:
    path = VariancePreserving(torch.linspace(0.99, 0.5, 4))
    assert set(path.draw_t(500, torch.Generator().manual_seed(0)).tolist()) == {0, 1, 2, 3}
    assert set(path.draw_t(500, torch.Generator().manual_seed(0), 0.25, 0.75).tolist()) == {1, 2}
    assert set(path.draw_t(500, torch.Generator().manual_seed(0), 0.5, 0.6).tolist()) == {2}, "never no step at all"


def test_guidance_one_is_the_conditional_output_and_zero_the_unconditional_one() -> None:
    without, given = torch.randn(2, 3, 4).double().unbind(0)
    torch.testing.assert_close(guide(without, given, 1.0), given)
    torch.testing.assert_close(guide(without, given, 0.0), without, rtol=0, atol=0)
    torch.testing.assert_close(guide(without, given, 7.5), -6.5 * without + 7.5 * given)

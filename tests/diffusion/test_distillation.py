"""The gradient table of score distillation through the clean estimate, against automatic differentiation.

phi are the weights of a small network that stands for the denoiser; the residual r is a constant.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from palp_lab.diffusion.distillation import (
    clean_estimate_factor,
    half_square_to_shifted,
    noise_units,
    rescale_factor,
)
from palp_lab.diffusion.guidance import guide
from palp_lab.diffusion.prediction import Prediction, native_target
from palp_lab.types import Kind
from tests.diffusion.test_prediction import PATHS, draw

KINDS = list(Kind)


class Scene:
    """One step: a network, its prediction, a judge's native outputs at the noised clean estimate."""

    def __init__(self, kind: Kind) -> None:
        torch.manual_seed(1)
        x0, noise, t = draw(kind)
        self.kind, self.path, self.t = kind, PATHS[kind], t
        self.net = nn.Sequential(nn.Conv2d(4, 6, 1), nn.Tanh(), nn.Conv2d(6, 4, 1)).double()
        self.x_t = self.path.add_noise(x0, noise, t)
        self.pred = Prediction(self.net(self.x_t), self.x_t, t, kind, self.path)
        judge = nn.Conv2d(4, 8, 1).double()
        with torch.no_grad():
            self.judged = self.path.add_noise(self.pred.x0, noise, t)
            clean, personal = judge(self.judged).chunk(2, 1)
        self.clean = Prediction(clean, self.judged, t, kind, self.path)
        self.personal = Prediction(personal, self.judged, t, kind, self.path)
        self.noise = noise

    def gradient(self, scalar: Tensor) -> Tensor:
        found = torch.autograd.grad(scalar, list(self.net.parameters()), retain_graph=True)
        return torch.cat([g.flatten() for g in found])

    @property
    def residual(self) -> Tensor:
        """In units of noise, by the definition: difference of what the two judges believe is the noise."""
        return (self.clean.eps - self.personal.eps).detach()


@pytest.fixture(params=KINDS, ids=str)
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.param)


def literal(scene: Scene, residual: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Eq. 6 as written: weight * residual * d x0hat / d phi, by automatic differentiation through x0hat."""
    return scene.gradient((weight * residual * scene.pred.x0).sum())


def test_clean_estimate_factor_is_the_derivative_of_the_clean_estimate(scene: Scene) -> None:
    pulled = torch.randn_like(scene.x_t)
    k = clean_estimate_factor(scene.kind, scene.path, scene.t, scene.x_t)
    torch.testing.assert_close(
        scene.gradient((pulled * scene.pred.x0).sum()), -scene.gradient((k * pulled * scene.pred.raw).sum())
    )


def test_native_residuals_become_noise(scene: Scene) -> None:
    native = scene.clean.raw - scene.personal.raw
    torch.testing.assert_close(noise_units(scene.kind, scene.path, scene.t, native), scene.residual)


def test_three_surrogates_have_the_literal_gradient(scene: Scene) -> None:
    r = scene.residual
    k = clean_estimate_factor(scene.kind, scene.path, scene.t, r)
    raw, x0, wanted = scene.pred.raw, scene.pred.x0, literal(scene, r)
    shifted = half_square_to_shifted(raw, k * r) * raw.numel()
    inner = -((k * r).detach() * raw).sum()
    through_x0 = 0.5 * (x0 - (x0 - r).detach()).square().sum()
    for surrogate in (shifted, inner, through_x0):
        torch.testing.assert_close(scene.gradient(surrogate), wanted, rtol=1e-9, atol=1e-12)


def test_rescaled_surrogate_has_the_literal_gradient_times_alpha_over_sigma(scene: Scene) -> None:
    r = scene.residual
    k = clean_estimate_factor(scene.kind, scene.path, scene.t, r)
    scale = rescale_factor(scene.path, scene.t, r)
    surrogate = half_square_to_shifted(scene.pred.raw, scale * k * r) * r.numel()
    torch.testing.assert_close(scene.gradient(surrogate), literal(scene, r, scale), rtol=1e-9, atol=1e-12)


def test_rescaled_factors_are_those_of_the_table(scene: Scene) -> None:
    alpha, _ = scene.path.coefficients(scene.t, scene.x_t)
    k = clean_estimate_factor(scene.kind, scene.path, scene.t, scene.x_t)
    product = k * rescale_factor(scene.path, scene.t, scene.x_t)
    torch.testing.assert_close(product, torch.ones_like(alpha) if scene.kind is Kind.EPS else alpha)


def test_one_shifted_target_is_reconstruction_plus_alignment(scene: Scene) -> None:
    lam, r = 0.25, scene.residual
    k = clean_estimate_factor(scene.kind, scene.path, scene.t, r)
    target = scene.pred.target(torch.zeros_like(scene.x_t), scene.noise)
    apart = (scene.pred.raw - target).square().mean() + lam * half_square_to_shifted(scene.pred.raw, k * r)
    merged = (scene.pred.raw - (target + lam / 2 * k * r)).square().mean()
    torch.testing.assert_close(scene.gradient(apart), scene.gradient(merged), rtol=1e-9, atol=1e-12)


def test_score_distillation_with_noise_as_reference(scene: Scene) -> None:
    """SDS: the residual in native units is taken against the native target of (x0hat, noise)."""
    x0 = scene.pred.x0.detach()
    native = scene.clean.raw - native_target(scene.kind, scene.path, x0, scene.noise, scene.t)
    by_noise = scene.clean.eps - scene.noise
    torch.testing.assert_close(noise_units(scene.kind, scene.path, scene.t, native), by_noise)


def test_guidance_and_conversion_to_noise_commute(scene: Scene) -> None:
    guided = scene.clean.with_raw(guide(scene.personal.raw, scene.clean.raw, 7.5)).eps
    torch.testing.assert_close(guided, guide(scene.personal.eps, scene.clean.eps, 7.5))


def test_descent_moves_the_predicted_noise_along_the_residual(scene: Scene) -> None:
    """The sign: dropping Eq. 7's minus trains away from the prompt."""
    r = scene.residual
    k = clean_estimate_factor(scene.kind, scene.path, scene.t, r)
    raw = scene.pred.raw.detach().requires_grad_()
    (down,) = torch.autograd.grad(half_square_to_shifted(raw, k * r), raw)
    moved = scene.pred.with_raw(raw.detach() - down)
    assert ((moved.eps - scene.pred.eps.detach()) * r).sum() > 0
    assert ((moved.x0 - scene.pred.x0.detach()) * r).sum() < 0


def test_same_noise_shifts_the_judges_input_by_the_reconstruction_error_only() -> None:
    scene = Scene(Kind.EPS)
    _, sigma = scene.path.coefficients(scene.t, scene.x_t)
    expected = scene.x_t + sigma * (scene.noise - scene.pred.raw.detach())
    torch.testing.assert_close(scene.judged, expected, rtol=1e-9, atol=1e-9)

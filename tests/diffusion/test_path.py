"""Where training meets the path: densities and shift of the rectified flow."""

from __future__ import annotations

import pytest
import torch

from palp_lab.diffusion.path import RectifiedFlow


def draw(count: int = 40_000, low: float = 0.0, high: float = 1.0, **how: object) -> torch.Tensor:
    return RectifiedFlow(1000, **how).draw_t(count, torch.Generator().manual_seed(0), low, high)  # type: ignore[arg-type]


def test_plain_draws_are_uniform_and_as_they_always_were() -> None:
    expected = torch.rand(40_000, generator=torch.Generator().manual_seed(0)) * 1000
    assert torch.equal(draw(), expected)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.5, 0.6)])
def test_logit_normal_draws_have_a_normal_logit(mean: float, deviation: float) -> None:
    """Source: arXiv 2403.03206, Eq. 19."""
    logit = (draw(logit_normal=(mean, deviation)).double() / 1000).logit()
    assert logit.mean().item() == pytest.approx(mean, abs=0.02)
    assert logit.std().item() == pytest.approx(deviation, abs=0.02)
    assert ((logit - mean) / deviation).abs().lt(1).double().mean().item() == pytest.approx(0.6827, abs=0.01)


@pytest.mark.parametrize("how", [{}, {"logit_normal": (0.0, 1.0)}], ids=["uniform", "logit_normal"])
def test_the_shift_moves_every_draw_as_the_paper_says(how: dict) -> None:
    """Source: arXiv 2403.03206, Eq. 23 with alpha = 3."""
    plain, shifted = draw(**how).double() / 1000, draw(shift=3.0, **how).double() / 1000
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_part_of_the_clock_keeps_the_density(shift: float) -> None:
    """Draws from a part are the draws from the whole that fall into it."""
    how = {"shift": shift, "logit_normal": (0.0, 1.0)}
    whole, part = draw(200_000, **how), draw(low=0.2, high=0.6, **how)
    inside = whole[(whole >= 200) & (whole < 600)]
    assert part.min() >= 200 and part.max() <= 600
    marks = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    torch.testing.assert_close(part.quantile(marks), inside.quantile(marks), rtol=0, atol=6)


def test_no_draw_is_noise_alone_or_none() -> None:
    """At either end the native output says nothing about one of the two."""
    drawn = draw(400_000, shift=3.0, logit_normal=(0.0, 1.0))
    assert drawn.min() > 0 and drawn.max() < 1000

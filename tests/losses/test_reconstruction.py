"""The denoising loss: plain, masked, min-SNR, and the same for every kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from palp_lab.losses.base import StepContext
from palp_lab.losses.reconstruction import Reconstruction
from palp_lab.types import Kind, Role, UserError
from tests.losses.toy import toy_adapter, toy_context


def with_mask(ctx: StepContext, mask: torch.Tensor) -> StepContext:
    return replace(ctx, passes={Role.SUBJECT: replace(ctx.passes[Role.SUBJECT], mask=mask)})


@pytest.mark.parametrize("kind", list(Kind))
def test_plain_mean_of_squares(kind: Kind) -> None:
    ctx = toy_context(toy_adapter(kind))
    data = ctx.passes[Role.SUBJECT]
    wanted = (data.pred.raw - data.pred.target(data.x0, data.noise)).square().mean()
    torch.testing.assert_close(Reconstruction()(ctx), wanted)


@pytest.mark.parametrize("kind", list(Kind))
def test_min_snr_is_the_clean_estimates_error_with_a_capped_weight(kind: Kind) -> None:
    """arXiv 2303.09556, Eq. 6: min(SNR, gamma) |x0 - x0hat|^2, whatever the network predicts."""
    ctx = toy_context(toy_adapter(kind), batch=32)
    data = ctx.passes[Role.SUBJECT]
    alpha, sigma = ctx.model.path.coefficients(data.t, data.x0)
    snr = (alpha / sigma).square().clamp_max(5.0)
    wanted = (snr * (data.pred.x0 - data.x0).square()).mean()
    torch.testing.assert_close(Reconstruction(min_snr=5.0)(ctx), wanted, rtol=1e-9, atol=1e-11)


def test_a_full_mask_is_the_plain_loss_and_the_rest_of_a_mask_does_not_count() -> None:
    ctx = toy_context(toy_adapter(Kind.EPS))
    full = with_mask(ctx, torch.ones(4, 1, 2, 2))
    torch.testing.assert_close(Reconstruction(masked=True)(full), Reconstruction()(ctx))
    mask = torch.zeros(4, 1, 2, 2)
    mask[:, :, 0, 0] = 1
    data = ctx.passes[Role.SUBJECT]
    wanted = (data.pred.raw - data.noise)[:, :, 0, 0].square().mean()
    torch.testing.assert_close(Reconstruction(masked=True)(with_mask(ctx, mask)), wanted)
    torch.testing.assert_close(Reconstruction()(with_mask(ctx, mask)), Reconstruction()(ctx))


def test_masked_without_masks_and_a_wrong_gamma_are_said() -> None:
    with pytest.raises(UserError, match=r"losses\.reconstruction\.masked"):
        Reconstruction(masked=True)(toy_context(toy_adapter(Kind.EPS)))
    with pytest.raises(UserError, match=r"losses\.reconstruction\.min_snr"):
        Reconstruction(min_snr=0)

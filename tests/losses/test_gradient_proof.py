"""The gradient of the alignment term is that of its definition, by literal automatic differentiation in float64.

Source: arXiv 2401.06105, Eqs. 2 and 4 to 7.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from palp_lab.losses.base import StepContext
from palp_lab.losses.prompt_alignment import PromptAlignment
from palp_lab.losses.reconstruction import Reconstruction
from palp_lab.types import Kind, Role
from tests.losses.toy import gradients, toy_adapter, toy_context

EXACT = {"rtol": 1e-12, "atol": 1e-14}
KINDS = list(Kind)
VARIANTS = list(itertools.product(["personal", "noise"], ["same", "fresh"], ["same", "independent"], [True, False]))


def eps_of(ctx: StepContext, x_t: Tensor, t: Tensor, prompts: list[str], guidance: float, personal: bool) -> Tensor:
    """Guided noise prediction, written out: Eq. 5 on predictions in units of noise."""
    adapter, model = ctx.adapter, ctx.model

    def one(texts: list[str]) -> Tensor:
        cond = adapter.tokens.encode(texts) if personal else model.encode_text(model.tokenize(texts))
        return model.predict(x_t, t, cond).eps

    def both() -> Tensor:
        return (1 - guidance) * one([""] * len(prompts)) + guidance * one(prompts)

    if personal:
        return both()
    with adapter.edits.disabled():
        return both()


def definition(ctx: StepContext, how: dict[str, Any]) -> Tensor:
    """Eqs. 4 and 6 as printed: a scalar <sg(w r), x0hat> whose gradient is w r dx0hat/dphi, averaged over elements.

    x0hat carries its graph through the path's own formula, and r is in units of noise. For `rescale` w makes the shift
    of the native target equal the native residual; for eps with the same t it is the paper's alpha/sigma.
    """
    data, path = ctx.passes[Role.SUBJECT], ctx.model.path
    alpha, sigma = path.coefficients(data.t, data.x0)
    y = data.pred.raw
    x0hat = {
        Kind.EPS: (data.x_t - sigma * y) / alpha,
        Kind.V: alpha * data.x_t - sigma * y,
        Kind.FLOW: data.x_t - sigma * y,
    }[data.pred.kind]
    t = data.t
    if how["align_t"] == "independent":
        t = path.draw_t(len(t), ctx.rng("prompt_alignment/t"))
    noise = data.noise
    if how["noise"] == "fresh":
        noise = torch.randn(noise.shape, generator=ctx.rng("prompt_alignment/noise"), dtype=noise.dtype)
    a2, s2 = path.coefficients(t, data.x0)
    with torch.no_grad():
        judged = a2 * x0hat + s2 * noise
        b = len(t)
        clean, own = ["a sketch of a cat in Paris"] * b, ["a photo of <v>"] * b
        r = eps_of(ctx, judged, t, clean, how["alpha"], personal=False)
        r = r - (eps_of(ctx, judged, t, own, how["beta"], personal=True) if how["reference"] == "personal" else noise)
        w = torch.ones_like(alpha)
        if how["rescale"]:
            k = sigma / alpha if data.pred.kind is Kind.EPS else sigma
            w = 1 / (k * (1 if data.pred.kind is Kind.EPS else a2))
    return (w * r * x0hat).mean()


def recipe(reference: str, noise: str, align_t: str, rescale: bool) -> dict[str, Any]:
    return {
        "reference": reference, "noise": noise, "align_t": align_t, "rescale": rescale, "alpha": 15.0, "beta": 7.5,
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("reference", "noise", "align_t", "rescale"), VARIANTS)
def test_equals_the_definition(kind: Kind, reference: str, noise: str, align_t: str, rescale: bool) -> None:
    adapter = toy_adapter(kind)
    ctx = toy_context(adapter)
    how = recipe(reference, noise, align_t, rescale)
    ours = gradients(PromptAlignment(**how)(ctx), adapter)
    literal = gradients(definition(ctx, how), adapter)
    assert ours.abs().max() > 1e-6
    torch.testing.assert_close(ours, literal, **EXACT)


@pytest.mark.parametrize("kind", [Kind.EPS])
def test_rescaling_is_the_papers_factor(kind: Kind) -> None:
    """For eps and the same t the weight of the definition is alpha/sigma."""
    adapter = toy_adapter(kind)
    ctx = toy_context(adapter)
    data = ctx.passes[Role.SUBJECT]
    alpha, sigma = ctx.model.path.coefficients(data.t, data.x0)
    loss = PromptAlignment(**recipe("personal", "same", "same", True))
    raw = PromptAlignment(**recipe("personal", "same", "same", False))
    torch.testing.assert_close(loss.direction(ctx, data), alpha / sigma * raw.direction(ctx, data), **EXACT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_both_losses_are_one_mean_square_to_a_shifted_target(kind: Kind, weight: float) -> None:
    """|y - y*|^2 + lambda align has the gradient of |y - (y* + lambda/2 d)|^2."""
    adapter = toy_adapter(kind)
    ctx = toy_context(adapter)
    data = ctx.passes[Role.SUBJECT]
    loss = PromptAlignment(weight=weight)
    total = gradients(Reconstruction()(ctx) + weight * loss(ctx), adapter)
    target = data.pred.target(data.x0, data.noise) + weight / 2 * loss.direction(ctx, data)
    torch.testing.assert_close(total, gradients((data.pred.raw - target).square().mean(), adapter), **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_no_matter_how_the_network_speaks(kind: Kind) -> None:
    """With the same t, a network's eps, v or flow face gives  q^2 x {the native mean square}: the balance of the two
    terms at every t is the paper's. Proved by reading one toy as noise and weighting its rows by 1/q^2."""
    adapter = toy_adapter(kind)
    ctx = toy_context(adapter)
    data, path = ctx.passes[Role.SUBJECT], ctx.model.path
    q = torch.ones_like(data.x0) if kind is Kind.EPS else path.coefficients(data.t, data.x0)[0].expand_as(data.x0)
    native = data.pred.target(data.x0, data.noise) + 0.5 * PromptAlignment(weight=1.0).direction(ctx, data)
    shift_eps = 0.5 * q * PromptAlignment(weight=1.0).direction(ctx, data)
    in_eps = ((data.pred.eps - (data.noise + shift_eps)).square() / q**2).mean()
    torch.testing.assert_close(
        gradients((data.pred.raw - native).square().mean(), adapter), gradients(in_eps, adapter), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("kind", KINDS)
def test_descent_moves_the_noise_toward_the_clean_prompt(kind: Kind) -> None:
    """Eq. 7's minus: along the negative gradient the predicted noise moves along +r, x0hat along -r."""
    adapter = toy_adapter(kind)
    ctx = toy_context(adapter)
    data = ctx.passes[Role.SUBJECT]
    loss = PromptAlignment(alpha=1.0, beta=1.0, rescale=False)
    raw = data.pred.raw
    step = -torch.autograd.grad(loss(ctx), raw, retain_graph=True)[0]
    moved = data.pred.with_raw((raw + step).detach())
    before = data.pred.with_raw(raw.detach())
    x_t = (
        before.x0 * ctx.model.path.coefficients(data.t, raw)[0]
        + ctx.model.path.coefficients(data.t, raw)[1] * data.noise
    )
    with torch.no_grad():
        r = eps_of(ctx, x_t, data.t, ["a sketch of a cat in Paris"] * 4, 1.0, False)
        r = r - eps_of(ctx, x_t, data.t, ["a photo of <v>"] * 4, 1.0, True)
    assert ((moved.eps - before.eps) * r).flatten(1).sum(1).min() > 0
    assert ((moved.x0 - before.x0) * r).flatten(1).sum(1).max() < 0


@pytest.mark.parametrize("kind", KINDS)
def test_by_finite_differences(kind: Kind) -> None:
    """Without automatic differentiation at all: x0hat moved by a small step of one parameter, r held."""
    adapter = toy_adapter(kind)
    ctx = toy_context(adapter)
    data = ctx.passes[Role.SUBJECT]
    how = recipe("personal", "same", "same", False)
    loss = PromptAlignment(**how)
    ours = gradients(loss(ctx), adapter)
    direction = loss.direction(ctx, data)
    k = ctx.model.path.coefficients(data.t, data.x0)
    factor = k[1] / k[0] if kind is Kind.EPS else k[1]
    r = direction / factor
    flat = adapter.edits.up
    at, h = (3, 1), 1e-6

    def x0hat() -> Tensor:
        return ctx.model.predict(data.x_t, data.t, adapter.encode(data.sentences)).x0

    with torch.no_grad():
        flat[at] += h
        above = x0hat()
        flat[at] -= 2 * h
        below = x0hat()
        flat[at] += h
    numeric = (r * (above - below) / (2 * h)).mean()
    index = adapter.tokens.vector.numel() + adapter.edits.down.numel() + 3 * 2 + 1
    torch.testing.assert_close(ours[index], numeric, rtol=1e-6, atol=1e-9)


def everything_in_graph(value: Tensor) -> set[Tensor]:
    """Leaves of a graph, and every tensor its nodes saved."""
    seen, leaves, queue = set(), set(), [value.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(node.variable)
        queue += [parent for parent, _ in node.next_functions]
    return leaves


@pytest.mark.parametrize("reference", ["personal", "noise", "nfsd"])
def test_nothing_of_base_or_judges_is_in_the_graph(reference: str) -> None:
    adapter = toy_adapter(Kind.V)
    ctx = toy_context(adapter)
    denoiser = adapter.model.denoiser
    before = len(denoiser.calls)
    value = PromptAlignment(reference=reference)(ctx)
    judging = denoiser.calls[before:]
    assert judging
    assert not any(graph for _, _, graph in judging)
    assert everything_in_graph(value) <= {p for _, p in adapter.parts()}
    value.backward()
    assert denoiser.into.grad is None
    assert denoiser.out.grad is None


def test_the_judges_see_what_they_should() -> None:
    """Base: change off, rows with and without prompt in one pass. Personalized: change on, both rows too."""
    adapter = toy_adapter(Kind.EPS)
    ctx = toy_context(adapter)
    calls = adapter.model.denoiser.calls
    before = len(calls)
    PromptAlignment()(ctx)
    assert calls[before:] == [(8, False, False), (8, True, False)]
    ctx = toy_context(adapter)
    before = len(calls)
    PromptAlignment(beta=1.0)(ctx)
    assert calls[before:] == [(8, False, False), (4, True, False)], "beta 1 needs no empty prompt"

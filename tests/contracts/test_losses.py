"""What every loss of conf/losses keeps, whoever wrote it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from palp_lab.build import build_all
from palp_lab.composition import compose, conf_folder
from palp_lab.losses.base import AbstractLoss, StepContext
from palp_lab.types import Kind, Role, UserError
from tests.losses.toy import gradients, toy_adapter, toy_context

NAMES = sorted(path.stem for path in (conf_folder() / "losses").glob("*.yaml"))
each_loss = pytest.mark.parametrize("name", NAMES)


@cache
def nodes(name: str) -> DictConfig:
    return compose("train", f"losses=[{name}]", "method=ti_db").losses


def loss_of(name: str) -> AbstractLoss:
    [loss] = build_all(nodes(name), "losses").values()
    return loss


def context(kind: Kind = Kind.V, step: int = 3, prior_batch: int = 4) -> StepContext:
    """Both streams, the prior's rows under the class word."""
    adapter = toy_adapter(kind)
    ctx = toy_context(adapter, step)
    data = toy_context(adapter, step + 100, batch=prior_batch).passes[Role.SUBJECT]
    cond = adapter.model.base_text(["a cat"] * prior_batch)
    prior = replace(
        data, cond=cond, sentences=("a {}",) * prior_batch, pred=adapter.model.predict(data.x_t, data.t, cond)
    )
    return replace(ctx, passes={**ctx.passes, Role.PRIOR: prior})


@each_loss
def test_same_context_and_seed_same_value(name: str) -> None:
    assert torch.equal(loss_of(name)(context()), loss_of(name)(context()))


@each_loss
@pytest.mark.parametrize("kind", list(Kind))
def test_a_finite_scalar_that_reaches_the_adapter_and_nothing_else(name: str, kind: Kind) -> None:
    ctx = context(kind)
    value = loss_of(name)(ctx)
    assert value.shape == ()
    assert torch.isfinite(value)
    assert gradients(value, ctx.adapter).abs().max() > 0
    value.backward()
    denoiser = ctx.model.denoiser
    assert denoiser.into.grad is None
    assert denoiser.out.grad is None


@each_loss
def test_it_says_where_it_comes_from_and_what_it_reads(name: str) -> None:
    loss = loss_of(name)
    assert "arXiv" in loss.source
    ctx = context()
    loss(replace(ctx, passes={role: ctx.passes[role] for role in loss.reads}))


@each_loss
def test_the_size_of_the_other_stream_does_not_matter(name: str) -> None:
    loss = loss_of(name)
    if loss.reads == {Role.SUBJECT}:
        assert torch.equal(loss(context(prior_batch=2)), loss(context(prior_batch=6)))
    else:
        assert not torch.equal(loss(context(prior_batch=2)), loss(context(prior_batch=6)))


@each_loss
def test_the_reduction_is_a_mean(name: str) -> None:
    """A batch twice over has the same value."""
    ctx = context()
    twice = {}
    for role, data in ctx.passes.items():
        cond, x_t, t = data.cond.repeat(2), data.x_t.repeat_interleave(2, 0), data.t.repeat_interleave(2, 0)
        twice[role] = replace(
            data, x0=data.x0.repeat_interleave(2, 0), noise=data.noise.repeat_interleave(2, 0), t=t, x_t=x_t, cond=cond,
            sentences=tuple(s for s in data.sentences for _ in range(2)), pred=ctx.model.predict(x_t, t, cond),
        )  # fmt: skip
    doubled = replace(ctx, passes=twice, _memo={})
    torch.testing.assert_close(loss_of(name)(doubled), loss_of(name)(ctx))


@each_loss
def test_its_node_is_named_and_complete(name: str) -> None:
    [(key, node)] = nodes(name).items()
    assert "weight" in OmegaConf.to_container(node)
    assert (conf_folder() / "losses" / f"{key}.yaml").is_file()


def test_the_aliases_are_prompt_alignment() -> None:
    dds, sds, palp = (vars(loss_of(name)) for name in ("dds", "sds", "prompt_alignment"))
    assert dds == palp
    assert sds == {**palp, "reference": "noise"}


@pytest.mark.parametrize("words", ["[prompt_alignment,sds]", "[reconstruction, dds, sds]"])
def test_two_words_for_one_loss_are_refused(words: str) -> None:
    """Hydra would merge them into one node and say nothing."""
    with pytest.raises(UserError, match=r"are two words for one loss \(prompt_alignment\)") as caught:
        compose("train", "method=ti_db", f"losses={words}")
    assert "\n" not in str(caught.value)
    assert list(compose("train", "method=ti_db", "losses=[sds,reconstruction]").losses) == [
        "prompt_alignment",
        "reconstruction",
    ]

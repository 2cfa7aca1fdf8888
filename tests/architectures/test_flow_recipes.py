"""Recipes under flow matching, from photos to scores: on a narrow Stable Diffusion 3 and on the embedded flow model."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from palp_lab.adapter import Adapter, read_adapter
from palp_lab.cell import Cell
from palp_lab.composition import compose
from palp_lab.dataset.concept import Concept
from palp_lab.edits.lora import LoraEdits
from palp_lab.losses.base import Pass, StepContext, personal_text
from palp_lab.losses.prompt_alignment import PromptAlignment
from palp_lab.model import open_model
from palp_lab.model.base import AbstractModel
from palp_lab.result_folder import RESULT, result_folder
from palp_lab.run import run
from palp_lab.study.result import load_result
from palp_lab.tokens.learned import LearnedTokens
from palp_lab.types import Kind, Role, UserError
from tests.contracts.parts import concept
from tests.micro_lab import MicroLab
from tests.model.sd3_pipelines import build

TARGET = "a sketch of a {} in the snow"


def cell(lab: MicroLab, output: Path, *words: str) -> Cell:
    return Cell(lab.compose(f"output={output}", f"target='{TARGET}'", *words))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["palp", "palp_sds", "palp_nfsd"])
def test_photos_to_scores_on_a_narrow_sd3(micro_lab: MicroLab, tmp_path: Path, method: str) -> None:
    path = build(tmp_path / "sd3", t5=method == "palp")
    words = ("model=sd3", f"model.path={path}", f"method={method}", "losses.prompt_alignment.negative=bad")
    one = cell(micro_lab, tmp_path, *words)
    run(one.config)
    folder = result_folder(one)
    result = load_result(folder / RESULT)
    assert {record.step for record in result.records} == {4}
    assert all((folder / image).is_file() for record in result.records for image in record.images)
    numbers = [one.value for record in result.records for one in record.metrics.values() if one.value is not None]
    assert numbers and all(math.isfinite(number) for number in numbers)
    tensors, about = read_adapter(folder / "adapter" / "adapter.safetensors")
    assert sum(name.startswith("tokens.vectors") for name in tensors) == (3 if method == "palp" else 2)
    assert any("add_k_proj" in name for name in tensors) and json.dumps(about)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("method=custom_diffusion",), "edits needs cross_attention"),
        (("method=p_plus",), "tokens needs per_site_text"),
        (("losses=[reconstruction,key_locking]", "method=ti_db"), "losses.key_locking needs cross_attention"),
    ],
)
def test_what_joint_attention_has_not_is_refused_before_anything_is_trained(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        run(compose("run", f"output={tmp_path}", "device=cpu", "model=tiny_flow", "prompts=quick", *words))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("method=palp",),
        ("method=p_plus", "losses=[reconstruction,prompt_alignment]"),
        ("method=custom_diffusion", "losses=[reconstruction,key_locking]"),
    ],
    ids=["palp", "p_plus", "custom_diffusion"],
)
def test_what_joint_attention_has_not_a_unet_has_under_flow_matching(
    micro_lab: MicroLab, micro_flow_path: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    # The laboratory gives its edits a rank, which these have not.
    lab = replace(micro_lab, overrides=tuple(word for word in micro_lab.overrides if not word.startswith("edits.")))
    one = cell(lab, tmp_path, "model=tiny_flow_unet", f"model.path={micro_flow_path}", *words)
    assert one.model.kind is Kind.FLOW
    run(one.config)
    records = load_result(result_folder(one) / RESULT).records
    numbers = [score.value for record in records for score in record.metrics.values() if score.value is not None]
    assert numbers and all(math.isfinite(number) for number in numbers)


def context(model: AbstractModel, what: Concept, t: float) -> tuple[StepContext, Adapter]:
    """One step at one t on the model's own idea of a photo of a cat, with a fresh word and a fresh low-rank edit."""
    adapter = Adapter(model, LearnedTokens(), LoraEdits(4), what)
    rng = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 4, *model.latent_shape, generator=rng).unbind(0)
    times = torch.full((4,), t)
    sentences = ("a photo of a {}",) * 4
    cond = personal_text(adapter, sentences)
    x_t = model.path.add_noise(x0, noise, times)
    data = Pass(x0, noise, times, x_t, sentences, cond, model.predict(x_t, times, cond))
    return StepContext(adapter, {Role.SUBJECT: data}, 0, 0, TARGET), adapter


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_flow", "tiny_flow_unet"])
@pytest.mark.parametrize("t", [400.0, 700.0])
def test_descent_moves_the_embedded_flow_models_toward_the_prompt(t: float, name: str) -> None:
    """A fresh adapter is the base under "a photo of a cat", so that the direction must be guidance from there to the
    target; and a step down the loss must bring the output nearer to what the base says under the target."""
    model = open_model(name)
    assert model.kind is Kind.FLOW
    loss = PromptAlignment(alpha=1.0, beta=1.0)
    ctx, adapter = context(model, concept(), t)
    data = ctx.passes[Role.SUBJECT]
    direction = loss.direction(ctx, data)
    with torch.no_grad():
        judged = model.path.add_noise(data.pred.x0, data.noise, data.t)
        wanted = model.predict(judged, data.t, model.base_text(["a sketch of a cat in the snow"] * 4)).raw
        own = model.predict(judged, data.t, model.base_text(["a photo of a cat"] * 4)).raw
    torch.testing.assert_close(direction, wanted - own, rtol=1e-4, atol=1e-4)
    assert direction.abs().mean() > 1e-3, "the prompt matters to this model"

    value = loss(ctx)
    parameters = [parameter for _, parameter in adapter.parts()]
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    scale = sum(float(g.square().sum()) for g in gradients if g is not None) ** 0.5
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= 0.02 / scale * gradient
        after = model.predict(data.x_t, data.t, personal_text(adapter, data.sentences)).raw
    moved = (after - data.pred.raw.detach()).flatten()
    toward = torch.cosine_similarity(moved, direction.flatten(), 0)
    assert toward > 0.1, f"the output moves by {moved.norm():.3g} at a cosine of {toward:.3f}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_flow", "tiny_flow_unet"])
def test_palp_runs_on_the_embedded_flow_models(micro_lab: MicroLab, tmp_path: Path, name: str) -> None:
    words = (f"model={name}", f"model.path={name}", "method=palp", "trainer.max_steps=6", "generate.steps=3")
    one = cell(micro_lab, tmp_path, *words)
    run(one.config)
    assert load_result(result_folder(one) / RESULT).records
    rows = (result_folder(one) / "log.csv").read_text().splitlines()
    assert "losses" in rows[0] or "prompt_alignment/residual" in rows[0]

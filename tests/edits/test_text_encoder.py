"""Edits that train the text encoder too: the base's text stays what it was, for judges and for memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from palp_lab.adapter import Adapter, read_adapter
from palp_lab.edits.full import FullEdits
from palp_lab.edits.lora import LoraEdits
from palp_lab.engine.settings import Augmentation, LogSettings, OptimizerSettings, RunSettings, TrainerSettings
from palp_lab.losses.base import StepContext
from palp_lab.losses.prior_preservation import PriorPreservation
from palp_lab.losses.prompt_alignment import PromptAlignment
from palp_lab.losses.reconstruction import Reconstruction
from palp_lab.model.sdxl import SdxlModel
from palp_lab.model.unet import UNetModel
from palp_lab.tokens.learned import LearnedTokens
from palp_lab.tokens.rare import RareTokens
from palp_lab.train import train_adapter
from tests.contracts.parts import adapter, scene, train_a_little
from tests.test_recipes import MicroDataset

EDITS = ["full+text_encoder", "lora+text_encoder"]
PROMPTS = ["a photo of a cat", "a sketch of a dog"]
each_edit = pytest.mark.parametrize("name", EDITS)


def own_text(one: Adapter) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in one.parts() if name.startswith("edits.text_encoder.")}


@each_edit
def test_what_the_base_remembers_is_the_bases_text(micro: UNetModel, name: str) -> None:
    """Also for a prompt that is first asked for while the edit is enabled."""
    fresh = UNetModel.encode_text(micro, micro.tokenize(PROMPTS[1:])).tokens
    known = micro.base_text(PROMPTS[:1]).tokens
    one = adapter(micro, tokens="rare", edits=name)
    train_a_little(one)
    with torch.no_grad():
        assert torch.equal(micro.base_text(PROMPTS).tokens, torch.cat([known, fresh]))
        assert not torch.allclose(micro.encode_prompts(PROMPTS).tokens, micro.base_text(PROMPTS).tokens, atol=1e-3)
        assert not torch.allclose(micro.unconditional(2).tokens, micro.base_text(["", ""]).tokens, atol=1e-3)
        with one.off():
            assert torch.equal(micro.encode_prompts(PROMPTS).tokens, torch.cat([known, fresh]))
            assert torch.equal(micro.unconditional(1).tokens, micro.base_text([""]).tokens)
        assert not torch.allclose(micro.encode_prompts(PROMPTS).tokens, micro.base_text(PROMPTS).tokens, atol=1e-3)


@each_edit
def test_words_with_and_without_the_concept_go_through_the_trained_encoder(micro: UNetModel, name: str) -> None:
    one = adapter(micro, edits=name)
    train_a_little(one)
    with torch.no_grad():
        rows = one.tokens.encode(["a photo of a <v>", *PROMPTS]).tokens
        assert torch.equal(rows[1:], micro.encode_prompts(PROMPTS).tokens)
    for prompt in ("a photo of a {}", "a photo of a cat"):
        value = (
            one.encode([prompt]).tokens.square().sum()
            if "{}" in prompt
            else micro.encode_prompts([prompt]).tokens.sum()
        )
        found = torch.autograd.grad(value, list(own_text(one).values()), allow_unused=True)
        assert all(g is not None and g.isfinite().all() for g in found), prompt


@each_edit
def test_the_judge_is_the_base_and_the_other_is_not(micro: UNetModel, name: str) -> None:
    x_t, t = scene(micro)
    before = StepContext(adapter(micro, edits="none"), {}, 0, 0).base(x_t, t, PROMPTS, 7.5)
    one = adapter(micro, tokens="rare", edits=name)
    with torch.no_grad():  # the text alone has moved
        for number, parameter in enumerate(own_text(one).values()):
            generator = torch.Generator().manual_seed(number)
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    ctx = StepContext(one, {}, 0, 0)
    base, personal = ctx.both(x_t, t, PROMPTS, 7.5, ["a photo of a {}"] * 2, 7.5)
    assert torch.equal(base, before)
    with one.off():
        untrained = ctx.personal(x_t.clone(), t, ["a photo of a {}"] * 2, 7.5)
    assert not torch.allclose(personal, untrained, atol=1e-4), "its words and its empty prompt are its own"


@each_edit
def test_both_encoders_of_a_larger_model_are_trained(micro_sdxl: SdxlModel, name: str) -> None:
    """The empty prompt is zeros there, whatever the text encoders have learned."""
    before = micro_sdxl.base_text(PROMPTS)
    one = adapter(micro_sdxl, edits=name)
    with torch.no_grad():
        train_a_little(one)
        after = micro_sdxl.encode_prompts(PROMPTS)
        first = micro_sdxl.texts[0].encoder.config.hidden_size
        for mine, theirs in (
            (after.tokens[..., :first], before.tokens[..., :first]),
            (after.tokens[..., first:], before.tokens[..., first:]),
            (after.pooled, before.pooled),
        ):
            assert not torch.allclose(mine, theirs, atol=1e-3)
        with one.off():
            assert torch.equal(micro_sdxl.encode_prompts(PROMPTS).tokens, before.tokens)
        assert not micro_sdxl.unconditional(1).tokens.any()
    assert {name.split(".")[1] for name, _ in one.parts() if ".text_encoder" in name} == {
        "text_encoder",
        "text_encoder_2",
    }
    assert set(one.edits.merged_text()) == {"text_encoder", "text_encoder_2"}


def test_the_vocabulary_is_not_trained(micro: UNetModel) -> None:
    one = adapter(micro, edits="full+text_encoder")
    assert own_text(one)
    assert not [name for name in own_text(one) if "token_embedding" in name]


def go(model: UNetModel, folder: Path, edits: Any, losses: Any = None, tokens: Any = None, **more: Any) -> Any:
    return train_adapter(
        model, MicroDataset(), tokens or RareTokens(), edits, losses or {"reconstruction": Reconstruction()},
        captions=["a photo of {}"], target="a sketch of {} in paris", folder=folder,
        settings=RunSettings(
            TrainerSettings(max_steps=3, batch_size=2), OptimizerSettings(lr=1e-2, weight_decay=0.0),
            LogSettings(1, 0, False), Augmentation(1),
        ),
        **more,
    )  # fmt: skip


@pytest.mark.parametrize("edits", [FullEdits, LoraEdits])
def test_it_trains_is_saved_and_comes_back(micro: UNetModel, micro_path: Path, tmp_path: Path, edits: Any) -> None:
    state = {name: tensor.clone() for name, tensor in micro.text.encoder.state_dict().items()}
    known = micro.base_text(["a photo of a cat"]).tokens.clone()
    losses = {"reconstruction": Reconstruction(), "prompt_alignment": PromptAlignment(weight=0.1)}
    outcome = go(micro, tmp_path, edits(text_encoder=True), losses, LearnedTokens())
    assert all(torch.equal(state[name], tensor) for name, tensor in micro.text.encoder.state_dict().items())
    assert torch.equal(micro.base_text(["a photo of a cat"]).tokens, known)
    tensors, _ = read_adapter(outcome.last)
    fresh = UNetModel.open(micro_path)
    one = Adapter(fresh, LearnedTokens(), edits(text_encoder=True), MicroDataset().concept())
    start = one.tensors()
    moved = [name for name in start if "text_encoder" in name and not torch.equal(start[name], tensors[name])]
    assert moved
    before = fresh.encode_prompts(["a photo of a cat"]).tokens.detach()
    # as a version of transformers that nests its layers would have written it
    nested = {name.replace("edits.text_encoder.", "edits.text_encoder.text_model."): t for name, t in tensors.items()}
    assert nested.keys() != tensors.keys()
    one.load_tensors(nested)
    assert not torch.allclose(fresh.encode_prompts(["a photo of a cat"]).tokens, before, atol=1e-4)
    assert torch.equal(fresh.base_text(["a photo of a cat"]).tokens, known)


def test_the_prior_reaches_the_text_encoder(micro: UNetModel, tmp_path: Path) -> None:
    """DreamBooth with a trained text encoder keeps the class there too: pictures of the class alone move it."""
    losses = {"reconstruction": Reconstruction(weight=0.0), "prior_preservation": PriorPreservation(pictures="given")}
    outcome = go(micro, tmp_path, FullEdits(text_encoder=True), losses)
    tensors, _ = read_adapter(outcome.last)
    state = micro.text.encoder.state_dict()
    own = {name.removeprefix("edits.text_encoder."): t for name, t in tensors.items() if ".text_encoder." in name}
    assert any(not torch.equal(tensor, state[name]) for name, tensor in own.items())


def test_without_it_an_adapter_is_what_it_was(micro: UNetModel) -> None:
    for name in ("full", "lora"):
        one = adapter(micro, edits=name)
        assert not own_text(one)
        assert micro.edited_text is None
        assert one.edits.merged_text() == one.edits.text_lora() == {}
        one.detach()

"""Stable Diffusion 3 on narrow random pipelines: parity with the stock pipeline, words in three text encoders, and
what can and cannot be trained on joint attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palp_lab.adapter import Adapter
from palp_lab.build import check_fit
from palp_lab.diffusion.sampler import sample
from palp_lab.edits.full import FullEdits
from palp_lab.edits.lora import LoraEdits
from palp_lab.edits.none import NoEdits
from palp_lab.formats.writing import Learned
from palp_lab.generate import Sampling, base, generate_pictures, personal
from palp_lab.model import open_model
from palp_lab.model.base import TextCond
from palp_lab.model.pipeline import stock_pipeline
from palp_lab.model.sd3 import Sd3Model
from palp_lab.tokens.learned import LearnedTokens
from palp_lab.types import Kind, UserError
from tests.contracts.parts import concept, make, scene, train_a_little
from tests.model.sd3_pipelines import build

PROMPTS = ["a photo of a cat, in paris", "a red dog"]


@pytest.fixture(scope="module", params=[True, False], ids=["t5", "no_t5"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("sd3") / str(request.param), t5=request.param)


@pytest.fixture
def model(folder: Path) -> Sd3Model:
    return Sd3Model.open(folder)


def stock(folder: Path, model: Sd3Model) -> Any:
    """The stock pipeline on the same folder."""
    from diffusers import StableDiffusion3Pipeline

    without = {} if model.t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, **without)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents_of(model: Sd3Model, noise: torch.Tensor, scheduler: str, guidance: float) -> torch.Tensor:
    cond = model.base_text(PROMPTS)
    both = TextCond.cat([model.unconditional(len(noise)), cond])

    def predict(x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if guidance == 1:
            return model.predict(x_t, t, cond).raw, None
        empty, given = model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), both).raw.chunk(2)
        return given, empty

    return sample(predict, model.scheduler(scheduler), noise, 5, guidance)


def noise_for(model: Sd3Model) -> torch.Tensor:
    return torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(3))


def test_loop_equals_the_stock_pipeline(folder: Path, model: Sd3Model) -> None:
    pipe, noise = stock(folder, model), noise_for(model)
    for scheduler, guidance in (("euler", 1.0), ("euler", 7.0), ("dpm++", 7.0)):
        if scheduler != "euler":  # the folder's own scheduler is euler's
            pipe.scheduler = model.scheduler(scheduler)
        theirs = pipe(
            PROMPTS, latents=noise, num_inference_steps=5, guidance_scale=guidance, output_type="latent"
        ).images
        assert theirs.std() > 0.3
        torch.testing.assert_close(latents_of(model, noise, scheduler, guidance), theirs, rtol=1e-5, atol=1e-5)


def test_a_seed_is_the_stock_pipelines_picture_also_of_an_exported_copy(folder: Path, model: Sd3Model) -> None:
    ours = generate_pictures(model, base(model, str), [PROMPTS[0]], [11], Sampling("ddim", 4, 5.0))
    image = next(iter(ours)).image.permute(1, 2, 0).numpy().astype(int)
    assert len(np.unique(image)) > 8
    for pipe in (stock(folder, model), stock_pipeline(model)):
        pipe.set_progress_bar_config(disable=True)
        theirs = pipe(
            PROMPTS[0], num_inference_steps=4, guidance_scale=5.0, generator=torch.Generator().manual_seed(11)
        ).images[0]
        assert np.abs(image - np.asarray(theirs).astype(int)).max() <= 1


def test_text_is_the_stock_pipelines(folder: Path, model: Sd3Model) -> None:
    pipe = stock(folder, model)
    tokens, empty, pooled, pooled_empty = pipe.encode_prompt(PROMPTS, None, None)
    ours = (model.base_text(PROMPTS), tokens, pooled), (model.unconditional(2), empty, pooled_empty)
    for cond, told, vector in ours:
        own = cond.tokens
        if model.t5 is None:  # one token of zeros stands for all
            own = torch.cat([own[:, :-1], own[:, -1:].expand(-1, 256, -1)], 1)
        torch.testing.assert_close(own, told.expand_as(own), rtol=1e-5, atol=5e-5)  # T5's are tens
        torch.testing.assert_close(cond.pooled, vector.expand_as(vector), rtol=1e-5, atol=1e-6)


def test_pictures_are_shifted_and_scaled_as_the_stock_pipeline_does(folder: Path, model: Sd3Model) -> None:
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    posterior = model.autoencoder.encode(pixels).latent_dist
    code = model.encode_image(pixels)
    torch.testing.assert_close(code.mean, (posterior.mean - 0.0609) * 1.5305)
    torch.testing.assert_close(code.std, posterior.std * 1.5305)
    raw = code.mean / 1.5305 + 0.0609
    torch.testing.assert_close(model.decode_image(code.mean), model.autoencoder.decode(raw).sample.clamp(-1, 1))


def test_what_the_model_is(folder: Path, model: Sd3Model) -> None:
    again = open_model(folder)
    assert again.fingerprint == model.fingerprint and again.resolution == 32
    assert model.kind is Kind.FLOW and model.latent_shape == (16, 8, 8)
    assert model.path.shift == 3 and model.path.logit_normal == (0.0, 1.0)
    other = Sd3Model.open(folder, t5_length=128)
    assert other.fingerprint != model.fingerprint


def test_a_new_word_starts_as_the_class_word_in_every_text_encoder(model: Sd3Model) -> None:
    adapter = Adapter(model, LearnedTokens(), NoEdits(), concept())
    vectors = dict(adapter.parts())
    assert len(vectors) == len(model.texts) == (3 if model.t5 else 2)
    own, word = adapter.encode(["a photo of a {}, in paris"]), model.base_text(PROMPTS[:1])
    if model.t5:  # a sign right after the placeholder is a word of its own to T5, not its last letter
        own, word = adapter.encode(["a photo of a {} in paris"]), model.base_text(["a photo of a cat in paris"])
    torch.testing.assert_close(own.tokens, word.tokens, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(own.pooled, word.pooled, rtol=1e-5, atol=1e-6)
    assert own.concept_at.tolist() == [5]


def test_every_vector_matters_and_learns_and_the_vocabularies_stay(model: Sd3Model) -> None:
    before = [text.table.clone() for text in model.texts]
    adapter = Adapter(model, LearnedTokens(num_vectors=2), NoEdits(), concept())
    train_a_little(adapter, size=0.5)
    cond = adapter.encode(["a photo of a {}", "a {} in paris"])
    x_t, t = scene(model)
    model.predict(x_t, t, cond).raw.square().mean().backward()
    for name, parameter in adapter.parts():
        assert parameter.grad is not None and parameter.grad.abs().amax(1).min() > 0, name
    for text, table in zip(model.texts, before, strict=True):
        assert torch.equal(text.table, table)
    plain = adapter.encode(["a red dog"])
    assert torch.equal(plain.tokens, model.base_text(["a red dog"]).tokens)


@pytest.mark.parametrize(
    "edits",
    [lambda: LoraEdits(2), FullEdits, lambda: LoraEdits(2, text_encoder=True), lambda: FullEdits(text_encoder=True)],
    ids=["lora", "full", "lora+text_encoder", "full+text_encoder"],
)
def test_edits_start_at_the_base_and_switch_off_to_the_bit(model: Sd3Model, edits: Any) -> None:
    x_t, t = scene(model)

    def output() -> torch.Tensor:
        return model.predict(x_t, t, model.encode_prompts(PROMPTS)).raw

    with torch.no_grad():
        before = output()
        adapter = Adapter(model, LearnedTokens(), edits(), concept())
        torch.testing.assert_close(output(), before, rtol=1e-5, atol=1e-5)
        train_a_little(adapter)
        assert (output() - before).abs().max() > 1e-3
        with adapter.off():
            assert torch.equal(output(), before)
        adapter.detach()
        assert torch.equal(output(), before)


def test_an_exported_lora_draws_our_picture_in_the_stock_pipeline(
    folder: Path, model: Sd3Model, tmp_path: Path
) -> None:
    adapter = Adapter(model, make("tokens", "rare"), LoraEdits(2, alpha=1.0), concept())
    train_a_little(adapter, size=0.3)
    learned = Learned(adapter, torch.float32)
    assert learned.formats == ["lora", "peft", "pipeline"]
    name, knobs = learned.write("lora", tmp_path), Sampling("euler", 4, 5.0)
    ours = next(iter(generate_pictures(model, personal(adapter), ["a photo of a {}"], [11], knobs))).image
    pipe = stock(folder, model)
    pipe.load_lora_weights(tmp_path, weight_name=name)
    theirs = pipe(
        "a photo of a sks cat", num_inference_steps=4, guidance_scale=5.0, generator=torch.Generator().manual_seed(11)
    ).images[0]
    assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - np.asarray(theirs).astype(int)).max() <= 1
    full = Learned(Adapter(Sd3Model.open(folder), make("tokens", "rare"), FullEdits(), concept()), torch.float32)
    assert full.formats == ["pipeline"]


def test_a_change_of_the_texts_keys_and_values_alone(model: Sd3Model) -> None:
    """What comes nearest to Custom Diffusion here: full or low-rank, of these projections only."""
    names = [
        name for name, _ in Adapter(model, LearnedTokens(), FullEdits(["add_k_proj", "add_v_proj"]), concept()).parts()
    ]
    edited = [name for name in names if name.startswith("edits.")]
    assert len(edited) == 3 * 2 * 2 and all("add_k_proj" in name or "add_v_proj" in name for name in edited)


def test_checkpointing_gives_the_same_gradients(folder: Path) -> None:
    found = []
    for checkpointing in (False, True):
        model = Sd3Model.open(folder)
        adapter = Adapter(model, LearnedTokens(), LoraEdits(2), concept())
        train_a_little(adapter)
        x_t, t = scene(model)
        with model.checkpointing(checkpointing):
            model.base.train(checkpointing)  # diffusers recomputes in training mode only
            model.predict(x_t, t, adapter.encode(["a {}", "a {} in paris"])).raw.square().mean().backward()
        found.append({name: parameter.grad for name, parameter in adapter.parts()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-7)


def test_what_needs_cross_attention_is_refused_in_one_line(model: Sd3Model) -> None:
    wanted = {
        "edits": make("edits", "key_value").requires,
        "tokens": make("tokens", "per_layer").requires,
    }
    for key, needs in wanted.items():
        with pytest.raises(UserError, match=rf"^{key} needs .*which model=sd3 does not provide .*choose another"):
            check_fit(model.provides, {key: needs}, "model=sd3")
    for group, name in (("edits", "lora"), ("edits", "full"), ("tokens", "learned"), ("tokens", "rare")):
        check_fit(model.provides, {group: make(group, name).requires})


def test_a_prompt_that_t5_cannot_read_whole_is_named(folder: Path) -> None:
    model = Sd3Model.open(folder, t5_length=6)
    if model.t5 is None:
        pytest.skip("without T5 its length only counts zeros")
    with pytest.raises(UserError, match=r"'a photo of a cat in paris' has 7 T5 tokens and 5 are read.*t5_length=8"):
        model.tokenize(["a photo of a cat in paris"])


def test_t5_can_be_left_out_of_a_folder_that_has_one(folder: Path) -> None:
    assert len(Sd3Model.open(folder, t5=False).texts) == 2


def test_text_encoders_that_are_too_wide_are_named(folder: Path, model: Sd3Model) -> None:
    model.context_width = 39
    with pytest.raises(UserError, match="the text encoders are 40 wide, more than 39"):
        model.encode_text(model.tokenize(["a cat"]))

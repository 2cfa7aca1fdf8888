from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from palp_lab.diffusion.sampler import sample
from palp_lab.generate import Sampling, base, generate_pictures
from palp_lab.model import open_model
from palp_lab.model.base import TextCond
from palp_lab.model.pipeline import stock_pipeline
from palp_lab.model.sdxl import SdxlModel
from palp_lab.tokens.learned import LearnedTokens
from palp_lab.tokens.per_layer import PerLayerTokens
from palp_lab.types import Kind, UserError
from tests.contracts.parts import concept
from tests.micro import LENGTH
from tests.micro_sdxl import POOLED, WIDTHS

PROMPTS = ["a sketch of a cat in paris", "a red hat on a qwxz dog"]
STEPS, GUIDANCE = 4, 5.0
STOCK = {"euler": "EulerDiscreteScheduler", "ddim": "DDIMScheduler", "dpm++": "DPMSolverMultistepScheduler"}


@pytest.fixture(scope="module")
def stock(micro_sdxl_path: Path) -> Any:
    """The stock pipeline on the same folder."""
    return stock_of(micro_sdxl_path)


def stock_of(path: Path) -> Any:
    import diffusers

    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(path, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise_for(model: SdxlModel) -> torch.Tensor:
    return torch.randn(len(PROMPTS), *model.latent_shape, generator=torch.Generator().manual_seed(3))


def latents_of(model: SdxlModel, name: str, negative: TextCond, guidance: float = GUIDANCE) -> torch.Tensor:
    both = TextCond.cat([negative, model.base_text(PROMPTS)])

    def predict(x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if guidance == 1:
            return model.predict(x_t, t, model.base_text(PROMPTS)).raw, None
        empty, given = model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), both).raw.chunk(2)
        return given, empty

    return sample(predict, model.scheduler(name), noise_for(model), STEPS, guidance)


def theirs(pipe: Any, noise: torch.Tensor, name: str, guidance: float = GUIDANCE, **options: Any) -> torch.Tensor:
    """Its latents, with a scheduler that none of our code has made."""
    import diffusers

    pipe.scheduler = getattr(diffusers, STOCK[name]).from_config(pipe.scheduler.config)
    options |= {"num_inference_steps": STEPS, "guidance_scale": guidance, "output_type": "latent"}
    return pipe(PROMPTS, latents=noise, **options).images


def test_what_it_is(micro_sdxl: SdxlModel) -> None:
    assert micro_sdxl.kind is Kind.EPS and micro_sdxl.resolution == 32 and micro_sdxl.latent_shape == (4, 16, 16)
    assert len(micro_sdxl.sites) == 8 and {site.context_width for site in micro_sdxl.sites} == {sum(WIDTHS)}
    cond = micro_sdxl.base_text(PROMPTS)
    assert cond.tokens.shape == (2, LENGTH, sum(WIDTHS))
    assert cond.pooled is not None and cond.pooled.shape == (2, POOLED)
    assert micro_sdxl.told == (32, 32, 0, 0, 32, 32)


def test_the_text_is_the_stock_pipelines(micro_sdxl: SdxlModel, stock: Any) -> None:
    tokens, empty, pooled, empty_pooled = stock.encode_prompt(PROMPTS, device="cpu")
    cond, none = micro_sdxl.base_text(PROMPTS), micro_sdxl.unconditional(2)
    torch.testing.assert_close(cond.tokens, tokens, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(cond.pooled, pooled, rtol=1e-5, atol=1e-6)
    assert torch.equal(none.tokens, empty) and torch.equal(none.pooled, empty_pooled)  # type: ignore[arg-type]
    assert empty.abs().max() == 0, "the stock pipeline takes zeros where no negative prompt is given"
    _, empty, _, empty_pooled = stock.encode_prompt(PROMPTS, device="cpu", negative_prompt=["", ""])
    encoded = micro_sdxl.base_text(["", ""])
    torch.testing.assert_close(encoded.tokens, empty, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoded.pooled, empty_pooled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", list(STOCK))
def test_loop_equals_the_stock_pipeline(micro_sdxl: SdxlModel, stock: Any, name: str) -> None:
    ours = latents_of(micro_sdxl, name, micro_sdxl.unconditional(2))
    torch.testing.assert_close(ours, theirs(stock, noise_for(micro_sdxl), name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("negative", ["", "a bad photo"])
def test_negative_prompts_are_encoded_as_in_the_stock_pipeline(
    micro_sdxl: SdxlModel, stock: Any, negative: str
) -> None:
    ours = latents_of(micro_sdxl, "euler", micro_sdxl.base_text([negative] * 2))
    found = theirs(stock, noise_for(micro_sdxl), "euler", negative_prompt=[negative] * 2)
    torch.testing.assert_close(ours, found, rtol=1e-5, atol=1e-5)
    zeros = latents_of(micro_sdxl, "euler", micro_sdxl.unconditional(2))
    assert (ours - zeros).abs().max() > 1e-3, "an encoded negative prompt and zeros must differ for this to mean much"


def test_without_guidance_it_equals_the_stock_pipeline(micro_sdxl: SdxlModel, stock: Any) -> None:
    ours = latents_of(micro_sdxl, "euler", micro_sdxl.unconditional(2), guidance=1)
    torch.testing.assert_close(ours, theirs(stock, noise_for(micro_sdxl), "euler", guidance=1), rtol=1e-5, atol=1e-5)


def test_a_folder_that_encodes_its_empty_prompt_is_guided_away_from_it(micro_sdxl_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(micro_sdxl_path, tmp_path / "model"))
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"force_zeros_for_empty_prompt": False}))
    model = SdxlModel.open(folder)
    assert torch.equal(model.unconditional(1).tokens, model.base_text([""]).tokens)
    assert model.fingerprint != SdxlModel.open(micro_sdxl_path).fingerprint
    ours = latents_of(model, "euler", model.unconditional(2))
    torch.testing.assert_close(ours, theirs(stock_of(folder), noise_for(model), "euler"), rtol=1e-5, atol=1e-5)


def test_sizes_are_told_as_in_the_stock_pipeline(micro_sdxl: SdxlModel, micro_sdxl_path: Path, stock: Any) -> None:
    model = SdxlModel.open(micro_sdxl_path, original_size=[48, 20], crop=[4, 8], target_size=[32, 16])
    assert model.told == (48, 20, 4, 8, 32, 16)
    found = theirs(
        stock, noise_for(model), "euler", original_size=(48, 20), crops_coords_top_left=(4, 8), target_size=(32, 16)
    )
    ours = latents_of(model, "euler", model.unconditional(2))
    torch.testing.assert_close(ours, found, rtol=1e-5, atol=1e-5)
    plain = latents_of(micro_sdxl, "euler", micro_sdxl.unconditional(2))
    assert (ours - plain).abs().max() > 1e-3
    assert model.fingerprint != micro_sdxl.fingerprint, "kept pictures of the base are told apart by it"
    with pytest.raises(UserError, match=r"model\.crop"):
        SdxlModel.open(micro_sdxl_path, crop=[1])


def test_a_seed_is_the_stock_pipelines_picture(micro_sdxl: SdxlModel, stock: Any) -> None:
    import numpy as np

    ours = generate_pictures(micro_sdxl, base(micro_sdxl, str), [PROMPTS[0]], [11], Sampling("euler", STEPS, GUIDANCE))
    image = next(iter(ours)).image.permute(1, 2, 0).numpy()
    found = stock(
        PROMPTS[0], num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=torch.Generator().manual_seed(11)
    ).images[0]
    assert image.shape == (32, 32, 3) and len(np.unique(image)) > 8
    assert np.abs(image.astype(int) - np.asarray(found).astype(int)).max() <= 1


def test_pictures_there_and_back(micro_sdxl: SdxlModel) -> None:
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    stock_vae = micro_sdxl.autoencoder
    latents = micro_sdxl.encode_image(pixels)
    torch.testing.assert_close(latents.mean, stock_vae.encode(pixels).latent_dist.mean * 0.13025)
    torch.testing.assert_close(
        micro_sdxl.decode_image(latents.mean), stock_vae.decode(latents.mean / 0.13025).sample.clamp(-1, 1)
    )


def test_in_float16_the_autoencoder_alone_stays_in_float32(micro_sdxl_path: Path) -> None:
    model = open_model(micro_sdxl_path, dtype="float16")
    assert isinstance(model, SdxlModel)
    assert model.dtype == torch.float16 and model.autoencoder.dtype == torch.float32
    assert open_model(micro_sdxl_path, dtype="bfloat16").autoencoder.dtype == torch.bfloat16  # type: ignore[attr-defined]


def test_a_learned_vector_equal_to_a_word_encodes_as_that_word_in_both_encoders(micro_sdxl: SdxlModel) -> None:
    vectors = micro_sdxl.word_vectors("cat")
    assert [tuple(v.shape) for v in vectors] == [(1, width) for width in WIDTHS]
    found = micro_sdxl.encode_text(micro_sdxl.tokenize(["a photo of <v> in paris"], {"<v>": [0]}), vectors)
    wanted = micro_sdxl.base_text(["a photo of cat in paris"])
    assert torch.equal(found.tokens, wanted.tokens) and torch.equal(found.pooled, wanted.pooled)  # type: ignore[arg-type]
    assert found.concept_at.tolist() == [4]


@pytest.mark.parametrize("kind", [LearnedTokens, PerLayerTokens])
def test_gradients_reach_the_vectors_of_both_encoders(micro_sdxl: SdxlModel, kind: Any) -> None:
    tokens = kind(num_vectors=2)
    tokens.bind(micro_sdxl, concept())
    cond = tokens.encode(["a photo of <v>", "a dog"])
    assert cond.pooled is not None and len(cond.pooled) == 2
    x_t, t = noise_for(micro_sdxl), torch.tensor([20, 700])
    micro_sdxl.predict(x_t, t, cond).raw.square().mean().backward()
    own = dict(tokens.parts())
    assert {len(p[0]) for p in own.values()} == set(WIDTHS)
    assert all(p.grad is not None and (p.grad.abs().amax(1) > 0).all() for p in own.values())
    assert torch.equal(cond.pooled[1], micro_sdxl.base_text(["a dog"]).pooled[0])  # type: ignore[index]


def test_the_pooled_vector_is_taken_at_the_end_of_the_prompt_and_not_at_the_concept(micro_sdxl: SdxlModel) -> None:
    """Old configurations pool at the highest id: a learned word must not be it."""
    words = micro_sdxl.tokenize(["a photo of <v> in paris"], {"<v>": [0]})
    far = tuple(100 + v for v in micro_sdxl.word_vectors("cat"))
    second = micro_sdxl.texts[1]
    out = second.encoder.text_model(words.ids[1], output_hidden_states=False)
    end = words.ids[1][0].tolist().index(second.tokenizer.eos_token_id)
    at_end = second.encoder.text_projection(out.last_hidden_state[0, end])
    torch.testing.assert_close(micro_sdxl.encode_text(words).pooled[0], at_end)  # type: ignore[index]
    assert torch.isfinite(micro_sdxl.encode_text(words, far).tokens).all()


def test_it_goes_back_to_diffusers_as_it_came(micro_sdxl: SdxlModel, micro_sdxl_path: Path, tmp_path: Path) -> None:
    stock_pipeline(micro_sdxl).save_pretrained(tmp_path / "back")
    assert SdxlModel.open(tmp_path / "back").fingerprint == SdxlModel.open(micro_sdxl_path).fingerprint


def test_relatives_that_are_told_more_are_refused(micro_sdxl_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(micro_sdxl_path, tmp_path / "model"))
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"latents_mean": [0.1] * 4}))
    with pytest.raises(UserError, match="latents_mean"):
        open_model(folder)
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"text_encoder": [None, None]}))
    with pytest.raises(UserError, match="names no text_encoder"):
        open_model(folder)

"""Stable Diffusion XL as published: true sizes without weights, true tokenizers, and a narrow copy against the stock
pipeline."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from palp_lab.adapter import Adapter
from palp_lab.composition import compose
from palp_lab.diffusion.sampler import sample
from palp_lab.edits.full import FullEdits
from palp_lab.edits.key_value import KeyValueEdits
from palp_lab.edits.lora import LoraEdits
from palp_lab.edits.none import NoEdits
from palp_lab.model.base import TextCond
from palp_lab.model.dimensions import RandomParts
from palp_lab.model.folder import Folder
from palp_lab.model.sdxl import SdxlModel
from palp_lab.model.sites import site_names
from palp_lab.tokens.learned import LearnedTokens
from palp_lab.tokens.per_layer import PerLayerTokens
from palp_lab.types import Kind, UserError
from tests.architectures.skeletons import concept

pytestmark = pytest.mark.slow

SITES = (
    *((f"down_blocks.1.attentions.{i}", 640, 2) for i in (0, 1)),
    *((f"down_blocks.2.attentions.{i}", 1280, 10) for i in (0, 1)),
    ("mid_block.attentions.0", 1280, 10),
    *((f"up_blocks.0.attentions.{i}", 1280, 10) for i in (0, 1, 2)),
    *((f"up_blocks.1.attentions.{i}", 640, 2) for i in (0, 1, 2)),
)
"""The transformers in execution order, with their channels and layers: arXiv 2307.01952, Table 1."""
CONTEXT, CLIP, BIG = 2048, 768, 1280
CHANNELS = sum(channels * layers for _, channels, layers in SITES)
BLOCKS = sum(layers for *_, layers in SITES)


@pytest.fixture(scope="module")
def skeleton(palp_lab_data: Path) -> Path:
    return palp_lab_data / "skeletons" / "sdxl"


@pytest.fixture(scope="module")
def published(skeleton: Path) -> SdxlModel:
    """The preset's dimensions in true size on the meta device, with the true tokenizers. Read only."""
    dimensions: Any = OmegaConf.to_container(compose("run", "model=sdxl").model.dimensions, resolve=True)
    meta = torch.device("meta")
    return SdxlModel.read(RandomParts(dimensions, meta, Folder.find(skeleton)), torch.float32, meta)


def trained(model: SdxlModel, tokens: Any, edits: Any) -> dict[str, int]:
    adapter = Adapter(model, tokens, edits, concept())
    try:
        return {name: parameter.numel() for name, parameter in adapter.parts()}
    finally:
        adapter.detach()


def test_clock_kind_and_pictures(published: SdxlModel) -> None:
    assert published.kind is Kind.EPS and published.path.steps == 1000
    assert published.resolution == 1024 and published.latent_shape == (4, 128, 128)
    assert published.told == (1024, 1024, 0, 0, 1024, 1024)
    assert [text.length for text in published.texts] == [77, 77]


def test_seventy_sites_in_execution_order(published: SdxlModel) -> None:
    expected = [
        (f"{path}.transformer_blocks.{layer}.attn2", channels)
        for path, channels, layers in SITES
        for layer in range(layers)
    ]
    assert [(site.path, site.channels) for site in published.sites] == expected and len(expected) == 70
    assert {site.context_width for site in published.sites} == {CONTEXT}
    assert {site.channels // site.heads for site in published.sites} == {64}
    assert site_names(published.sites) == tuple(site.path for site in published.sites), "kohya's names are for 1.x"


def test_what_each_recipe_trains(published: SdxlModel) -> None:
    learned = trained(published, LearnedTokens(), LoraEdits(4))
    assert (learned.pop("tokens.vectors.0"), learned.pop("tokens.vectors.1")) == (CLIP, BIG)
    assert sum(learned.values()) == 4 * (14 * CHANNELS + 2 * CONTEXT * BLOCKS) == 5_806_080
    assert sum(trained(published, LearnedTokens(), KeyValueEdits()).values()) == CLIP + BIG + 2 * CHANNELS * CONTEXT
    by_site = trained(published, PerLayerTokens(), NoEdits())
    assert Counter(by_site.values()) == {CLIP: 70, BIG: 70}
    assert sum(trained(published, LearnedTokens(), FullEdits()).values()) == CLIP + BIG + 2_567_463_684
    assert "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight" in published.base.state_dict()


PROMPTS = ["", "a photo of a cat", "naïve café scene, 猫 🐱 (50% off)!", "a stuffed animal's hat"]


def test_both_tokenizers_are_the_stock_ones(published: SdxlModel, skeleton: Path) -> None:
    words = published.tokenize(PROMPTS)
    for number, (ids, name) in enumerate(zip(words.ids, ("tokenizer", "tokenizer_2"), strict=True)):
        stock = Folder.find(skeleton).load(name)
        expected = stock(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        assert torch.equal(published.texts[number].tokenize(PROMPTS, {})[0], expected) and ids.shape == expected.shape
    pads = [text.tokenizer.pad_token for text in published.texts]
    assert pads == ["<|endoftext|>", "!"], "the second encoder's padding is a word of its own"


def test_placeholders_and_classes_of_several_pieces(published: SdxlModel) -> None:
    assert all(len(pieces) > 1 for pieces in published.pieces("<my-toy>"))
    for text in published.texts:
        ids, slots = text.tokenize(["a <my-toy>, on the moon"], {"<my-toy>": [0]})
        assert (slots >= 0).sum() == 1 and slots[0, 2] == 0
        assert text.tokenizer.decode(ids[0, 3:7]).strip() == ", on the moon"
    assert published.record("stuffed animal")["anchor"] == ["animal", "animal"]
    with pytest.raises(UserError, match="is a word the text encoder knows"):
        LearnedTokens().bind(published, concept("dog"))
    with pytest.raises(UserError, match="collide"):
        published.tokenize(["a"], {"<Toy>": [0], "<toy>": [1]})
    with pytest.raises(UserError, match="'elephant' would be cut"):
        published.texts[0].tokenize(["cat " * 75 + "elephant"], {})


@pytest.fixture(scope="module")
def narrow(skeleton: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every block, level and switch of the published configuration, fewer channels and layers, 128 px."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def read(part: str, **changes: Any) -> dict[str, Any]:
        file = "scheduler_config.json" if part == "scheduler" else "config.json"
        return {**json.loads((skeleton / part / file).read_text(encoding="utf-8")), **changes}

    def clip(kind: Any, part: str, width: int) -> Any:
        small = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 3, "num_attention_heads": 4}
        return kind(CLIPTextConfig(**read(part, projection_dim=width, torch_dtype=None, **small)))

    source, to = Folder.find(skeleton), tmp_path_factory.mktemp("narrow") / "sdxl"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pooled = read("unet")["addition_time_embed_dim"] * 6 + 48
        unet = UNet2DConditionModel.from_config(
            read("unet", block_out_channels=[32, 64, 64], attention_head_dim=[1, 2, 4], cross_attention_dim=32 + 48,
                 transformer_layers_per_block=[1, 2, 3], sample_size=16, projection_class_embeddings_input_dim=pooled)
        )  # fmt: skip
        vae = AutoencoderKL.from_config(read("vae", block_out_channels=[32, 32, 64, 64], sample_size=128))
        texts = clip(CLIPTextModel, "text_encoder", 32), clip(CLIPTextModelWithProjection, "text_encoder_2", 48)
        with torch.no_grad():  # random attention hardly looks at the text
            for name, weight in unet.named_parameters():
                if "attn2" in name and name.endswith("weight"):
                    weight.mul_(3)
    StableDiffusionXLPipeline(
        vae=vae, text_encoder=texts[0], text_encoder_2=texts[1], unet=unet, add_watermarker=False,
        tokenizer=source.load("tokenizer"), tokenizer_2=source.load("tokenizer_2"),
        scheduler=EulerDiscreteScheduler.from_config(read("scheduler")),
    ).save_pretrained(to)  # fmt: skip
    return to


@pytest.mark.parametrize("negative", [None, ""])
@pytest.mark.parametrize("name", ["euler", "ddim"])
def test_a_narrow_copy_draws_what_the_stock_pipeline_draws(narrow: Path, name: str, negative: str | None) -> None:
    import diffusers

    prompts, steps, guidance = ["a sketch of a cat in Paris, by the river", "an oil painting of a dog's hat"], 4, 5.0
    model = SdxlModel.open(narrow)
    noise = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(3))
    none = model.unconditional(2) if negative is None else model.base_text([negative] * 2)
    both = TextCond.cat([none, model.base_text(prompts)])

    def predict(x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        empty, given = model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), both).raw.chunk(2)
        return given, empty

    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(narrow, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    kind = {"euler": "EulerDiscreteScheduler", "ddim": "DDIMScheduler"}[name]
    pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config)
    theirs = pipe(
        prompts, latents=noise, num_inference_steps=steps, guidance_scale=guidance, output_type="latent",
        negative_prompt=None if negative is None else [negative] * 2,
    ).images  # fmt: skip
    ours = sample(predict, model.scheduler(name), noise, steps, guidance)
    # Euler's latents begin at 14 times unit noise: 1e-5 is meant of numbers of their size.
    size = theirs.abs().max().clamp_min(1)
    torch.testing.assert_close(ours / size, theirs / size, rtol=1e-5, atol=1e-5)

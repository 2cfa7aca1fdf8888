"""Stable Diffusion 3 medium in its published size, without weights: counts, names, shapes, what is trained."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from palp_lab.adapter import Adapter
from palp_lab.composition import compose
from palp_lab.edits.lora import LoraEdits
from palp_lab.edits.none import NoEdits
from palp_lab.model.dimensions import RandomParts
from palp_lab.model.sd3 import Sd3Model
from palp_lab.tokens.learned import LearnedTokens
from tests.architectures.skeletons import concept

pytestmark = pytest.mark.slow

NAMES = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")


@pytest.fixture(scope="module")
def dimensions() -> dict:
    return OmegaConf.to_container(compose("train", "model=sd3").model.dimensions, resolve=True)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def published(dimensions: dict) -> Sd3Model:
    """In true size, on the meta device."""
    meta = torch.device("meta")
    return Sd3Model.read(RandomParts(dimensions, meta), torch.float16, meta)


def test_every_part_has_the_published_number_of_parameters(published: Sd3Model, dimensions: dict) -> None:
    parts = {"transformer": published.base, **published.pipeline_parts()}
    counted = {name: sum(parameter.numel() for parameter in parts[name].parameters()) for name in NAMES}
    assert counted == dimensions["parameters"]
    # The released file in half precision has 4.17 GB: the weights and the table of positions.
    stored = counted["transformer"] + 192 * 192 * 1536
    assert sum(value.numel() for value in published.base.state_dict().values()) == stored == 2_084_951_104


def test_names_and_shapes_of_the_released_file(published: Sd3Model) -> None:
    state = {name: tuple(value.shape) for name, value in published.base.state_dict().items()}
    assert state["pos_embed.pos_embed"] == (1, 192 * 192, 1536)
    assert state["pos_embed.proj.weight"] == (1536, 16, 2, 2)
    assert state["context_embedder.weight"] == (1536, 4096)
    assert state["time_text_embed.text_embedder.linear_1.weight"] == (1536, 2048)
    assert state["proj_out.weight"] == (2 * 2 * 16, 1536)
    for number in range(24):
        block = f"transformer_blocks.{number}"
        for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj"):
            assert state[f"{block}.attn.{name}.weight"] == (1536, 1536)
        assert (f"{block}.attn.to_add_out.weight" in state) == (number < 23), "the last block drops the text"
        assert state[f"{block}.norm1.linear.weight"] == (6 * 1536, 1536)
    assert len(state) == 683 and not any("attn2" in name or "norm_q" in name for name in state), "these are 3.5's"


def test_clock_kind_and_pictures(published: Sd3Model) -> None:
    assert published.resolution == 1024 and published.latent_shape == (16, 128, 128)
    assert published.path.steps == 1000 and published.path.shift == 3.0
    words = published.tokenize(["a <v> cat"], {"<v>": [0]})
    assert [tuple(ids.shape) for ids in words.ids] == [(1, 77), (1, 77), (1, 256)]


def test_what_is_trained(published: Sd3Model) -> None:
    adapter = Adapter(published, LearnedTokens(), LoraEdits(4), concept())
    try:
        sizes = {name: tuple(parameter.shape) for name, parameter in adapter.parts()}
    finally:
        adapter.detach()
    # Eight projections of 1536 in every block, but the last has none for the text that leaves it.
    assert sum(name.startswith("edits.") for name in sizes) == 2 * (24 * 8 - 1)
    assert sum(a * b for name, (a, b) in sizes.items() if name.startswith("edits.")) == (24 * 8 - 1) * 4 * 2 * 1536
    words = Adapter(published, LearnedTokens(), NoEdits(), concept())
    assert [tuple(parameter.shape) for _, parameter in words.parts()] == [(1, 768), (1, 1280), (1, 4096)]

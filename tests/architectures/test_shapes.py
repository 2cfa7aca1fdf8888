"""What is trained on the published architectures has the published size, place and name."""

from __future__ import annotations

import pytest

from palp_lab.adapter import Adapter
from palp_lab.edits.base import AbstractEdits
from palp_lab.edits.full import FullEdits
from palp_lab.edits.key_value import KeyValueEdits
from palp_lab.edits.lora import LoraEdits
from palp_lab.edits.none import NoEdits
from palp_lab.model.sites import KOHYA, site_names
from palp_lab.model.unet import UNetModel
from palp_lab.tokens.base import AbstractTokens
from palp_lab.tokens.learned import LearnedTokens
from palp_lab.tokens.per_layer import PerLayerTokens
from palp_lab.types import Kind
from tests.architectures.skeletons import Skeleton, concept

pytestmark = pytest.mark.slow

PARAMETERS = {"sd14": (859_520_964, 123_060_480), "sd21": (865_910_724, 340_387_840)}
"""UNet and text encoder: the counts of the released checkpoints."""
CONTEXT = {"sd14": 768, "sd21": 1024}
SITES = (
    *((f"down_blocks.{block}.attentions.{i}", c) for block, c in ((0, 320), (1, 640), (2, 1280)) for i in (0, 1)),
    ("mid_block.attentions.0", 1280),
    *((f"up_blocks.{block}.attentions.{i}", c) for block, c in ((1, 1280), (2, 640), (3, 320)) for i in range(3)),
)  # fmt: skip
"""The 16 cross-attentions in execution order with their channels."""


def numbers(model: UNetModel, tokens: AbstractTokens, edits: AbstractEdits) -> dict[str, int]:
    """How many numbers each part trains, and what they are called."""
    adapter = Adapter(model, tokens, edits, concept())
    try:
        return {name: parameter.numel() for name, parameter in adapter.parts()}
    finally:
        adapter.detach()


def test_parameter_counts(published: UNetModel, skeleton: Skeleton) -> None:
    unet, text = (sum(p.numel() for p in part.parameters()) for part in (published.base, published.text.encoder))
    assert (unet, text) == PARAMETERS[skeleton.name]


def test_clock_kind_and_pictures(published: UNetModel, skeleton: Skeleton) -> None:
    kind, side = {"sd14": (Kind.EPS, 512), "sd21": (Kind.V, 768)}[skeleton.name]
    assert (published.kind, published.resolution) == (kind, side)
    assert published.latent_shape == (4, side // 8, side // 8) and published.path.steps == 1000
    assert published.text.length == 77


def test_sixteen_sites_in_execution_order(published: UNetModel, skeleton: Skeleton) -> None:
    found = [(site.path, site.channels) for site in published.sites]
    assert found == [(f"{path}.transformer_blocks.0.attn2", channels) for path, channels in SITES]
    assert [site.index for site in published.sites] == list(range(16))
    assert {site.context_width for site in published.sites} == {CONTEXT[skeleton.name]}
    heads = [site.heads for site in published.sites]
    assert heads == [8] * 16 if skeleton.name == "sd14" else heads == [c // 64 for _, c in SITES]
    assert site_names(published.sites) == KOHYA


def test_the_names_of_diffusers_stay_as_they_are(published: UNetModel) -> None:
    names = set(published.base.state_dict())
    assert "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight" in names
    assert "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0.bias" in names
    assert not any("processor" in name or "lora" in name for name in names)


@pytest.mark.parametrize("rank", [1, 4, 32])
def test_lora_of_the_attention_projections(published: UNetModel, skeleton: Skeleton, rank: int) -> None:
    before = set(published.base.state_dict())
    trained = numbers(published, LearnedTokens(), LoraEdits(rank))
    edits = {name: count for name, count in trained.items() if name.startswith("edits.")}
    # A reads, B writes: in self-attention 8 c numbers per rank; in cross-attention 6 c, and the context twice.
    expected = rank * sum(14 * c + 2 * CONTEXT[skeleton.name] for _, c in SITES)
    assert sum(edits.values()) == expected
    if skeleton.name == "sd14":
        assert sum(edits.values()) == 199_296 * rank
    assert len(edits) == 32 * 4 * 2
    assert "edits.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight" in edits
    assert trained["tokens.vectors.0"] == CONTEXT[skeleton.name]
    assert set(published.base.state_dict()) == before


def test_key_value(published: UNetModel, skeleton: Skeleton) -> None:
    trained = numbers(published, LearnedTokens(), KeyValueEdits())
    edits = sum(count for name, count in trained.items() if name.startswith("edits."))
    assert edits == 2 * sum(c for _, c in SITES) * CONTEXT[skeleton.name]
    if skeleton.name == "sd14":
        assert edits == 19_169_280
        assert sum(numbers(published, LearnedTokens(), KeyValueEdits(crossattn=True)).values()) == (
            768 + 19_169_280 + 12_390_400 + 12_402_880
        )


def test_a_vector_per_site(published: UNetModel, skeleton: Skeleton) -> None:
    trained = numbers(published, PerLayerTokens(), NoEdits())
    assert sum(trained.values()) == 16 * CONTEXT[skeleton.name]
    if skeleton.name == "sd14":
        assert sum(trained.values()) == 12_288
    assert list(trained) == [f"tokens.{name}.0" for name in KOHYA]


def test_full_trains_every_number_of_the_unet(published: UNetModel, skeleton: Skeleton) -> None:
    trained = numbers(published, LearnedTokens(), FullEdits())
    assert sum(trained.values()) == PARAMETERS[skeleton.name][0] + CONTEXT[skeleton.name]

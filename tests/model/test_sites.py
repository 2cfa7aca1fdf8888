from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from palp_lab.model.base import TextCond
from palp_lab.model.sites import KOHYA, Site, SiteAttention, site_names
from palp_lab.model.unet import UNetModel


def inputs(model: UNetModel, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, TextCond]:
    rng = torch.Generator().manual_seed(0)
    x_t = torch.randn(batch, *model.latent_shape, generator=rng)
    return x_t, torch.arange(batch) * 400 + 10, model.base_text(["a cat", "a sketch of a dog in paris"][:batch])


def test_sites_are_in_the_order_the_denoiser_runs_them(micro: UNetModel) -> None:
    ran = []
    hooks = [
        micro.base.get_submodule(site.path).register_forward_hook(lambda *_, index=site.index: ran.append(index))
        for site in micro.sites
    ]
    with torch.no_grad():
        micro.predict(*inputs(micro))
    for hook in hooks:
        hook.remove()
    assert ran == list(range(len(micro.sites))) == [site.index for site in micro.sites]
    assert len(ran) >= 8


def test_three_dimensional_contexts_are_bitwise_the_stock_processor(micro: UNetModel, micro_path: Path) -> None:
    stock = UNet2DConditionModel.from_pretrained(micro_path, subfolder="unet").eval()
    assert all(isinstance(p, AttnProcessor2_0) for p in stock.attn_processors.values())
    x_t, t, cond = inputs(micro)
    with torch.no_grad():
        assert torch.equal(micro.predict(x_t, t, cond).raw, stock(x_t, t, cond.tokens).sample)


def test_the_same_context_written_per_site_gives_the_same_output(micro: UNetModel) -> None:
    x_t, t, cond = inputs(micro)
    with torch.no_grad():
        plain, spread = micro.predict(x_t, t, cond).raw, micro.predict(x_t, t, cond.per_site(len(micro.sites))).raw
    torch.testing.assert_close(spread, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_sites_context_moves_that_sites_keys_or_values_only(micro: UNetModel, checkpointing: bool) -> None:
    """Gradient of the output of each projection with respect to each slice of the conditioning."""
    if checkpointing:
        micro.base.enable_gradient_checkpointing()
    x_t, t, cond = inputs(micro)
    tokens = cond.per_site(len(micro.sites)).tokens.clone().requires_grad_()
    seen: dict[tuple[int, int], torch.Tensor] = {}

    def keep(site: int, part: int):
        def hook(_module: torch.nn.Module, _arguments: object, out: torch.Tensor) -> None:
            seen.setdefault((site, part), out)

        return hook

    for site in micro.sites:
        attention = micro.base.get_submodule(site.path)
        attention.to_k.register_forward_hook(keep(site.index, 0))
        attention.to_v.register_forward_hook(keep(site.index, 1))
    micro.predict(x_t, t, TextCond(tokens, cond.concept_at)).raw.square().mean().backward()
    assert tokens.grad is not None
    assert (tokens.grad.abs().amax(dim=(0, 3, 4)) > 0).all(), "a slice that no site reads"
    for site in micro.sites:
        attention = micro.base.get_submodule(site.path)
        with torch.no_grad():
            for part, layer in enumerate((attention.to_k, attention.to_v)):
                own = layer(tokens[:, site.index, part])
                torch.testing.assert_close(seen[site.index, part].detach(), own, rtol=1e-6, atol=1e-6)


def test_per_site_gradients_are_the_same_with_checkpointing(micro: UNetModel) -> None:
    x_t, t, cond = inputs(micro)
    found = []
    for on in (False, True):
        if on:
            micro.base.enable_gradient_checkpointing()
        tokens = cond.per_site(len(micro.sites)).tokens.clone().requires_grad_()
        micro.predict(x_t, t, TextCond(tokens, cond.concept_at)).raw.square().mean().backward()
        found.append(tokens.grad)
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-9)


def test_keys_are_what_the_denoiser_computes(micro: UNetModel) -> None:
    *_, cond = inputs(micro)
    found = micro.keys(cond)
    assert [k.shape for k in found] == [(2, 32, site.channels) for site in micro.sites]
    first = micro.base.get_submodule(micro.sites[0].path)
    assert torch.equal(found[0], first.to_k(cond.tokens))


def test_stable_diffusion_sites_have_kohyas_names_and_other_models_their_paths(micro: UNetModel) -> None:
    down = [f"down_blocks.{b}.attentions.{a}.transformer_blocks.0.attn2" for b in range(3) for a in range(2)]
    up = [f"up_blocks.{b}.attentions.{a}.transformer_blocks.0.attn2" for b in range(1, 4) for a in range(3)]
    paths = [*down, "mid_block.attentions.0.transformer_blocks.0.attn2", *up]
    sites = tuple(Site(i, path, 8, 16, 2) for i, path in enumerate(paths))
    assert site_names(sites) == KOHYA and KOHYA[6] == "MID" and len(KOHYA) == 16
    assert site_names(micro.sites) == tuple(site.path for site in micro.sites)


def test_state_names_of_the_base_are_diffusers_own(micro: UNetModel, micro_path: Path) -> None:
    stock = UNet2DConditionModel.from_pretrained(micro_path, subfolder="unet")
    assert micro.base.state_dict().keys() == stock.state_dict().keys()
    assert all(isinstance(micro.base.get_submodule(s.path).processor, SiteAttention) for s in micro.sites)


def test_mixed_batches_are_written_per_site(micro: UNetModel) -> None:
    plain = micro.base_text(["a cat"])
    spread = micro.base_text(["a dog"]).per_site(len(micro.sites))
    joined = TextCond.cat([plain, spread])
    assert joined.tokens.shape == (2, len(micro.sites), 2, 32, 16)
    assert torch.equal(joined.tokens[0, 3, 1], plain.tokens[0])
    assert len(joined[torch.tensor([1])]) == 1
    assert joined.repeat(2).tokens.shape[0] == 4 and torch.equal(joined.repeat(2).tokens[1], joined.tokens[0])

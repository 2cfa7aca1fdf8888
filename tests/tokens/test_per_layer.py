from __future__ import annotations

import pytest
import torch

from palp_lab.model.unet import UNetModel
from palp_lab.tokens.per_layer import PerLayerTokens
from tests.contracts.parts import concept, scene

PROMPT = "a photo of <v> in paris"


def bound(model: UNetModel, **options: object) -> PerLayerTokens:
    tokens = PerLayerTokens(**options)  # type: ignore[arg-type]
    tokens.bind(model, concept())
    return tokens


def test_untrained_every_site_reads_the_class_word(micro: UNetModel) -> None:
    cond = bound(micro).encode([PROMPT])
    base = micro.base_text(["a photo of cat in paris"]).tokens
    assert cond.tokens.shape == (1, len(micro.sites), 2, 32, 16) and cond.concept_at.tolist() == [4]
    torch.testing.assert_close(cond.tokens, base[:, None, None].expand_as(cond.tokens), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_a_vector_moves_its_own_site_only(micro: UNetModel, count: int) -> None:
    tokens = bound(micro, num_vectors=count)
    prompts = [PROMPT, "a sketch of <v>"]
    before = tokens.encode(prompts).tokens.detach()
    for site, (name, parameter) in enumerate(list(tokens.parts())[:4]):
        assert name.startswith(micro.sites[site].path)
        step = torch.randn(16)
        with torch.no_grad():
            parameter[-1] += step
        moved = (tokens.encode(prompts).tokens.detach() - before).abs().amax(dim=(0, 2, 3, 4))
        assert moved[site] > 1e-3 and moved[torch.arange(len(moved)) != site].max() == 0
        with torch.no_grad():
            parameter[-1] -= step
        before = tokens.encode(prompts).tokens.detach()


def test_the_sites_encoding_is_that_of_a_single_learned_word(micro: UNetModel) -> None:
    tokens = bound(micro)
    with torch.no_grad():
        for _, parameter in tokens.parts():
            parameter += torch.randn_like(parameter)
    cond = tokens.encode([PROMPT])
    words = micro.tokenize([PROMPT], {"<v>": [0]})
    for site, (_, vector) in enumerate(tokens.parts()):
        alone = micro.encode_text(words, (vector,)).tokens
        for part in range(2):
            torch.testing.assert_close(cond.tokens[:, site, part], alone, rtol=1e-5, atol=1e-6)


def test_vectors_are_saved_by_site_and_keep_their_length_if_asked(micro: UNetModel) -> None:
    tokens = bound(micro, fixed_norm=True)
    lengths = [v.norm() for v in tokens.words().values()]
    with torch.no_grad():
        for _, parameter in tokens.parts():
            parameter += torch.randn_like(parameter)
    assert list(tokens.words()) == [site.path for site in micro.sites]
    for vector, length in zip(tokens.words().values(), lengths, strict=True):
        torch.testing.assert_close(vector.norm(), length)


def test_with_an_unconditional_row_in_the_same_pass(micro: UNetModel) -> None:
    from palp_lab.model.base import TextCond

    x_t, t = scene(micro)
    cond = TextCond.cat([micro.base_text([""]), bound(micro).encode([PROMPT])])
    with torch.no_grad():
        empty = micro.predict(x_t, t, micro.base_text(["", ""])).raw
        torch.testing.assert_close(micro.predict(x_t, t, cond).raw[0], empty[0], rtol=1e-5, atol=1e-5)

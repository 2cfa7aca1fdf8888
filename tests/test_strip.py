"""The one-step estimate: the formula, the fixed noise."""

from __future__ import annotations

import pytest
import torch

from palp_lab.generate import clean, start, to_uint8
from palp_lab.model.unet import UNetModel
from palp_lab.strip import strip_images
from palp_lab.types import UserError
from tests.test_generate import SENTENCES, concept


def test_is_the_clean_estimate_at_the_end_of_the_clock(micro: UNetModel) -> None:
    """PALP, Eq. 2, written out: x0hat = (x_t - sigma eps) / alpha."""
    noise = start(0, micro.latent_shape)[0][None]
    t = micro.path.steps - 1
    alpha = float(micro.path.alphas_cumprod[t].sqrt())
    sigma = float((1 - micro.path.alphas_cumprod[t]).sqrt())
    cond = micro.base_text([concept().clean(SENTENCES[0])])
    with torch.no_grad():
        eps = micro.predict(noise, torch.tensor([t]), cond).raw
    expected = to_uint8(micro.decode_image(((noise - sigma * eps) / alpha).clamp(-4, 4)))
    found = strip_images(micro, clean(micro, concept()), SENTENCES[0])
    assert found.shape == (1, 3, 32, 32)
    assert int((found.int() - expected.int()).abs().max()) <= 1


def test_guidance_goes_from_the_empty_prompt_through_the_sentence(micro: UNetModel) -> None:
    noise, t = start(0, micro.latent_shape)[0][None], micro.path.steps - 1
    product = micro.path.alphas_cumprod[t]
    with torch.no_grad():
        told, empty = (
            micro.predict(noise, torch.tensor([t]), cond).raw
            for cond in (micro.base_text([concept().clean(SENTENCES[0])]), micro.unconditional(1))
        )
    x0 = (noise - (1 - product).sqrt() * (empty + 3.0 * (told - empty))) / product.sqrt()
    expected = to_uint8(micro.decode_image(x0.float().clamp(-4, 4)))
    found = strip_images(micro, clean(micro, concept()), SENTENCES[0], guidance=3.0)
    assert int((found.int() - expected.int()).abs().max()) <= 1


def test_every_seed_has_its_own_noise_in_any_company(micro: UNetModel) -> None:
    prompting = clean(micro, concept())
    both = strip_images(micro, prompting, SENTENCES[0], seeds=(0, 1))
    alone = strip_images(micro, prompting, SENTENCES[0], seeds=(1,))
    assert int((both[1].int() - alone[0].int()).abs().max()) <= 1
    assert not torch.equal(both[0], both[1])
    guided = strip_images(micro, prompting, SENTENCES[0], seeds=(0,), guidance=7.5)
    assert not torch.equal(guided[0], both[0])


def test_below_the_end_the_noise_is_sampled_down_first(micro: UNetModel) -> None:
    """Two DDIM steps written out: 999 -> 959 -> 930."""
    x_t = start(0, micro.latent_shape)[0][None]
    cond = micro.base_text([concept().clean(SENTENCES[0])])
    with torch.no_grad():
        for t, after in ((999, 959), (959, 930), (930, None)):
            eps = micro.predict(x_t, torch.tensor([t]), cond).raw
            product = micro.path.alphas_cumprod
            x0 = (x_t - (1 - product[t]).sqrt() * eps) / product[t].sqrt()
            if after is not None:
                x_t = (product[after].sqrt() * x0 + (1 - product[after]).sqrt() * eps).float()
    expected = to_uint8(micro.decode_image(x0.float().clamp(-4, 4)))
    found = strip_images(micro, clean(micro, concept()), SENTENCES[0], t=930 / 999)
    assert int((found.int() - expected.int()).abs().max()) <= 1
    assert not torch.equal(found, strip_images(micro, clean(micro, concept()), SENTENCES[0]))


def test_guidance_leads_away_from_what_sampling_leads_away_from(
    micro: UNetModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = strip_images(micro, clean(micro, concept()), SENTENCES[0], guidance=7.5)
    other = micro.base_text(["something else"])
    monkeypatch.setattr(micro, "unconditional", lambda rows: other.repeat(rows))
    assert not torch.equal(strip_images(micro, clean(micro, concept()), SENTENCES[0], guidance=7.5), plain)


@pytest.mark.parametrize("t", [0.0, 1.1, -1])
def test_the_clock_has_ends(micro: UNetModel, t: float) -> None:
    with pytest.raises(UserError, match=r"strip\.t="):
        strip_images(micro, clean(micro, concept()), SENTENCES[0], t=t)

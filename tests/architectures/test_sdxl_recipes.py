"""Every recipe on a model with two text encoders, a pooled vector and sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from palp_lab.adapter import Adapter
from palp_lab.model.sdxl import SdxlModel
from palp_lab.tokens.learned import LearnedTokens
from tests.contracts.parts import adapter, concept, make, train_a_little
from tests.micro_sdxl import WIDTHS
from tests.test_recipes import RECIPES, trained

FAST = {"palp", "p_plus"}
"""What is most unlike one text encoder: judges with a pooled vector, and words by site."""


@pytest.mark.parametrize(
    "method", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_it_trains(method: str, micro_sdxl: SdxlModel, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in micro_sdxl.denoiser.state_dict().items()}
    stages = ["stages.0.until=1"] if method == "rare_adjective" else []
    tensors = trained(method, micro_sdxl, tmp_path, *stages)
    assert tensors and all(torch.isfinite(tensor).all() for tensor in tensors.values())
    words = {tensor.shape[-1] for name, tensor in tensors.items() if name.startswith("tokens.")}
    assert words in (set(), set(WIDTHS)), "a vector for each text encoder"
    after = micro_sdxl.denoiser.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_ti_db_is_palp_of_weight_0_bit_for_bit(micro_sdxl: SdxlModel, tmp_path: Path) -> None:
    ti_db = trained("ti_db", micro_sdxl, tmp_path / "a")
    palp = trained("palp", micro_sdxl, tmp_path / "b", "losses.prompt_alignment.weight=0")
    other = trained("palp", micro_sdxl, tmp_path / "c")
    assert ti_db.keys() == palp.keys() and all(torch.equal(ti_db[name], palp[name]) for name in ti_db)
    assert any(not torch.equal(ti_db[name], other[name]) for name in ti_db)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["p_plus", "custom_diffusion", "ti_db"])
def test_key_locking_is_added_on_the_command_line(method: str, micro_sdxl: SdxlModel, tmp_path: Path) -> None:
    plain = trained(method, micro_sdxl, tmp_path / "plain", "losses=[reconstruction]")
    locked = trained(method, micro_sdxl, tmp_path / "locked", "losses=[reconstruction,key_locking]")
    assert plain.keys() == locked.keys()
    assert any(not torch.equal(plain[name], locked[name]) for name in plain)


@pytest.mark.parametrize("edits", ["lora", "full", "key_value"])
def test_switched_off_it_is_the_base_bit_for_bit(micro_sdxl: SdxlModel, edits: str) -> None:
    generator = torch.Generator().manual_seed(7)
    x_t, t = torch.randn(2, *micro_sdxl.latent_shape, generator=generator), torch.tensor([20, 700])
    cond = micro_sdxl.base_text(["a cat", "a red hat"])
    with torch.no_grad():
        before = micro_sdxl.predict(x_t, t, cond).raw
        learned = adapter(micro_sdxl, edits=edits)
        train_a_little(learned)
        assert (micro_sdxl.predict(x_t, t, cond).raw - before).abs().max() > 1e-4
        with learned.off():
            assert torch.equal(micro_sdxl.predict(x_t, t, cond).raw, before)
        learned.detach()
        assert torch.equal(micro_sdxl.predict(x_t, t, cond).raw, before)


def test_what_is_saved_comes_back(micro_sdxl: SdxlModel, tmp_path: Path) -> None:
    from palp_lab.adapter import read_adapter

    first = adapter(micro_sdxl, edits="none")
    train_a_little(first)
    path = first.save(tmp_path, {"about": "nothing"})
    wanted = first.encode(["a photo of a {}"])
    second = Adapter(micro_sdxl, LearnedTokens(), make("edits", "none"), concept())
    second.load_tensors(read_adapter(path)[0])
    found = second.encode(["a photo of a {}"])
    assert torch.equal(found.tokens, wanted.tokens) and torch.equal(found.pooled, wanted.pooled)  # type: ignore[arg-type]

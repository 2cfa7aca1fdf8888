"""True tokenizers and true architectures of Stable Diffusion 1.4 and 2.1, without weights (folder PALP_LAB_DATA)."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import AutoTokenizer

from palp_lab.model.folder import Folder
from palp_lab.model.schedulers import make_scheduler
from palp_lab.model.sites import KOHYA, find_sites, install, site_names
from palp_lab.model.text import ClipText
from palp_lab.types import UserError

DATA = Path(os.environ.get("PALP_LAB_DATA", "")) / "skeletons"
pytestmark = pytest.mark.skipif(
    not os.environ.get("PALP_LAB_DATA") or not DATA.is_dir(), reason="PALP_LAB_DATA names no folder with skeletons"
)

PROMPTS = [
    "",
    "a photo of a cat",
    "A 19th-century oil painting: the cat's hat, snow & ice (Paris)!",
    "café  naïve 猫 🐱",
    "stuffed animal",
]


@pytest.fixture(params=["sd14", "sd21"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def text_of(name: str) -> ClipText:
    """The true tokenizer over a one-layer stand-in: only ids are looked at."""
    tokenizer = Folder.find(DATA / name).load("tokenizer")
    encoder = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=77))
    return ClipText(tokenizer, encoder)


def test_ids_are_those_of_the_stock_tokenizer(name: str) -> None:
    text = text_of(name)
    stock = AutoTokenizer.from_pretrained(DATA / name, subfolder="tokenizer")
    wanted = stock(PROMPTS, padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert torch.equal(text.tokenize(PROMPTS, {})[0], wanted)
    assert wanted.shape == (5, 77)


def test_a_placeholder_keeps_the_ids_of_the_words_around_it(name: str) -> None:
    text = text_of(name)
    ids, slots = text.tokenize(["a sketch of <v>, in the snow"], {"<v>": [0, 1]})
    before, after = text.pieces("a sketch of"), text.pieces(", in the snow")
    assert ids[0, 1:4].tolist() == before and slots[0, 4:6].tolist() == [0, 1]
    assert ids[0, 6 : 6 + len(after)].tolist() == after
    pad = text.tokenizer.pad_token_id
    assert (ids[0, 7 + len(after) :] == pad).all() and ids[0, 6 + len(after)] == text.tokenizer.eos_token_id


def test_long_prompts_name_what_would_be_cut(name: str) -> None:
    with pytest.raises(UserError, match="'elephant'"):
        text_of(name).tokenize(["cat " * 75 + "elephant"], {})


def test_sixteen_sites_in_execution_order_with_kohyas_names(name: str) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(DATA / name, subfolder="unet"))
    sites = find_sites(unet)
    assert site_names(sites) == KOHYA
    assert [site.channels for site in sites] == [320] * 2 + [640] * 2 + [1280] * 6 + [640] * 3 + [320] * 3
    assert {site.context_width for site in sites} == {768 if name == "sd14" else 1024}
    install(unet, sites)


def test_schedules_are_read(name: str) -> None:
    config = Folder.find(DATA / name).load("scheduler").config
    scheduler = make_scheduler("ddpm", config)
    assert len(scheduler.alphas_cumprod) == 1000
    assert make_scheduler("ddim", config).config.clip_sample is False
    torch.testing.assert_close(float(scheduler.alphas_cumprod[-1]), 0.00466, rtol=2e-3, atol=0)


def test_a_skeleton_says_what_is_missing(name: str) -> None:
    with pytest.raises(UserError, match=r"\(unet\)"):
        Folder.find(DATA / name).load("unet", torch.float32)

"""The shipped weights: stock classes, in the limits, with cards and lineage, and they still do what the cards say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import palp_lab
from palp_lab.metrics.reader import ElementReader
from palp_lab.tinyworld import ACCESSORIES, LABELS, STYLES, WORLD_VERSION, labels, render, sample_scene
from palp_lab.tinyworld.pretrain_evaluate import REAL_GOAL
from palp_lab.tinyworld.pretrain_scorers import read_by_style

WEIGHTS = Path(palp_lab.__file__).parent / "tinyworld" / "weights"
NAMES = ("tiny", "tiny_small", "tiny_flow", "tiny_flow_unet", "clip", "identity", "reader")


def test_they_stay_within_what_a_package_may_carry() -> None:
    sizes = [path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(sizes) <= 60e6 and max(sizes) <= 40e6


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_card_and_its_lineage(name: str) -> None:
    card = (WEIGHTS / name / "README.md").read_text()
    assert all(word in card for word in ("## Scores", "## Limits", "| data |", "seed"))
    segments = json.loads((WEIGHTS / name / "lineage.json").read_text())["segments"]
    assert segments
    for segment in segments:
        assert {"device", "ranks", "seed", "from", "to", "seconds", "samples"} <= set(segment)


@pytest.mark.parametrize("name", ["tiny", "tiny_small", "tiny_flow_unet"])
def test_a_stock_pipeline_opens_and_samples_without_a_dtype(name: str) -> None:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(WEIGHTS / name)
    pipeline.set_progress_bar_config(disable=True)
    sites = [key for key in pipeline.unet.attn_processors if "attn2" in key]
    assert len(sites) >= 8 and pipeline.tokenizer.model_max_length >= 32
    noise = torch.Generator().manual_seed(0)
    images = pipeline("a photo of a cat", num_inference_steps=3, generator=noise, output_type="np").images
    assert images.shape == (1, 64, 64, 3) and images.std() > 0.02


def test_both_pipelines_share_autoencoder_text_encoder_and_schedule() -> None:
    shared = ["vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
    for part in [*shared, "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"]:
        assert (WEIGHTS / "tiny" / part).read_bytes() == (WEIGHTS / "tiny_small" / part).read_bytes(), part


def test_the_reader_reads_styles_and_places_of_true_renders() -> None:
    scenes = [scene for scene in (sample_scene(seed, "heldout") for seed in range(200)) if scene.subjects]
    scenes = [scene for scene in scenes if not scene.artwork and not scene.degradation][:120]
    images = torch.from_numpy(np.stack([render(scene) for scene in scenes])).permute(0, 3, 1, 2)
    reader = ElementReader.from_folder(WEIGHTS / "reader")
    assert reader.labels == {name: list(words) for name, words in LABELS.items()}
    found = reader.read(images)
    for name in ("style", "place"):
        truth = torch.tensor([labels(scene)[name] for scene in scenes])
        assert float((found[name] == truth).float().mean()) > 0.9, name


@pytest.mark.slow
def test_every_style_is_read_in_real_renders() -> None:
    """A style below this on what prompts ask for is to be redrawn; of coats the card says what is read."""
    found = read_by_style(ElementReader.from_folder(WEIGHTS / "reader"))
    assert set(found) == set(STYLES) and all(
        set(row) >= {"style", "place", "class_", *ACCESSORIES} for row in found.values()
    )
    low = {(style, name): share for style, row in found.items() for name, share in row.items() if share < REAL_GOAL}
    assert {name for _, name in low} <= {"coat colour", "coat pattern"}, "a style that hides what prompts ask for"
    said = json.loads((WEIGHTS / "scores.json").read_text())["reader_by_style"]
    near = [abs(share - said[style][name]) for style, row in found.items() for name, share in row.items()]
    assert max(near) <= 0.011, "two pictures of 200: another processor rounds otherwise"


def test_scores_are_those_of_the_cards() -> None:
    scores = json.loads((WEIGHTS / "scores.json").read_text())
    style = scores["tiny"]["found"]["style"]["found"]
    assert f"| style | {style:.3f} | " in (WEIGHTS / "tiny" / "README.md").read_text()


def test_no_file_names_a_place_of_the_machine_that_trained() -> None:
    text = [p for p in WEIGHTS.rglob("*") if p.suffix in {".json", ".md"} and p.name not in {"tokenizer.json"}]
    assert len(text) > 10
    assert not [p for p in text if "_name_or_path" in p.read_text(encoding="utf-8") or '"/' in p.read_text("utf-8")]


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_where_its_model_saw_an_earlier_world(name: str) -> None:
    last = json.loads((WEIGHTS / name / "lineage.json").read_text())["segments"][-1]
    said = "Trained last on version" in (WEIGHTS / name / "README.md").read_text()
    assert said == (last.get("world", 1) != WORLD_VERSION)

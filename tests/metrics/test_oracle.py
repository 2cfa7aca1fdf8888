"""CLIPScore against torchmetrics, where it runs at all on transformers 5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

from palp_lab.metrics.alignment import text_alignment
from palp_lab.metrics.embedders import ClipEmbedder
from tests.metrics.conftest import noise_pictures, write_clip


class TensorFeatures(CLIPModel):
    """torchmetrics 1.9 expects transformers 4's tensors."""

    def get_image_features(self, *args: Any, **options: Any) -> Any:
        return super().get_image_features(*args, **options).pooler_output

    def get_text_features(self, *args: Any, **options: Any) -> Any:
        return super().get_text_features(*args, **options).pooler_output


def test_equals_torchmetrics_clipscore(tmp_path: Path) -> None:
    from torchmetrics.multimodal.clip_score import CLIPScore

    clip_path = write_clip(tmp_path, seed=3)  # one whose random cosines are not all negative

    processor = CLIPProcessor(
        CLIPImageProcessorPil.from_pretrained(clip_path), CLIPTokenizer.from_pretrained(clip_path)
    )
    oracle = CLIPScore(lambda: (TensorFeatures.from_pretrained(clip_path).eval(), processor))
    clip, images = ClipEmbedder(clip_path), noise_pictures(6)
    prompts = ["a cat", "a red dog in the snow", "a sketch", "a photo of a bear", "a hat", "a blue car at night"]
    oracle.update(list(images), prompts)
    ours = text_alignment(clip.images(images), clip.texts(prompts))
    # torchmetrics floors the mean at 0 and multiplies by 100.
    assert float(oracle.compute()) == pytest.approx(max(0.0, 100 * float(ours.mean())), abs=1e-3)
    assert float(ours.mean()) > 0.01, "the floor must not be what is compared"

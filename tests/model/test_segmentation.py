"""CLIPSeg: a narrow random one of the true class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from palp_lab.model.segmentation import TextSegmenter
from tests.dataset.pictures import said
from tests.micro import tokenizer


def save_random_clipseg(folder: Path) -> Path:
    """A random CLIPSeg of the true class, with all its files, whose likelihoods spread around one half."""
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation
    from transformers.utils import logging

    logging.disable_progress_bar()
    words = tokenizer()
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = CLIPSegConfig(
        text_config={**sizes, "vocab_size": len(words), "max_position_embeddings": 32, **ends},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=16,
        reduce_dim=8,
        extract_layers=[0, 1, 2],
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CLIPSegForImageSegmentation(config)
        with torch.no_grad():
            for weight in network.parameters():
                weight.copy_(torch.randn(weight.shape) * 0.3)
            last = network.decoder.transposed_convolution
            last.weight.mul_(20)
            last.bias.zero_()
    network.save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({
            "do_resize": True, "size": {"height": 64, "width": 64}, "resample": 2, "do_normalize": True,
            "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
        })
    )  # fmt: skip
    return folder


def pictures(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> TextSegmenter:
    return TextSegmenter(save_random_clipseg(tmp_path_factory.mktemp("clipseg")), "dataset.segment")


def test_a_likelihood_per_pixel_that_depends_on_picture_and_words(segmenter: TextSegmenter) -> None:
    found = segmenter.likelihood(pictures(2), "cat")
    assert found.shape == (2, 48, 48)
    assert 0 <= found.min() < found.max() <= 1
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found, segmenter.likelihood(pictures(2), "dog"))
    assert torch.allclose(found[:1], segmenter.likelihood(pictures(1), "cat"), atol=1e-5), "one picture or several"


def test_it_is_what_transformers_says(segmenter: TextSegmenter) -> None:
    from transformers import CLIPSegForImageSegmentation

    network: CLIPSegForImageSegmentation = segmenter.network
    pixels = segmenter.preprocessing(pictures(1))
    assert pixels.shape == (1, 3, 64, 64)
    with torch.no_grad():
        logits = network(**segmenter.tokenizer("cat", return_tensors="pt"), pixel_values=pixels).logits
    expected = torch.nn.functional.interpolate(
        logits.reshape(1, 1, 64, 64).sigmoid(), (48, 48), mode="bilinear", align_corners=False
    )
    assert torch.allclose(segmenter.likelihood(pictures(1), "cat"), expected[0], atol=1e-5)


def test_what_is_no_segmentation_model_is_said_in_a_line(tmp_path: Path) -> None:
    line = said(lambda: TextSegmenter("clip", "dataset.segment"))
    assert line.startswith("dataset.segment=")
    assert "config.json says clip)" in line, "it would load with a random decoder"
    assert said(lambda: TextSegmenter(tmp_path, "dataset.segment")).startswith(
        f"dataset.segment={tmp_path}: no network"
    )


def test_offline_it_says_so_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    line = said(lambda: TextSegmenter("CIDAS/clipseg-rd64-refined", "dataset.segment"))
    assert line.startswith("dataset.segment=CIDAS/clipseg-rd64-refined: ")
    assert "no route to the hub" in line
    assert "give that folder" in line or "give a local folder" in line


@pytest.mark.slow
def test_its_true_size_masks_real_photos(tmp_path: Path, palp_lab_data: Path) -> None:
    """The dimensions of CIDAS/clipseg-rd64-refined (arXiv 2112.10003, reduce_dim 64, from ViT-B/16) with random weights
    and CLIP's own words: photos of a folder come out with a mask of their own size that follows the likelihood."""
    from transformers import AutoTokenizer, CLIPSegConfig, CLIPSegForImageSegmentation

    from palp_lab.dataset.folder import FolderDataset

    config = CLIPSegConfig(
        vision_config={"patch_size": 16, "image_size": 352}, extract_layers=[3, 6, 9], reduce_dim=64,
        use_complex_transposed_convolution=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CLIPSegForImageSegmentation(config)
    assert 1.4e8 < sum(weight.numel() for weight in network.parameters()) < 1.6e8
    network.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(palp_lab_data / "skeletons" / "sd14" / "tokenizer").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({
            "do_resize": True, "size": {"height": 352, "width": 352}, "resample": 2, "do_normalize": True,
            "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
        })
    )  # fmt: skip
    photos = palp_lab_data / "dreambench" / "cat"
    segmenter = TextSegmenter(tmp_path, "dataset.segment")
    whole = FolderDataset(photos, "cat", shots=2, resolution=512).concept()
    likely = segmenter.likelihood(whole.photos, "cat")
    assert likely.shape == (2, *whole.photos.shape[-2:]) and likely.std() > 0
    level = float(likely.median())
    masked = FolderDataset(photos, "cat", shots=2, resolution=512, segment=tmp_path, segment_threshold=level).concept()
    assert masked.masks is not None and 0.3 < masked.masks.float().mean() < 0.7

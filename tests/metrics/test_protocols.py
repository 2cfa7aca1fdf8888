"""Protocols: what they read, what identifies them, what they refuse."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from palp_lab.metrics.alignment import ImageAlignment, TextAlignment
from palp_lab.metrics.drift import Drift
from palp_lab.metrics.elements import ElementsFound, PromptReader
from palp_lab.metrics.embedders import ClipEmbedder, VisionEmbedder
from palp_lab.metrics.phrases import Phrases
from palp_lab.metrics.protocols import Protocol, References, protocol
from palp_lab.study.result import BOUNDS
from palp_lab.tinyworld.parse import parse
from palp_lab.types import UserError
from tests.metrics.conftest import BrightnessReader, noise_pictures, write_clip


@pytest.fixture
def measuring(clip_path: Path, resnet_path: Path) -> Protocol:
    return protocol(
        "test", 1,
        embedders={"clip": ClipEmbedder(clip_path), "identity": VisionEmbedder(resnet_path)},
        metrics={
            "text_alignment": TextAlignment(), "identity": ImageAlignment(space="identity"),
            "elements": ElementsFound(), "identity_oracle": ImageAlignment("identity", "true_renders"),
            "drift_with_class_word": Drift(), "left_out": None,
        },
        reader=PromptReader(BrightnessReader(), parse),
    )  # fmt: skip


SENTENCE = "a photo of a {} in the snow"


def test_measures_by_the_names_of_the_protocol(measuring: Protocol) -> None:
    images, photos = noise_pictures(3), noise_pictures(2, seed=7)
    scores = measuring.measure(images, SENTENCE, "cat", References(photos))
    assert list(scores) == ["text_alignment", "identity", "elements", "identity_oracle"]
    clip = measuring.embedders["clip"]
    expected = torch.cosine_similarity(clip.images(images), clip.texts(["a photo of a cat in the snow"]))
    assert scores["text_alignment"].per_image == pytest.approx(expected.tolist(), abs=1e-6)
    assert scores["elements"].n == 3
    assert scores["identity_oracle"].value is None, "there are no true renders"


def test_drift_pictures_are_measured_for_drift_alone(measuring: Protocol) -> None:
    images = noise_pictures(3)
    scores = measuring.measure(
        images, "a photo of a cat", "cat", References(images), subject="drift", twins=images, class_word=True
    )
    assert list(scores) == ["drift_with_class_word"]
    assert scores["drift_with_class_word"].value == pytest.approx(0, abs=1e-9)


def test_stripping_never_leaves_the_slot_or_a_hole(measuring: Protocol) -> None:
    assert measuring.text("a {} at night", "cat") == "a cat at night"
    assert replace(measuring, strip="drop").text("a photo of {} at night", "cat") == "a photo of at night"
    swimming = ("{} swimming in a pool", "a pair of {} on a shelf")
    assert [measuring.text(one, "glasses") for one in swimming] == [
        "a glasses swimming in a pool", "a pair of a glasses on a shelf",
    ]  # fmt: skip
    bare = replace(measuring, strip="bare_class_word")
    assert [bare.text(one, "glasses") for one in swimming] == [
        "glasses swimming in a pool", "a pair of glasses on a shelf",
    ]  # fmt: skip
    assert bare.text("a photo of a {}", "cat") == "a photo of a cat"


def test_pictures_seen_before_are_not_shown_again(measuring: Protocol) -> None:
    shown = []
    network = measuring.embedders["clip"]
    forward = network.images
    network.images = lambda images: shown.append(len(images)) or forward(images)  # type: ignore[method-assign]
    images = noise_pictures(4)
    first = measuring.see("clip", images)
    assert torch.equal(measuring.see("clip", images.clone()), first)
    assert shown == [4]
    assert not torch.equal(measuring.see("clip", images.flip(0)), first)
    assert shown == [4, 4]


def test_the_same_bytes_in_another_shape_are_other_pictures(measuring: Protocol) -> None:
    images = noise_pictures(4)
    n, c, h, w = images.shape
    assert len(measuring.see("clip", images)) == 4
    assert len(measuring.see("clip", images.view(n // 2, c, 2 * h, w))) == 2


def test_the_reader_looks_for_the_class_whatever_the_text_metrics_read(measuring: Protocol) -> None:
    """A prompt stripped of its slot asks for no class any more; the picture still should show one."""
    asked: list[str] = []
    reader = PromptReader(BrightnessReader(), lambda text: asked.append(text) or parse(text))  # type: ignore[func-returns-value]
    images = noise_pictures(1)
    replace(measuring, reader=reader, strip="drop").measure(images, SENTENCE, "cat", References(images))
    assert asked == ["a photo of a cat in the snow"]


def test_hashes_follow_weights_and_settings(measuring: Protocol, tmp_path: Path) -> None:
    hashes = measuring.hashes()
    assert set(hashes) == {"clip", "identity", "reader", "settings"}
    other = {**measuring.embedders, "clip": ClipEmbedder(write_clip(tmp_path, seed=3))}
    assert replace(measuring, embedders=other).hashes()["clip"] != hashes["clip"]
    assert replace(measuring, strip="drop").hashes()["settings"] != hashes["settings"]
    scaled = {**measuring.metrics, "text_alignment": TextAlignment(scale=2.5, floor=True)}
    assert replace(measuring, metrics=scaled).hashes()["settings"] != hashes["settings"]
    assert replace(measuring).hashes() == hashes
    fewer = PromptReader(BrightnessReader(), parse, kinds=("style",))
    assert replace(measuring, reader=fewer).hashes()["settings"] != hashes["settings"]
    written = [replace(measuring, phrases=Phrases({SENTENCE: {"style": style}})) for style in ("a photo", "a sketch")]
    assert len({hashes["settings"], *(one.hashes()["settings"] for one in written)}) == 3
    squeezed = copy(measuring.embedders["identity"])
    assert isinstance(squeezed, VisionEmbedder)
    squeezed.preprocessing = replace(squeezed.preprocessing, mean=(0.1, 0.2, 0.3))
    assert (
        replace(measuring, embedders={**measuring.embedders, "identity": squeezed}).hashes()["settings"]
        != hashes["settings"]
    )


def test_what_cannot_be_measured_is_refused_by_key(measuring: Protocol) -> None:
    with pytest.raises(UserError, match=r"metrics\.strip=word"):
        replace(measuring, strip="word")
    with pytest.raises(UserError, match=r"metrics\.metrics\.a\.space=dino"):
        replace(measuring, metrics={"a": TextAlignment(space="dino")})
    with pytest.raises(UserError, match="ceiling"):
        replace(measuring, bounds=("ceiling",))


def test_bounds_are_those_of_results() -> None:
    from palp_lab.metrics.protocols import BOUNDS as OURS

    assert OURS == BOUNDS


def test_the_shipped_protocol_is_another_yaml_and_folders(clip_path: Path, resnet_path: Path, tmp_path: Path) -> None:
    """conf/metrics/tiny.yaml on random networks: every metric it names measures something."""
    from transformers import ResNetConfig

    from palp_lab.build import build
    from palp_lab.composition import compose
    from palp_lab.metrics.reader import ElementReader
    from palp_lab.tinyworld.oracle import LABELS

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    ElementReader(LABELS, config).save(tmp_path / "reader")
    node = compose(
        "run", "metrics=tiny", "device=cpu", f"metrics.embedders.clip.path={clip_path}",
        f"metrics.embedders.identity.path={resnet_path}", f"metrics.reader.network.path={tmp_path / 'reader'}",
    ).metrics  # fmt: skip
    tiny = build(node, "metrics")
    images, sentence = noise_pictures(3), "a sketch of a {} wearing a red hat next to a robot in the snow"
    references = References(noise_pictures(2, seed=7), noise_pictures(2, seed=8), {sentence: noise_pictures(2, seed=9)})
    scores = tiny.measure(images, sentence, "cat", references)
    scores |= tiny.measure(images, "a cat", "cat", references, subject="drift", twins=images, class_word=True)
    scores |= {
        "drift_without_class_word": tiny.measure(
            images, "a dog", "cat", references, subject="drift", twins=images
        )["drift_without_class_word"]
    }  # fmt: skip
    assert set(scores) == set(tiny.metrics)
    assert all(score.value is not None for score in scores.values())
    assert (tiny.name, tiny.version) == ("tiny", "3")
    assert set(tiny.hashes()) == {"clip", "identity", "reader", "settings"}

"""Records, drift and bounds: the right pictures against the right references."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from palp_lab import metrics
from palp_lab.dataset.concept import AbstractDataset, Concept
from palp_lab.keys import versions
from palp_lab.leave_one_out import COMPARISONS, against_the_others
from palp_lab.metrics.alignment import ImageAlignment, TextAlignment
from palp_lab.metrics.base import AbstractMetric
from palp_lab.metrics.diversity import Diversity
from palp_lab.metrics.drift import ClassCollapse, Drift
from palp_lab.metrics.elements import ElementsFound, PromptReader
from palp_lab.metrics.embedders import ClipEmbedder, VisionEmbedder
from palp_lab.metrics.overfitting import Copy, Saturation
from palp_lab.metrics.protocols import Protocol, References, protocol
from palp_lab.pictures import Picture
from palp_lab.prompts import DriftPrompt
from palp_lab.score import (
    BOUND_SEEDS,
    REFERENCE_SEEDS,
    bound_pictures,
    gather_references,
    protocol_entry,
    score_bounds,
    score_drift,
    score_records,
)
from palp_lab.study.result import Record, Result, load_result, save_result
from palp_lab.tinyworld.parse import parse
from palp_lab.types import UserError
from tests.metrics.conftest import BrightnessReader, clip_path, noise_pictures, resnet_path  # noqa: F401

SENTENCES = ["a photo of a {} in the snow", "a sketch of a {}"]
PHOTOS, HELD_OUT = noise_pictures(3, seed=50), noise_pictures(2, seed=60)


class Renders(AbstractDataset):
    """A concept whose true renders are pictures of their seeds."""

    def __init__(self, renders: bool = True, description: str | None = "spotted red cat") -> None:
        self.renders = renders
        self.description = description

    def concept(self) -> Concept:
        return Concept("test", "cat", "<v>", PHOTOS, "digest", held_out=HELD_OUT, description=self.description)

    def true_renders(self, sentence: str, seeds: Sequence[int]) -> torch.Tensor | None:
        return torch.cat([noise_pictures(1, seed=s + len(sentence)) for s in seeds]) if self.renders else None


@pytest.fixture
def measuring(clip_path: Path, resnet_path: Path) -> Protocol:  # noqa: F811
    return protocol(
        "test", "1",
        embedders={"clip": ClipEmbedder(clip_path), "identity": VisionEmbedder(resnet_path)},
        metrics={
            "text_alignment": TextAlignment(), "image_alignment": ImageAlignment(), "elements": ElementsFound(),
            "identity_held_out": ImageAlignment("identity", "held_out"),
            "identity_oracle": ImageAlignment("identity", "true_renders"), "copy": Copy(),
            "diversity": Diversity(), "saturation": Saturation(), "class_collapse": ClassCollapse(),
            "drift_with_class_word": Drift(True), "drift_without_class_word": Drift(False),
        },
        reader=PromptReader(BrightnessReader(), parse),
    )  # fmt: skip


def pictures(sentence: str, seeds: Sequence[int] = (0, 1, 2), salt: int = 0) -> list[Picture]:
    knobs = {"guidance": 7.5, "negative": "", "model": "m", "adapter": "abc", "version": "0"}
    drawn = (noise_pictures(1, seed=salt + 10 * seed + len(sentence))[0] for seed in seeds)
    return [Picture(sentence.replace("{}", "<v>"), sentence, s, i, knobs) for s, i in zip(seeds, drawn, strict=True)]


def records(measuring: Protocol, dataset: Renders, **more: object) -> tuple[Record, ...]:
    concept = dataset.concept()
    some = [p for s in SENTENCES for p in reversed(pictures(s))]
    references = gather_references(dataset, concept, SENTENCES)
    return score_records(measuring, concept, references, some, step=100, **more)  # type: ignore[arg-type]


def test_every_sentence_is_measured_and_the_own_target_marked(measuring: Protocol) -> None:
    own, other = records(measuring, Renders(), groups={SENTENCES[0]: "same_style"}, target=SENTENCES[0])
    assert (own.prompt, own.own_target, own.prompt_group, own.step) == (SENTENCES[0], True, "same_style", 100)
    assert (other.prompt, other.own_target, other.prompt_group, other.target) == (
        SENTENCES[1],
        False,
        None,
        SENTENCES[0],
    )
    assert own.picture_seeds == (0, 1, 2)
    assert own.images == tuple(f"images/{p.file_name()}" for p in pictures(SENTENCES[0]))
    assert own.knobs == {"guidance": 7.5}, "what drew a picture is no knob"
    assert "drift_with_class_word" not in own.metrics


def test_values_are_the_metrics_of_these_pictures(measuring: Protocol) -> None:
    own, _ = records(measuring, Renders())
    images = torch.stack([p.image for p in pictures(SENTENCES[0])])
    clip, vision = measuring.embedders["clip"], measuring.embedders["identity"]
    text = clip.texts(["a photo of a cat in the snow"])
    assert own.metrics["text_alignment"].per_image == pytest.approx(
        torch.cosine_similarity(clip.images(images), text).tolist(), abs=1e-6
    )
    true = Renders().true_renders(SENTENCES[0], REFERENCE_SEEDS)
    unit = torch.nn.functional.normalize
    pairs = unit(vision.images(images)) @ unit(vision.images(true)).T
    assert own.metrics["identity_oracle"].value == pytest.approx(float(pairs.mean()), abs=1e-6)
    assert own.metrics["elements"].n == 3


def test_without_true_renders_their_metrics_are_null(measuring: Protocol) -> None:
    for record in records(measuring, Renders(renders=False)):
        assert record.metrics["identity_oracle"].value is None
        assert record.metrics["saturation"].value is None
        assert record.metrics["image_alignment"].value is not None


def test_two_settings_are_not_one_record(measuring: Protocol) -> None:
    concept = Renders().concept()
    references = gather_references(Renders(), concept, SENTENCES)
    twice = [
        p for guidance in (3.0, 7.5) for p in (replace(q, knobs={"guidance": guidance}) for q in pictures(SENTENCES[0]))
    ]
    with pytest.raises(UserError, match="two share a seed"):
        score_records(measuring, concept, references, twice, step=0)


PROMPTS = [DriftPrompt("a photo of a cat", True), DriftPrompt("a photo of a red dog", False)]


def test_drift_pairs_by_seed_and_measures_one_kind_each(measuring: Protocol) -> None:
    dataset, concept = Renders(), Renders().concept()
    references = gather_references(dataset, concept, [])
    mine = [p for prompt in PROMPTS for p in pictures(prompt.text)]
    base = [p for prompt in PROMPTS for p in pictures(prompt.text, (2, 1, 0), salt=500)]
    own, other = score_drift(measuring, concept, references, PROMPTS, mine, base, step=7, target=SENTENCES[0])
    assert set(own.metrics) == {"drift_with_class_word", "class_collapse"}
    assert set(other.metrics) == {"drift_without_class_word"}
    assert (own.prompt, own.own_target, own.target, own.prompt_group) == (
        "a photo of a cat",
        False,
        SENTENCES[0],
        "drift",
    )
    clip = measuring.embedders["clip"]
    a, b = (clip.images(torch.stack([p.image for p in pictures("a photo of a cat", salt=s)])) for s in (0, 500))
    expected = 1 - torch.cosine_similarity(a, b)
    assert own.metrics["drift_with_class_word"].per_image == pytest.approx(expected.tolist(), abs=1e-6)
    same = score_drift(measuring, concept, references, PROMPTS, mine, mine, step=0)
    assert same[0].metrics["drift_with_class_word"].value == pytest.approx(0, abs=1e-9)


def test_drift_without_a_twin_is_refused(measuring: Protocol) -> None:
    concept = Renders().concept()
    references = gather_references(Renders(), concept, [])
    mine, base = pictures("a photo of a cat"), pictures("a photo of a cat", (0, 1))
    with pytest.raises(UserError, match=r"seed 2 is missing"):
        score_drift(measuring, concept, references, PROMPTS, mine, base, step=0)


def bounds(measuring: Protocol, dataset: Renders) -> dict[tuple[str, str | None], object]:
    concept = dataset.concept()
    base = {name: [p for s in SENTENCES for p in pictures(s, salt=900)] for name in ("class_word", "described")}
    some = bound_pictures(measuring, dataset, concept, SENTENCES, base)
    references = gather_references(dataset, concept, SENTENCES)
    return {(b.name, b.prompt): b for b in score_bounds(measuring, concept, references, some, SENTENCES)}


def test_every_bound_is_measured_under_every_sentence(measuring: Protocol) -> None:
    found = bounds(measuring, Renders())
    names = ("class_word", "described", "held_out_photos", "training_photos", "true_renders")
    assert set(found) == {(name, s) for name in names for s in SENTENCES}
    copies = found["training_photos", SENTENCES[0]].metrics
    assert copies["copy"].value == pytest.approx(1)
    assert found["held_out_photos", SENTENCES[0]].metrics["copy"].value < 1
    assert found["held_out_photos", SENTENCES[0]].metrics["identity_held_out"].value is None, "not with themselves"
    ceiling = found["true_renders", SENTENCES[0]]
    assert ceiling.metrics["identity_oracle"].value < 1, "renders are compared with other renders"
    assert len(ceiling.images) == len(BOUND_SEEDS)
    assert len(set(ceiling.images)) == len(BOUND_SEEDS)
    # Photos are the same pictures whatever the sentence; what is said of them is not.
    a, b = (found["training_photos", s] for s in SENTENCES)
    assert a.images == b.images
    assert a.metrics["text_alignment"].value != b.metrics["text_alignment"].value


def test_bounds_that_cannot_be_had_are_left_out(measuring: Protocol) -> None:
    found = bounds(measuring, Renders(renders=False, description=None))
    assert {name for name, _ in found} == {"class_word", "held_out_photos", "training_photos"}
    fewer = replace(measuring, bounds=("training_photos",))
    assert {name for name, _ in bounds(fewer, Renders())} == {"training_photos"}


class AllTrained(Renders):
    """A concept that holds no photo out, as DreamBench's."""

    def concept(self) -> Concept:
        return replace(super().concept(), held_out=None)


def test_real_images_are_each_photo_against_the_others(measuring: Protocol) -> None:
    """DreamBooth's first row: the mean over pairs of different photos, never a photo with itself."""
    found = bounds(measuring, AllTrained())
    real = found["held_out_photos", SENTENCES[0]].metrics
    seen = torch.nn.functional.normalize(measuring.embedders["clip"].images(PHOTOS).double(), dim=-1)
    cosines = seen @ seen.T
    off_diagonal = (cosines.sum() - cosines.trace()) / (len(PHOTOS) * (len(PHOTOS) - 1))
    assert real["image_alignment"].value == pytest.approx(float(off_diagonal), abs=1e-6)
    assert real["copy"].value == pytest.approx(float((cosines - 9 * torch.eye(len(PHOTOS))).amax(1).mean()), abs=1e-6)
    assert real["identity_held_out"].value is None
    copies = found["training_photos", SENTENCES[0]].metrics
    assert real["text_alignment"].per_image == pytest.approx(copies["text_alignment"].per_image)
    assert real["diversity"].value == copies["diversity"].value
    assert copies["image_alignment"].value > real["image_alignment"].value


def plain_loop(
    measuring: Protocol, photos: torch.Tensor, references: References, sentence: str
) -> dict[str, list[float | None]]:
    """Each photo measured against the others, one after the other."""
    found: dict[str, list[float | None]] = {}
    for i in range(len(photos)):
        others = replace(references, photos=torch.cat([photos[:i], photos[i + 1 :]]))
        for name, score in measuring.measure(photos[i : i + 1], sentence, "cat", others).items():
            found.setdefault(name, []).extend(score.per_image or (None,))
    return found


class Stranger(Copy):
    """A metric of somebody else's that compares with the photos."""


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("strange", [False, True])
def test_real_images_are_what_a_plain_loop_gives(measuring: Protocol, count: int, strange: bool) -> None:
    if strange:
        measuring = replace(measuring, metrics={**measuring.metrics, "strange": Stranger()})
    photos = noise_pictures(count, seed=70)
    concept = replace(AllTrained().concept(), photos=photos)
    references = replace(gather_references(Renders(), concept, SENTENCES), held_out=None)
    whole = measuring.measure(photos, SENTENCES[0], "cat", references)
    found = against_the_others(measuring, concept, references, SENTENCES[0], whole)
    looped = plain_loop(replace(measuring), photos, references, SENTENCES[0])
    assert list(found) == list(whole)
    for name, score in found.items():
        if score.per_image is None:
            assert score == whole[name]
        else:
            assert list(score.per_image) == looped[name], name


def test_networks_see_each_real_image_a_few_times(measuring: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    for network in measuring.embedders.values():
        images = network.images
        monkeypatch.setattr(network, "images", lambda some, images=images: (shown.append(len(some)), images(some))[1])
    photos = noise_pictures(20, seed=80)
    concept = replace(AllTrained().concept(), photos=photos)
    score_bounds(
        measuring, concept, References(photos), bound_pictures(measuring, Renders(False), concept, SENTENCES, {}),
        SENTENCES,
    )  # fmt: skip
    assert sum(shown) <= 2 * 5 * len(photos)


def test_the_metrics_that_read_the_photos_are_known() -> None:
    """Another one must be told to `palp_lab.leave_one_out`, or it would compare a photo with itself."""
    modules = [import_module(f"palp_lab.metrics.{path.stem}") for path in Path(metrics.__path__[0]).glob("*.py")]
    reading = {
        one
        for module in modules
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, AbstractMetric) and one.subject == "concept"
        and "evidence.photos" in inspect.getsource(one)
    }  # fmt: skip
    assert reading == set(COMPARISONS)


def test_reference_and_bound_renders_share_no_seed() -> None:
    assert not set(REFERENCE_SEEDS) & set(BOUND_SEEDS)


def test_what_is_scored_is_a_valid_result(measuring: Protocol, tmp_path: Path) -> None:
    axes = {"method": "palp", "dataset": "tiny", "concept": "cat_1", "model": "tiny", "train_seed": 0}
    some = tuple(bounds(measuring, Renders()).values())
    entry = protocol_entry(measuring)
    result = Result("run", axes, records(measuring, Renders(renders=False)), some, entry, versions=versions())  # type: ignore[arg-type]
    save_result(result, tmp_path / "result.json")
    back = load_result(tmp_path / "result.json")
    assert back.records == result.records
    assert back.protocol is not None
    assert set(back.protocol.hashes) == {"clip", "identity", "reader", "settings"}
    assert "NaN" not in (tmp_path / "result.json").read_text()


def test_pictures_of_two_sizes_are_refused(measuring: Protocol) -> None:
    concept = Renders().concept()
    mixed = [
        *pictures(SENTENCES[0], (0,)),
        replace(pictures(SENTENCES[0], (1,))[0], image=noise_pictures(1, size=(40, 40))[0]),
    ]
    with pytest.raises(UserError, match="differ in size"):
        score_records(measuring, concept, gather_references(Renders(), concept, []), mixed, step=0)


@pytest.mark.parametrize("verb", ["generate", "score", "export"])
def test_a_verb_after_run_finds_what_run_has_trained(verb: str) -> None:
    """Keys of a verb's own are no inputs of a training: else the same configuration would be trained again."""
    from palp_lab.composition import compose
    from palp_lab.keys import read_by
    from palp_lab.training import as_plain

    ran, now = (as_plain(compose(one)) for one in ("run", verb))
    assert read_by("train", now) == read_by("train", ran)

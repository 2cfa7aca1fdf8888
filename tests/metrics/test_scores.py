"""Every metric against an independent reference in numpy, its best value, and its direction."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from palp_lab.metrics import alignment, diversity, drift, elements, gap, overfitting
from palp_lab.metrics.alignment import ElementAlignment, ImageAlignment, TextAlignment, text_alignment
from palp_lab.metrics.base import AbstractMetric, Evidence
from palp_lab.metrics.diversity import Diversity, PerceptualDiversity, StructuralDiversity
from palp_lab.metrics.drift import ClassCollapse, Drift
from palp_lab.metrics.elements import Element, ElementsFound
from palp_lab.metrics.gap import CorrectedTextAlignment, ModalityGap, ScorerGap, close_gap, modality_gap
from palp_lab.metrics.overfitting import Contrast, Copy, Saturation, contrast, saturation
from palp_lab.metrics.running import Running
from palp_lab.types import UserError
from tests.metrics.conftest import noise_pictures

MODULES = (alignment, diversity, drift, elements, gap, overfitting)
METRICS = [
    cls
    for module in MODULES
    for _, cls in inspect.getmembers(module, inspect.isclass)
    if issubclass(cls, AbstractMetric) and not inspect.isabstract(cls) and cls.__module__ == module.__name__
]
"""Every final metric of the package: a new one is found by itself."""


def see(space: str, images: Tensor) -> Tensor:
    """A linear network of its own for every space, whose features may be negative."""
    seed = sum(map(ord, space))
    weights = torch.randn((images[0].numel(), 10), generator=torch.Generator().manual_seed(seed))
    return (images.flatten(1).float() - 127) @ weights / 255


def read(space: str, prompts: Sequence[str]) -> Tensor:
    """Prompts as pictures of their letters."""
    return torch.stack([see(space, noise_pictures(1, seed=sum(map(ord, p))))[0] for p in prompts])


def gap_of(space: str) -> Tensor:
    """The gap between eight pictures and two prompts."""
    return modality_gap(see(space, noise_pictures(8, seed=30)), read(space, ["a dog", "a house"]))


def unit(x: Tensor) -> np.ndarray:
    array = x.numpy().astype(np.float64)
    return array / np.sqrt((array**2).sum(1, keepdims=True))


@pytest.fixture
def evidence() -> Evidence:
    images = noise_pictures(4, seed=1)
    return Evidence(
        images=images,
        text="a cat in the snow",
        see=see,
        read=read,
        gap=gap_of,
        phrases={"style": "a sketch", "class": "a cat"},
        photos=noise_pictures(3, seed=2),
        held_out=noise_pictures(2, seed=3),
        true_renders=noise_pictures(5, seed=4),
        twins=noise_pictures(4, seed=5),
        class_word=True,
        wanted=(
            Element("style", ("style",), frozenset({"sketch"})),
            Element("accessories", ("hat",), frozenset({"red"})),
        ),
        found=torch.tensor([[True, False], [True, True], [False, False], [False, True]]),
    )


def test_text_alignment(evidence: Evidence) -> None:
    score = TextAlignment().measure(evidence)
    by_hand = unit(see("clip", evidence.images)) @ unit(read("clip", [evidence.text]))[0]
    assert score.per_image == pytest.approx(by_hand)
    assert score.value == pytest.approx(by_hand.mean())
    assert (score.n, score.level) == (4, "image")


def test_clipscore_is_scaled_and_floored(evidence: Evidence) -> None:
    plain = np.array(TextAlignment().measure(evidence).per_image)
    assert plain.min() < 0 < plain.max(), "the example must show the floor"
    score = TextAlignment(scale=2.5, floor=True).measure(evidence)
    assert score.per_image == pytest.approx(2.5 * np.maximum(plain, 0))


@pytest.mark.parametrize(
    ("metric", "references"),
    [
        (ImageAlignment(space="clip"), "photos"),
        (ImageAlignment(space="identity"), "photos"),
        (ImageAlignment(space="identity", against="held_out"), "held_out"),
        (ImageAlignment(space="identity", against="true_renders"), "true_renders"),
    ],
)
def test_similarities_are_means_over_all_pairs(evidence: Evidence, metric: AbstractMetric, references: str) -> None:
    mine = unit(see(metric.space, evidence.images))
    theirs = unit(see(metric.space, getattr(evidence, references)))
    score = metric.measure(evidence)
    assert score.value == pytest.approx(np.mean([a @ b for a in mine for b in theirs]))
    assert score.per_image == pytest.approx([np.mean([a @ b for b in theirs]) for a in mine])
    assert metric.measure(replace(evidence, **{references: None})).value is None


def test_likeness_is_to_one_named_set_of_pictures() -> None:
    with pytest.raises(UserError, match="against=photos"):
        ImageAlignment(against="photos")


def test_an_elements_own_words_are_read_alone(evidence: Evidence) -> None:
    score = ElementAlignment("style").measure(evidence)
    assert score.per_image == pytest.approx(unit(see("clip", evidence.images)) @ unit(read("clip", ["a sketch"]))[0])
    absent = ElementAlignment("ambiance_1").measure(evidence)
    assert (absent.value, absent.n) == (None, 0), "the prompt has none"


def test_elements(evidence: Evidence) -> None:
    assert ElementsFound().measure(evidence).per_image == (0.5, 1.0, 0.0, 0.5)
    assert ElementsFound("style").measure(evidence).per_image == (1.0, 1.0, 0.0, 0.0)
    assert ElementsFound("accessories").measure(evidence).value == 0.5
    place = ElementsFound("place").measure(evidence)
    assert (place.value, place.per_image, place.n) == (None, None, 0), "not asked is not measured"


def test_diversity(evidence: Evidence) -> None:
    features = unit(see("clip", evidence.images))
    pairs = [1 - a @ b for a, b in combinations(features, 2)]
    score = Diversity().measure(evidence)
    assert (score.value, score.n, score.level) == (pytest.approx(np.mean(pairs)), 6, "pair")


def test_perceptual_diversity_is_a_squared_distance(evidence: Evidence) -> None:
    points = see("lpips", evidence.images).double().numpy()
    pairs = [((a - b) ** 2).sum() for a, b in combinations(points, 2)]
    score = PerceptualDiversity().measure(evidence)
    assert (score.value, score.n) == (pytest.approx(np.mean(pairs), rel=1e-5), 6)


def test_structural_diversity_is_one_minus_torchmetrics_ssim(evidence: Evidence) -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    light = torch.einsum("bchw,c->bhw", evidence.images.double() / 255, torch.tensor([0.2126, 0.7152, 0.0722]).double())
    maps = [
        ssim(a[None, None], b[None, None], data_range=1.0, return_full_image=True)[1] for a, b in combinations(light, 2)
    ]
    pairs = [1 - float(found[..., 5:-5, 5:-5].mean()) for found in maps]  # theirs goes on over a mirrored border
    score = StructuralDiversity().measure(evidence)
    assert (score.value, score.n) == (pytest.approx(np.mean(pairs), abs=1e-6), 6)
    assert StructuralDiversity().measure(replace(evidence, images=evidence.images[..., :8])).value is None


@pytest.mark.parametrize("metric", [Diversity(), PerceptualDiversity(), StructuralDiversity()])
def test_one_picture_has_no_diversity(evidence: Evidence, metric: AbstractMetric) -> None:
    assert metric.measure(replace(evidence, images=evidence.images[:1])).value is None


def test_drift_is_seed_by_seed_and_of_one_kind_of_prompt(evidence: Evidence) -> None:
    mine, base = unit(see("clip", evidence.images)), unit(see("clip", evidence.twins))
    assert Drift(True).measure(evidence).per_image == pytest.approx(
        [1 - a @ b for a, b in zip(mine, base, strict=True)]
    )
    assert Drift(False).measure(evidence).value is None
    assert Drift(False).measure(replace(evidence, class_word=False)).n == 4


def test_class_collapse(evidence: Evidence) -> None:
    expected = ImageAlignment(space="identity").measure(evidence)
    assert ClassCollapse().measure(evidence).value == pytest.approx(expected.value)
    assert ClassCollapse().measure(replace(evidence, class_word=False)).value is None


def test_copy_takes_the_nearest_photo(evidence: Evidence) -> None:
    mine, photos = unit(see("clip", evidence.images)), unit(see("clip", evidence.photos))
    assert Copy().measure(evidence).per_image == pytest.approx([max(a @ b for b in photos) for a in mine])


def test_saturation_and_contrast_of_known_pictures() -> None:
    gray = torch.full((1, 3, 4, 4), 90, dtype=torch.uint8)
    red = torch.zeros((1, 3, 4, 4), dtype=torch.uint8)
    red[:, 0] = 255
    checkers = torch.zeros((1, 3, 4, 4), dtype=torch.uint8)
    checkers[..., ::2] = 255
    assert saturation(torch.cat([gray, red, checkers])).tolist() == pytest.approx([0, 1, 0])
    assert contrast(torch.cat([gray, red, checkers])).tolist() == pytest.approx([0, 0, 0.5])


@pytest.mark.parametrize("metric", [Saturation(), Contrast()])
def test_ratios_are_to_the_mean_of_true_renders(evidence: Evidence, metric: AbstractMetric) -> None:
    def amount(images: Tensor) -> np.ndarray:
        pixels = images.numpy().astype(np.float64) / 255
        if isinstance(metric, Saturation):
            return (pixels.max(1) - pixels.min(1)).mean((1, 2))
        luma = np.einsum("bchw,c->bhw", pixels, (0.2126, 0.7152, 0.0722))
        return luma.reshape(len(luma), -1).std(1)

    expected = amount(evidence.images) / amount(evidence.true_renders).mean()
    assert metric.measure(evidence).per_image == pytest.approx(expected)
    flat = torch.zeros_like(evidence.true_renders)
    assert metric.measure(replace(evidence, true_renders=flat)).value is None, "no ratio to nothing"


def test_modality_gap_and_its_closing(evidence: Evidence) -> None:
    images, texts = see("clip", evidence.images), read("clip", ["a", "b c", "d"])
    vector = unit(images).mean(0) - unit(texts).mean(0)
    assert modality_gap(images, texts).numpy() == pytest.approx(vector)
    a, b = close_gap(images, texts, modality_gap(images, texts))
    assert float(modality_gap(a, b).norm()) < 0.5 * float(np.linalg.norm(vector))
    score = ModalityGap().measure(evidence)
    assert score.value == pytest.approx(np.linalg.norm(unit(images).mean(0) - unit(read("clip", [evidence.text]))[0]))
    n, t = len(images), TextAlignment().measure(evidence).value
    d = Diversity().measure(evidence).value
    assert t is not None and d is not None
    assert score.value == pytest.approx((1 + 1 / n + (n - 1) / n * (1 - d) - 2 * t) ** 0.5 if n > 1 else score.value)
    own = ScorerGap().measure(evidence)
    assert own.value == pytest.approx(float(gap_of("clip").norm())) and own.n == 1
    assert ScorerGap().measure(replace(evidence, gap=lambda space: None)).value is None


def test_text_alignment_without_the_gap_is_that_of_the_moved_features(evidence: Evidence) -> None:
    images, text, gap = see("clip", evidence.images), read("clip", [evidence.text]), gap_of("clip").numpy()
    moved, there = unit(images) - gap / 2, unit(text) + gap / 2
    by_hand = [m @ there[0] / np.linalg.norm(m) / np.linalg.norm(there[0]) for m in moved]
    assert CorrectedTextAlignment().measure(evidence).per_image == pytest.approx(by_hand)
    plain = text_alignment(images, text).tolist()
    assert CorrectedTextAlignment(share=0.0).measure(evidence).per_image == pytest.approx(plain)
    assert CorrectedTextAlignment().measure(replace(evidence, gap=lambda space: None)).value is None


def test_closing_half_the_gap_lets_the_means_meet_before_they_are_normalised() -> None:
    images, texts = see("clip", noise_pictures(6, seed=3)), read("clip", ["a", "b c", "d"])
    gap = modality_gap(images, texts).numpy()
    assert (unit(images) - gap / 2).mean(0) == pytest.approx((unit(texts) + gap / 2).mean(0))


def same_everywhere(images: Tensor) -> Evidence:
    """Evidence in which every reference is the pictures themselves, and the prompt reads as they look."""
    return Evidence(
        images=images, text="x", see=see, read=lambda space, prompts: see(space, images[:1]).expand(len(prompts), -1),
        photos=images, held_out=images, true_renders=images, twins=images, class_word=True,
        gap=lambda space: torch.zeros(10, dtype=torch.float64), phrases={"style": "y"},
        wanted=(Element("style", ("style",), frozenset({"sketch"})),),
        found=torch.ones((len(images), 1), dtype=torch.bool),
    )  # fmt: skip


BEST = {
    "text_alignment": 1.0, "text_alignment_corrected": 1.0, "style_alignment": 1.0, "image_alignment": 1.0,
    "elements": 1.0, "diversity": 0.0, "diversity_lpips": 0.0, "diversity_ssim": 0.0,
    "drift_with_class_word": 0.0, "class_collapse": 1.0, "copy": 1.0, "saturation": 1.0, "contrast": 1.0,
    "modality_gap": 0.0, "scorer_gap": 0.0,
}  # fmt: skip
"""What a metric says of identical pictures: its best value, or, for those that accuse, the worst."""


@pytest.mark.parametrize("cls", METRICS, ids=lambda c: c.__name__)
def test_identical_pictures_give_the_extreme_value(cls: type[AbstractMetric]) -> None:
    metric = cls()
    identical = same_everywhere(noise_pictures(1, seed=9).repeat(3, 1, 1, 1))
    score = metric.measure(identical)
    assert score.value == pytest.approx(BEST[metric.name], abs=1e-6)
    assert score.level == metric.level
    assert metric.axis in ("image", "text", "neither")


@pytest.mark.parametrize("cls", METRICS, ids=lambda c: c.__name__)
def test_the_direction_is_honoured(cls: type[AbstractMetric], evidence: Evidence) -> None:
    """Going from unlike to alike moves a metric the way it says is better; where it accuses, the other way."""
    metric = cls()
    if metric.higher_is_better is None:
        return
    mixed = metric.measure(replace(evidence, found=torch.zeros((4, 2), dtype=torch.bool))).value
    alike = metric.measure(same_everywhere(noise_pictures(1, seed=9).repeat(3, 1, 1, 1))).value
    accuses = metric.name in ("copy", "class_collapse") or metric.name.startswith("diversity")
    assert mixed is not None and alike is not None and mixed != alike
    assert (alike > mixed) == (metric.higher_is_better is not accuses)


@pytest.mark.parametrize("cls", METRICS, ids=lambda c: c.__name__)
def test_directions_are_those_results_are_ranked_by(cls: type[AbstractMetric]) -> None:
    from palp_lab.study.directions import higher_is_better

    metric = cls()
    assert higher_is_better(metric.name) is metric.higher_is_better


@pytest.mark.parametrize("cls", METRICS, ids=lambda c: c.__name__)
def test_as_a_torchmetric_it_gives_the_mean_over_all_it_saw(cls: type[AbstractMetric], evidence: Evidence) -> None:
    metric = cls()
    other = replace(evidence, images=noise_pictures(4, seed=8), found=torch.ones((4, 2), dtype=torch.bool))
    running = Running(metric)
    running.update(evidence)
    running.update(other)
    scores = [metric.measure(evidence), metric.measure(other)]
    parts = [v for s in scores for v in (s.per_image if s.per_image is not None else [s.value])]
    assert float(running.compute()) == pytest.approx(np.mean(parts))
    assert running.higher_is_better is metric.higher_is_better
    running.reset()
    running.update(evidence)
    assert float(running.compute()) == pytest.approx(scores[0].value)
    assert not list(running.parameters()), "no network lands in a checkpoint"


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("cls", METRICS, ids=lambda c: c.__name__)
def test_ranks_join_exactly_even_where_one_measured_nothing(cls: type[AbstractMetric], evidence: Evidence) -> None:
    """What a gather over three ranks does, with two pictures, four and none: the mean over all, not of means."""
    metric = cls()
    few = replace(evidence, images=evidence.images[:2], twins=evidence.twins[:2], found=evidence.found[:2])
    shares = [[few], [evidence, evidence], []]
    ranks = [
        Running(metric, dist_sync_fn=None, distributed_available_fn=lambda: True, sync_on_compute=True) for _ in shares
    ]
    for rank, share in zip(ranks, shares, strict=True):
        for one in share:
            rank.update(one)
    held = [torch.cat(rank.values) if rank.values else torch.tensor([], dtype=torch.float64) for rank in ranks]
    scores = [metric.measure(one) for share in shares for one in share]
    parts = [v for s in scores for v in (s.per_image if s.per_image is not None else [s.value])]
    for rank, mine in zip(ranks, held, strict=True):

        def gather(tensor: Tensor, group: object = None, mine: Tensor = mine) -> list[Tensor]:
            assert torch.equal(tensor, mine) and tensor.dtype == torch.float64, "all ranks gather one type"
            return held

        rank.dist_sync_fn = gather
        assert float(rank.compute()) == pytest.approx(np.mean(parts))


def test_a_torchmetric_that_saw_nothing_is_nan(evidence: Evidence) -> None:
    running = Running(ImageAlignment(against="true_renders"))
    running.update(replace(evidence, true_renders=None))
    assert torch.isnan(running.compute())


def test_values_that_are_not_finite_are_null(evidence: Evidence) -> None:
    score = TextAlignment().measure(replace(evidence, see=lambda space, images: see(space, images) * float("nan")))
    assert (score.value, score.per_image, score.n) == (None, (None,) * 4, 0)

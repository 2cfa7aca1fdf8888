"""A synthetic study with known truth: three methods that trade text for identity along training, as the field reports.

Every cell draws from its own seeded generator, concepts and prompts have effects of their own that all methods share
(so pairs are worth pairing), and the expected differences between methods are constants of this file.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from palp_lab.study.result import Bound, Cost, MetricValue, Protocol, Record, Result, save_result

METHODS = ("palp", "textual_inversion", "ti_db")
CONCEPTS = ("cat 11", "robot 12", "teapot 13")
SEEDS = (0, 1)
STEPS = (0, 100, 200, 350, 500)
PROMPTS = {
    "a sketch of {} in Paris": "new style",
    "an oil painting of {} at the beach": "new style",
    "a photo of {} in the snow wearing a red hat": "same style",
    "a photo of {} on the moon": "same style",
}
TEXT_GAIN = 0.05
"""How much text alignment palp truly keeps over ti_db at the last step on its own target."""
IMAGES = 4


def draws(*key: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def measured(mean: float, *key: object, n: int = IMAGES, noise: float = 0.01) -> MetricValue:
    values = mean + noise * draws(*key).standard_normal(n)
    return MetricValue("image", float(values.mean()), tuple(float(value) for value in values), n)


def truth(method: str, step: int, own: bool) -> dict[str, float]:
    """The expected value of each metric before concept and prompt effects."""
    done = 1 - np.exp(-step / 150)
    full = 1 - np.exp(-500 / 150)
    identity = 0.42 + {"palp": 0.37, "ti_db": 0.39, "textual_inversion": 0.22}[method] * done
    text = 0.33 - 0.09 * {"palp": 1.0, "ti_db": 1.0, "textual_inversion": 0.55}[method] * done
    text += TEXT_GAIN * done / full if method == "palp" and own else 0.0
    return {
        "identity": identity,
        "text_alignment": text,
        "image_alignment": identity + 0.1,
        "elements": min(1.0, max(0.0, 0.5 + 4 * (text - 0.26))),
        "diversity": 0.4 - 0.2 * done,
        "saturation": 1.0 + 0.1 * done,
        "copy": 0.5 + 0.3 * done,
    }


def make_result(method: str, concept: str, seed: int, target: str | None = None, folder: Path | None = None) -> Result:
    """One cell of the synthetic study."""
    records = []
    for step in STEPS:
        for prompt, group in PROMPTS.items():
            own = target == prompt
            shared = draws(concept, prompt).normal(0, 0.015)
            metrics = {
                name: measured(mean + shared, name, method, concept, seed, step, prompt, target)
                for name, mean in truth(method, step, own).items()
            }
            metrics["drift_without_class_word"] = MetricValue("set", None, None, 0)
            records.append(
                Record(
                    step, prompt, metrics, group, target, own, {"guidance": 5.0, "strength": 1.0}, tuple(range(IMAGES))
                )
            )
    bounds = []
    for name, (identity, text) in {
        "class_word": (0.41, 0.335),
        "described": (0.60, 0.34),
        "held_out_photos": (0.86, 0.215),
        "training_photos": (0.99, 0.21),
        "true_renders": (0.84, 0.345),
    }.items():
        for prompt in PROMPTS:
            metrics = {
                "identity": measured(identity, name, concept, prompt),
                "text_alignment": measured(text, name, concept, prompt, "text"),
                "elements": measured(0.9 if text > 0.3 else 0.2, name, concept, prompt, "elements"),
            }
            bounds.append(Bound(name, prompt, metrics))
    run = f"{zlib.crc32(repr((method, concept, seed, target)).encode()):08x}"
    axes = {"method": method, "dataset": "tiny", "concept": concept, "model": "tiny", "train_seed": seed}
    cost = Cost(60.0 + 40 * (method == "palp") + seed, 1.5e9, 33000.0, 140000.0)
    log: dict[str, dict[str, list[float]]] = {
        "columns": {
            "step": [float(step) for step in range(0, 500, 10)],
            "reconstruction/value": [0.2 * float(np.exp(-step / 200)) + 0.05 for step in range(0, 500, 10)],
            "reconstruction/at_prediction": [1.0 + 0.1 * float(np.sin(step)) for step in range(0, 500, 10)],
        }
    }
    if method == "palp":
        cosine = [-0.4 + step / 1000 + draws(run, step).normal(0, 0.1) for step in range(0, 500, 10)]
        log["columns"]["cosine/reconstruction~prompt_alignment"] = cosine
    return Result(
        run=run,
        axes={**axes, "target": target, "study": "synthetic"},
        records=tuple(records),
        bounds=tuple(bounds),
        protocol=Protocol("tiny", "1", {"clip": "abc123"}),
        cost=cost,
        versions={"palp_lab": "0.1.0", "torch": "2.13.0"},
        training_log=log,
        folder=folder,
    )


def make_study() -> list[Result]:
    """3 methods × 3 concepts × 2 seeds; palp once per target (4 prompts), so 36 cells."""
    return [
        make_result(method, concept, seed, target)
        for method in METHODS
        for concept in CONCEPTS
        for seed in SEEDS
        for target in (PROMPTS if method == "palp" else (None,))
    ]


def draw(path: Path, *key: object) -> str:
    """A 64 px picture of its own: a disc (the concept's colour) before a ground (the prompt's)."""
    subject, ground, spot = (draws(part).integers(40, 230, 3) for part in (key[0], key[1], key))
    canvas = Image.new("RGB", (64, 64), tuple(map(int, ground)))
    pen = ImageDraw.Draw(canvas)
    left = int(spot[0]) % 20 + 6
    pen.ellipse((left, 16, left + 32, 50), fill=tuple(map(int, subject)))
    pen.ellipse((left + 8, 24, left + 13, 29), fill="white")
    pen.ellipse((left + 19, 24, left + 24, 29), fill="white")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)
    return path.name


def write_study(results: list[Result], folder: Path) -> Path:
    """The study on disk: a folder per cell with result.json, pictures of the last step, bounds and a strip."""
    for result in results:
        place = folder / result.run
        concept = str(result.axes["concept"])
        records = tuple(
            replace(
                record,
                images=tuple(
                    f"images/{draw(place / 'images' / f'{result.run}-{i}-{s}.png', concept, record.prompt, s)}"
                    for s in record.picture_seeds
                ),
            )
            if record.step == STEPS[-1]
            else record
            for i, record in enumerate(result.records)
        )
        bounds = tuple(
            replace(
                bound,
                images=tuple(
                    f"bounds/{draw(place / 'bounds' / f'{bound.name}-{i}-{s}.png', concept if s else bound.name, i, s)}"
                    for s in range(3)
                ),
            )
            for i, bound in enumerate(result.bounds)
        )
        pictures: dict[str, dict[str, str]] = {}
        for method, steps in {str(result.axes["method"]): STEPS, "base": (0,)}.items():
            for step in steps:
                draw(place / "strip" / method / f"{step}.png", concept, method, step)
                pictures.setdefault(method, {})[str(step)] = f"{method}/{step}.png"
        sentence = str(result.axes["target"] or next(iter(PROMPTS)))
        said = {"caption": f"Same noise, prompted “{sentence}”", "sentence": sentence, "pictures": pictures}
        (place / "strip" / "strip.json").write_text(json.dumps(said))
        save_result(replace(result, records=records, bounds=bounds), place / "result.json")
    return folder


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(make_study(), tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def study() -> list[Result]:
    return make_study()


@pytest.fixture
def cell() -> Callable[..., Result]:
    return make_result


@pytest.fixture
def text_gain() -> float:
    return TEXT_GAIN

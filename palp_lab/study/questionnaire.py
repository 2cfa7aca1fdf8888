"""The human study of PALP as one page: blinded, shuffled, answered in a browser without a network.

Published (arXiv 2401.06105, section 5.2, appendix D and Fig. 8): people count the prompt's elements they see and rate
how alike the main subjects of two pictures are, from 1 (least) to 5; per method, subject and prompt one of eight
pictures, drawn at random; questions shuffled and divided among three forms. Ours, because the paper does not say: the
wording, which phrases count as elements, one photo of the subject beside each picture, how the ratings are normalised
(`answers`).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from palp_lab.study.observations import frozen, observations, series_names, usual_knobs
from palp_lab.study.result import Record, Result
from palp_lab.study.writing import write_text
from palp_lab.types import UserError

KEY_SCHEMA = "palp_lab.study_key/1"
KEY = "key.json"
EDGE = 384
"""Least edge of a picture on the page in pixels (ours); smaller ones are enlarged by whole factors."""
BOUNDARY = re.compile(
    r"\s*,\s*|\s+(?!in the (?:back|fore)ground\b)"
    r"(?=(?:wearing|holding|in|on|at|by|with|under|inside|behind|during|next to|made of|inspired by)\b)"
)
"""Where a sentence is divided into what a rater counts (ours; the paper prints neither prompts nor elements)."""


@dataclass(frozen=True)
class Item:
    """One question: what the key knows of it. `picture` and `photo` are paths, `picture_hash` that of the file."""

    id: str
    form: int
    method: str
    dataset: str
    model: str
    concept: str
    prompt: str
    elements: tuple[str, ...]
    train_seed: int | str
    picture_seed: int | None
    step: int
    picture: str
    picture_hash: str
    photo: str


def elements_of(sentence: str) -> tuple[str, ...]:
    """What a rater counts in a sentence with a slot: its style, the subject, and every phrase that follows."""
    found = []
    for phrase in filter(None, BOUNDARY.split(sentence.strip())):
        style, of, rest = phrase.rpartition(" of ")
        found += [style, rest] if of and "{}" in rest else [phrase]
    return tuple(shown(phrase) for phrase in found)


def shown(sentence: str) -> str:
    """A sentence as raters read it: the slot is the subject of the photo, whatever class it is of."""
    return re.sub(r"\b(?:an?|the|my|one) \{\}|\{\}", "this subject", sentence)


def choose(results: Sequence[Result], forms: int, seed: int) -> list[Item]:
    """The questions, in the order of their forms, shuffled within each.

    Per method, concept and prompt one picture of the last step, drawn at random over training and picture seeds; only
    prompts that every method has (own targets where methods have one), so that raters compare like with like. Settings
    of a method are methods of their own, as on the front. All methods of one concept, base model and prompt are in
    one form, beside one photo, which lies with any result of the concept. Raises UserError where no pictures lie
    beside the results, or no photo.
    """
    rng = random.Random(f"study {seed}")
    names = setting_names(results)
    pools: dict[tuple[str, str, str, str], dict[str, list[tuple[Result, Record, int]]]] = {}
    for result, record in last_pictures(results):
        place = (*(str(result.axes[key]) for key in ("dataset", "concept", "model")), record.prompt)
        pool = pools.setdefault(place, {}).setdefault(names[result.run], [])  # type: ignore[arg-type]
        pool += [(result, record, i) for i in range(len(record.images))]
    methods = {method for pool in pools.values() for method in pool}
    places = [place for place, pool in sorted(pools.items()) if set(pool) == methods]
    if not places or len(methods) < 2:
        raise UserError(
            "study_kit: needs pictures of at least two methods for one concept and prompt; give results=[...] with the "
            "folders of the cells (a results.jsonl holds no pictures)"
        )
    rng.shuffle(places)
    items, photos = [], photos_of(results)
    for number, place in enumerate(places):
        for method in sorted(methods):
            result, record, i = rng.choice(pools[place][method])
            photo = photos.get(place[:2])
            name = f"{rng.getrandbits(48):012x}"
            items.append(_item(result, record, i, number % forms + 1, name, method, photo))
    rng.shuffle(items)
    return sorted(items, key=lambda item: item.form)


def setting_names(results: Sequence[Result]) -> dict[str, str]:
    """Per run the method and its setting, as on the front, but not the base model: pictures of two are not compared."""
    by_model: dict[object, list[Result]] = {}
    for result in results:
        by_model.setdefault(result.axes["model"], []).append(result)
    return {run: name for some in by_model.values() for run, name in series_names(some).items()}


def last_pictures(results: Sequence[Result]) -> list[tuple[Result, Record]]:
    """Of every result with pictures the records people are asked about: the last step, drawn as most were, sentences
    with the subject, and of a method with a target that one alone."""
    pictured = [result for result in results if result.folder is not None and any(r.images for r in result.records)]
    usual = usual_knobs(observations(pictured))
    found = []
    for result in pictured:
        last = max(record.step for record in result.records)
        for record in result.records:
            asked = record.own_target or result.axes.get("target") is None
            alike = not record.knobs or frozen(record.knobs) == usual
            if record.step == last and record.images and "{}" in record.prompt and asked and alike:
                found.append((result, record))
    return found


def photos_of(results: Sequence[Result]) -> dict[tuple[str, str], Path]:
    """The first training photo of every dataset and concept that lies beside any of its results."""
    found: dict[tuple[str, str], Path] = {}
    for result in results:
        place = (str(result.axes["dataset"]), str(result.axes["concept"]))
        if result.folder is None or place in found:
            continue
        images = [image for bound in result.bounds if bound.name == "training_photos" for image in bound.images]
        if there := next((result.folder / image for image in images if (result.folder / image).is_file()), None):
            found[place] = there
    return found


def _item(result: Result, record: Record, i: int, form: int, name: str, method: str, photo: Path | None) -> Item:
    assert result.folder is not None
    axes, picture = result.axes, result.folder / record.images[i]
    if not picture.is_file():
        raise UserError(f"{picture}: no such picture; make the cell again, or leave its folder out of results")
    if photo is None:
        raise UserError(
            f"{result.folder}: no result of {axes['concept']} has a training photo beside it (bounds/training_photos); "
            "make a cell of it again, or score its pictures again"
        )
    return Item(
        name, form, method, str(axes["dataset"]), str(axes["model"]), str(axes["concept"]), record.prompt,
        elements_of(record.prompt), axes["train_seed"],  # type: ignore[arg-type]
        record.picture_seeds[i] if i < len(record.picture_seeds) else None, record.step,
        str(picture), hashlib.sha256(picture.read_bytes()).hexdigest(), str(photo),
    )  # fmt: skip


def write_kit(results: Sequence[Result], folder: Path, title: str, forms: int = 1, seed: int = 0) -> list[Path]:
    """Writes `questionnaire.html` (or one per form) and the sealed `key.json`; returns the pages.

    Raises UserError where a key is there already: answers to its pages may be under way.
    """
    if (folder / KEY).exists():
        raise UserError(f"{folder / KEY}: a study lies there already; score it with study_kit_answers, or move it away")
    if forms < 1:
        raise UserError(f"study_kit_forms={forms}: must be at least 1")
    items = choose(results, forms, seed)
    values = {"schema": KEY_SCHEMA, "title": title, "forms": forms, "items": {i.id: asdict(i) for i in items}}
    key = json.dumps(values, indent=1, ensure_ascii=False)
    kit, pages = hashlib.sha256(key.encode()).hexdigest(), []
    for form in range(1, forms + 1):
        mine = [item for item in items if item.form == form]
        path = folder / ("questionnaire.html" if forms == 1 else f"questionnaire_{form}.html")
        if mine:
            pages.append(write_text(path, render(mine, title, kit, form)))
    write_text(folder / KEY, key)
    return pages


def render(items: Sequence[Item], title: str, kit: str, form: int) -> str:
    """The page of a form. It names neither methods nor files: pictures are drawn anew, without their metadata."""
    from jinja2 import Environment, StrictUndefined

    template = files("palp_lab.study").joinpath("questionnaire.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    photos = {photo: bare_png(Path(photo)) for photo in dict.fromkeys(item.photo for item in items)}
    questions: list[dict[str, Any]] = [
        {
            "id": item.id,
            "prompt": shown(item.prompt),
            "elements": item.elements,
            "picture": bare_png(Path(item.picture)),
            "photo": photos[item.photo],
        }
        for item in items
    ]
    return environment.from_string(template).render(title=title, kit=kit, form=form, questions=questions)


def bare_png(path: Path) -> str:
    """A picture as a data address, drawn anew: the words in its file, which name method and prompt, stay behind."""
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        raise UserError(f"{path}: is no picture that can be read") from None
    factor = max(1, EDGE // max(picture.size))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")

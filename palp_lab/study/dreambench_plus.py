"""Pictures in the folders that the judges of DreamBench++ read, so that others' scores can be had for ours.

    data/images/object/<nn>.jpg, data/captions/object/<nn>.txt    a photo of a concept; its class, then its prompts
    samples/<method>/{src_image,tgt_image}/<id>/<i>_<j>.jpg       the photo, and picture j of prompt i, which is
    samples/<method>/text/<id>/<i>_<j>.txt                        said here
    samples/<method>/negative_prompt.txt                          empty: we use none

Source: arXiv 2406.16855; the layout as its repository (yuangpeng/dreambench_plus) writes and reads it: <id> is
<category>_<nn>_<class>, pictures are JPEGs. Its scripts want nine prompts per concept; what is there is written, and a
method that lacks a prompt of its concept is left out of it. The category is `object` for all (ours): judges treat only
`style` otherwise.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from palp_lab.dataset.concept import with_noun
from palp_lab.study.gathering import place_of
from palp_lab.study.observations import series_names
from palp_lab.study.questionnaire import last_pictures, photos_of
from palp_lab.study.result import Record, Result
from palp_lab.study.writing import write_bytes, write_text
from palp_lab.types import UserError

CATEGORY = "object"
QUALITY = 95
"""Of the JPEGs (ours)."""


def lay_out(results: Sequence[Result], folder: Path) -> dict[str, int]:
    """Writes data/ and samples/ below a folder; returns per method how many pictures it has.

    A method's pictures are those of the last step, drawn as most were, of every prompt with the concept: its own target
    where it was tuned for one. Several training seeds are methods of their own, and so are settings of a method and
    base models, as on the front. Raises UserError for results without pictures, photos or the class word, and where
    two pictures of one method would have one name.
    """
    shown: dict[str, list[Record]] = {}
    for result, record in last_pictures(results):
        shown.setdefault(result.run, []).append(record)
    cells, names = [result for result in results if result.run in shown], series_names(results)
    if not cells:
        raise UserError("dreambench_plus: needs pictures; give results=[...] with the folders of the cells")
    seeds = {result.axes["train_seed"] for result in cells}
    concepts = sorted({place_of(result) for result in cells})
    counts: dict[str, int] = {}
    photos = photos_of(results)
    for number, (concept, dataset) in enumerate(concepts):
        mine = [result for result in cells if place_of(result) == (concept, dataset)]
        photo, noun = _photo(photos, dataset, concept), _class_word(mine)
        written: set[tuple[str, str]] = set()
        prompts = sorted({record.prompt for result in mine for record in shown[result.run]})
        name = f"{CATEGORY}_{number:02d}_{noun.lower().replace(' ', '_')}"
        _jpeg(photo, folder / "data" / "images" / CATEGORY / f"{number:02d}.jpg")
        lines = [noun, *(with_noun(prompt, noun) for prompt in prompts)]
        write_text(folder / "data" / "captions" / CATEGORY / f"{number:02d}.txt", "\n".join(lines) + "\n")
        for result in mine:
            method = _slug(names[result.run]) + (f"_seed{result.axes['train_seed']}" if len(seeds) > 1 else "")
            place = folder / "samples" / method
            for record in shown[result.run]:
                if (method, record.prompt) in written:
                    raise UserError(
                        f"dreambench_plus: two results of {method} drew {record.prompt!r} of {concept}, and its layout "
                        "has one place for them; give results=[...] with one of the two"
                    )
                written.add((method, record.prompt))
                counts[method] = counts.get(method, 0) + _write(
                    place, name, prompts.index(record.prompt), record, result, photo, noun
                )
            write_text(place / "negative_prompt.txt", "")
    return dict(sorted(counts.items()))


def _write(place: Path, name: str, prompt: int, record: Record, result: Result, photo: Path, noun: str) -> int:
    assert result.folder is not None
    for image, path in enumerate(record.images):
        stem = f"{prompt}_{image}"
        _jpeg(photo, place / "src_image" / name / f"{stem}.jpg")
        _jpeg(result.folder / path, place / "tgt_image" / name / f"{stem}.jpg")
        write_text(place / "text" / name / f"{stem}.txt", with_noun(record.prompt, noun))
    return len(record.images)


def _photo(photos: Mapping[tuple[str, str], Path], dataset: str, concept: str) -> Path:
    if photo := photos.get((dataset, concept)):
        return photo
    raise UserError(
        f"dreambench_plus: no result of {concept} has a training photo beside it (bounds/training_photos); "
        "make a cell of it again, or score its pictures again"
    )


def _class_word(cells: Sequence[Result]) -> str:
    for cell in cells:
        data: Mapping[str, object] = cell.data or {}
        if data.get("superclass"):
            return str(data["superclass"])
    # Results of an older version do not say it; concepts of the tiny world are named <class>_<seed>.
    return re.sub(r"[_ ]\d+$", "", str(cells[0].axes["concept"]))


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")


def _jpeg(source: Path, target: Path) -> None:
    try:
        with Image.open(source) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        raise UserError(f"{source}: is no picture that can be read") from None
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY, subsampling=0)
    write_bytes(target, stream.getvalue())

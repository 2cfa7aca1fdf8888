"""Which cells of results.jsonl have which name in README.md and parts.md, and the rows that a table there is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

import pandas as pd

from palp_lab.study.ledger import read_jsonl
from palp_lab.study.observations import bound_observations, observations
from palp_lab.study.result import Record, Result

HERE = Path(__file__).resolve().parent
TEXT, IDENTITY, WORN = "text_alignment", "identity", "accessories_found"
SKETCH = "a sketch of a {} wearing a red hat in the snow"
WATERCOLOR = "a watercolor of a {} wearing a blue scarf in the city"
NIGHT = "a photo of a {} wearing a red hat at night"
BEACH = "a photo of a {} wearing a purple scarf on the beach"
TARGETS = (SKETCH, WATERCOLOR, NIGHT, BEACH)
FIRST = ("cat_1234", "robot_1234", "bird_1234")
"""The subjects of the parts that have three."""

ALIGN = "losses.prompt_alignment."
TERM = {f"{ALIGN}clamp": 4.0, f"{ALIGN}weight": 0.1}
FULL = {"edits": "full", "optimizer.lr": 0.0001}
ARMS: dict[str, tuple[Mapping[str, object], ...]] = {
    "TI + DB": ({"method": "ti_db"},),
    "PALP": ({"method": "palp"},),
    "control": ({"method": "palp_control"},),
    "Rare Adjective": ({"method": "rare_adjective"},),
    "Rare Adjective, .0001": ({"method": "rare_adjective", "optimizer.lr": 0.0001},),
    "Textual Inversion": ({"method": "textual_inversion"},),
    "P+": ({"method": "p_plus"},),
    "P+, .003": ({"method": "p_plus", "optimizer.token_lr": 0.003},),
    "DreamBooth": ({"method": "dreambooth"},),
    "DreamBooth, .0001": ({"method": "dreambooth", "optimizer.lr": 0.0001},),
    "DreamBooth-LoRA": ({"method": "dreambooth_lora"},),
    "DreamBooth-LoRA, .001": ({"method": "dreambooth_lora", "optimizer.lr": 0.001},),
    "Custom Diffusion": ({"method": "custom_diffusion"},),
    "TI + DB, full": ({"method": "ti_db", **FULL},),
    "PALP, full": ({"method": "palp", **FULL},),
    "control, full": ({"method": "palp_control", **FULL},),
    "TI + DB, attention": ({"method": "ti_db", **FULL, "edits.targets": "[attn]"},),
    "TI + DB, .0003": ({"method": "ti_db", "optimizer.lr": 0.0003},),
    "PALP, .0003": ({"method": "palp", "optimizer.lr": 0.0003},),
    "control, .0003": ({"method": "palp_control", "optimizer.lr": 0.0003},),
    "at once, .0001": ({"method": "rare_adjective", "optimizer.lr": 0.0001, "stages": "[]"},),
    "no class word, .0001": (
        {
            "method": "rare_adjective",
            "optimizer.lr": 0.0001,
            "tokens.init_token": "null",
            "tokens.phrase": "{placeholder}",
        },
    ),
    "on LoRA": ({"method": "rare_adjective", "edits": "lora", "edits.rank": 16, "optimizer.lr": 0.001},),
    "fresh noise": ({"method": "palp_fresh_noise"},),
    "SDS": ({"method": "palp_sds"},),
    "NFSD": ({"method": "palp_nfsd"},),
    "no re-scaling": ({"method": "palp_no_rescale"},),
    "no re-scaling / 3": ({"method": "palp_no_rescale", f"{ALIGN}weight": 0.033},),
    "target as caption": ({"method": "target_as_caption"},),
    "PALP, 7.5": (
        {"method": "palp", f"{ALIGN}alpha": 7.5},
        {"method": "palp", f"{ALIGN}weight": 0.1, f"{ALIGN}alpha": 7.5, f"{ALIGN}beta": 7.5},
    ),
    "P+ with the term": ({"method": "p_plus", "losses": "[reconstruction,prompt_alignment]", **TERM},),
    "P+ with the term, .003": (
        {"method": "p_plus", "losses": "[reconstruction,prompt_alignment]", "optimizer.token_lr": 0.003, **TERM},
    ),
    "Custom Diffusion with the term": (
        {
            "method": "custom_diffusion",
            "losses": "[reconstruction,prior_preservation,prompt_alignment]",
            **TERM,
        },
    ),
}
"""A name for each setting: what its cells are filed under beyond the photos, the seed and the exposure; nothing else
may be set in them. Of several settings under one name (one was swept, one left at its default) any one will do."""

ARMS |= {
    f"PALP {weight} {alpha} {beta}": (
        {"method": "palp", f"{ALIGN}weight": weight, f"{ALIGN}alpha": alpha, f"{ALIGN}beta": beta},
        *([{"method": "palp"}] if (weight, alpha, beta) == (0.1, 15, 7.5) else []),
        *([{"method": "palp", f"{ALIGN}weight": 0.3}] if (weight, alpha, beta) == (0.3, 15, 7.5) else []),
        *([{"method": "palp", f"{ALIGN}alpha": 7.5}] if (weight, alpha, beta) == (0.1, 7.5, 7.5) else []),
    )
    for weight in (0.03, 0.1, 0.3)
    for alpha in (7.5, 15)
    for beta in (7.5, 15)
}
DIALS = tuple(name for name in ARMS if name.startswith("PALP ") and name[5] in "0123456789")
ARMS |= {"PALP, weight .3": ARMS["PALP 0.3 15 7.5"]}
ARMS |= {"control, weight .3": ({"method": "palp_control", f"{ALIGN}weight": 0.3},)}
COMMON = {"study", "dataset", "concept", "model", "train_seed", "shots", "max_steps", "batch_size", "target"}
COMMON |= {"trainer.batch_size", "generate.guidance", "generate.strength"}
"""What cells of any setting are filed under: `Where` chooses among these."""


UNIT = ["concept", "prompt", "train_seed"]


@dataclass(frozen=True)
class Where:
    """Which rows a table is about; `None` takes all there are."""

    prompts: tuple[str, ...] | None = TARGETS
    seeds: tuple[int, ...] = (0, 1, 2)
    concepts: tuple[str, ...] | None = None
    guidance: float = 7.5
    strength: float = 1.0
    shots: int = 3
    exposure: tuple[int, int] = (350, 4)
    """The steps of the whole training and its batch size: the field's exposure is their product."""
    other: bool = False
    """Of an arm with a target the prompts it was not tuned for, in place of its own."""
    pictures: tuple[int, ...] | None = None
    """Of each prompt's pictures those that the means are over."""
    beside: tuple[str, ...] = ()
    """Arms that must have measured the same pairs too: means of a study under way are then over the same ones."""


EIGHT = Where(prompts=None, seeds=(0,))
"""All prompts that name the subject, first training seed."""


@cache
def ledger() -> tuple[Result, ...]:
    return tuple(read_jsonl(HERE / "results.jsonl"))


@cache
def bounds(shots: int = 3) -> pd.DataFrame:
    """What trivial rivals reach beside so many photos, from the cells that measured them."""
    found = bound_observations(ledger())
    return found[found["shots"] == shots]


def arms_of(result: Result) -> list[str]:
    """The names of a cell's setting: none where no table asks for it."""
    setting = {key: value for key, value in result.axes.items() if key not in COMMON}
    return [arm for arm, settings in ARMS.items() if setting in settings]


def of_pictures(record: Record, pictures: tuple[int, ...] | None) -> Record:
    """The record as if it had these pictures alone, in what each picture is measured by."""
    if pictures is None:
        return record
    each = {name: one.per_image for name, one in record.metrics.items() if one.per_image and None not in one.per_image}
    means = {name: fmean(values[at] for at in pictures) for name, values in each.items()}  # type: ignore[misc]
    return replace(record, metrics={name: replace(record.metrics[name], value=mean) for name, mean in means.items()})


@cache
def rows_of(arms: tuple[str, ...], where: Where) -> pd.DataFrame:
    """Rows of these arms, one curve each; of an arm with a target those of its own prompt, and of pictures without the
    subject."""
    found = []
    for result in ledger():
        axes = result.axes
        exposure = (axes["max_steps"], axes["batch_size"])
        if axes["train_seed"] in where.seeds and axes["shots"] == where.shots and exposure == where.exposure:
            common = {key: value for key, value in axes.items() if key in COMMON}
            mine = [arm for arm in arms if arm in arms_of(result)]
            records = tuple(of_pictures(one, where.pictures) for one in result.records) if mine else ()
            found += [replace(result, records=records, axes={**common, "method": arm}) for arm in mine]
    frame = observations(found)
    asked = ~frame["own_target"] if where.other else frame["own_target"] | (frame["prompt_group"] == "drift")
    frame = frame[frame["target"].isna() | asked]
    at = [(knobs["guidance"], knobs["strength"]) for knobs in map(dict, frame["knobs"])]
    frame = frame[[drawn == (where.guidance, where.strength) for drawn in at]] if at else frame
    for column, wanted in (("concept", where.concepts), ("prompt", where.prompts)):
        frame = frame[frame[column].isin(wanted)] if wanted else frame
    for arm in where.beside:
        others = rows_of((arm,), replace(where, beside=()))
        frame = frame[frame.set_index(UNIT).index.isin(others.set_index(UNIT).index)]
    # A training that two parts drew at one setting counts once.
    return frame.drop_duplicates(["series", "dataset", "model", "concept", "prompt", "train_seed", "target", "step"])

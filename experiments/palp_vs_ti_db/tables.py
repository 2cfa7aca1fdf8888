"""Every table of results in README.md, parts.md and the project's README, computed from the ledger and gradients.csv.

    python experiments/palp_vs_ti_db/tables.py           # writes them, between their marks
    python experiments/palp_vs_ti_db/tables.py --check   # writes nothing, exits with 1 where a text says otherwise

It is also an example of how to ask the ledger what no report asks: cells of several parts under one name, side by side.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd
from cells import (
    BEACH,
    DIALS,
    EIGHT,
    FIRST,
    HERE,
    IDENTITY,
    NIGHT,
    SKETCH,
    TARGETS,
    TEXT,
    WATERCOLOR,
    WORN,
    Where,
    arms_of,
    bounds,
    ledger,
    rows_of,
)

import palp_lab
from palp_lab.study.curves import volumes_per_concept
from palp_lab.study.documents import bare, main, markdown
from palp_lab.study.observations import bounds_beside, per_unit
from palp_lab.study.statistics import Comparison, compare_at_equal, compare_at_step, per_concept, sign_flip_p


def average(arm: str, metric: str, where: Where, step: int | None = None) -> float:
    """Over seeds, then prompts, then subjects, as every report has it; NaN where there is nothing to average."""
    rows = rows_of((arm,), where)
    units = per_unit(rows[rows["step"] == (step or where.exposure[0])], [metric])[metric]
    return float(per_concept(units).mean())


def mean(arm: str, metric: str, where: Where, digits: int, step: int | None = None) -> str:
    found = average(arm, metric, where, step)
    return "–" if math.isnan(found) else bare(found, digits)


@cache
def at_end(challenger: str, baseline: str, metric: str, where: Where) -> Comparison | None:
    return compare_at_step(rows_of((baseline, challenger), where), baseline, challenger, metric, where.exposure[0])


@cache
def at_equal(challenger: str, baseline: str, where: Where) -> Comparison | None:
    """Text alignment at equal identity."""
    return compare_at_equal(rows_of((baseline, challenger), where), baseline, challenger, TEXT, IDENTITY)


def difference(one: Comparison | None) -> str:
    if one is None:
        return "–"
    middle, *ends = (one.difference.mean, one.difference.low, one.difference.high)
    shown = ", ".join(bare(end, sign="+") for end in ends if end is not None)
    return bare(middle, sign="+") + (f" [{shown}]" if shown else "")


def chance(one: Comparison | None) -> str:
    return "–" if one is None or one.p_concepts is None else bare(one.p_concepts)


COLUMNS: dict[str, Callable[[str, str, Where], str]] = {
    "pairs": lambda *pair: str(found.pairs if (found := at_end(*pair[:2], TEXT, pair[2])) else 0),
    "text alignment": lambda *pair: difference(at_end(*pair[:2], TEXT, pair[2])),
    "identity": lambda *pair: difference(at_end(*pair[:2], IDENTITY, pair[2])),
    "p (text)": lambda *pair: chance(at_end(*pair[:2], TEXT, pair[2])),
    "p (identity)": lambda *pair: chance(at_end(*pair[:2], IDENTITY, pair[2])),
    "text at equal identity": lambda *pair: difference(at_equal(*pair)),
    "pairs there": lambda *pair: str(found.pairs if (found := at_equal(*pair)) else 0),
    "p": lambda *pair: chance(at_equal(*pair)),
}
ALL = ("pairs", "text alignment", "identity", "p (text)", "p (identity)", "text at equal identity", "p", "pairs there")


MOVED = ("text alignment", "identity", "p (identity)", "text at equal identity", "p")
LEVEL = ("text at equal identity", "p", "pairs there")
RARE = ("Rare Adjective", "Rare Adjective, .0001")
OF_THE_TERM = (("PALP", "TI + DB"), ("control", "TI + DB"), ("PALP", "control"))
HEAVY = ("PALP, weight .3", "control, weight .3")
OF_HEAVY = ((HEAVY[0], "TI + DB"), (HEAVY[1], "TI + DB"), HEAVY, (HEAVY[0], "PALP"))


def have(arms: Mapping[str, str], where: Where) -> dict[str, str]:
    """Those that have been run, on all subjects that are asked for."""
    wanted = set(where.concepts or ())
    return {arm: name for arm, name in arms.items() if (found := subjects(arm, where)) and wanted <= found}


def subjects(arm: str, where: Where) -> set[str]:
    return set(rows_of((arm,), where)["concept"])


def pairs(where: Where, columns: Sequence[str], *sides: tuple[str, str]) -> str:
    """A row per (challenger, baseline) of which both have been run."""
    shared, rows = {arm.partition(", ")[2] for side in sides for arm in side}, []
    for challenger, baseline in sides:
        if len(have({challenger: "", baseline: ""}, where)) < 2:
            continue
        told = [arm.partition(", ")[0] if len(shared) == 1 else arm for arm in (challenger, baseline)]
        rows.append((" minus ".join(told), *(COLUMNS[column](challenger, baseline, where) for column in columns)))
    return markdown(("", *columns), rows)


METRICS = {
    "text alignment": TEXT,
    "identity": IDENTITY,
    "accessory in its colour": WORN,
    "diversity": "diversity",
    "elements found": "elements",
    "the bare class looks like the subject": "class_collapse",
    "style": "style_found",
    "place": "place_found",
}
PLANE = ("text alignment", "identity", "accessory in its colour")


def means(arm: str, heads: Sequence[str], where: Where, digits: int = 3, step: int | None = None) -> list[str]:
    """Shares and the like with two digits at most, whatever `digits`: they are counted over a few pictures."""
    return [mean(arm, METRICS[head], where, digits if head in PLANE[:2] else 2, step) for head in heads]


def per_target() -> str:
    arms, heads, rows = ("TI + DB", "control", "PALP"), (PLANE[0], PLANE[2], PLANE[1]), []
    for target in TARGETS:
        where = Where(prompts=(target,), beside=arms)
        rows.append([target, *(" / ".join(means(arm, heads, where, 2)) for arm in arms)])
    return markdown(("target", *arms), rows)


def price() -> str:
    """Per target, what the target itself costs and buys: over the pairs of both seeds."""
    rows = []
    for target in TARGETS:
        where = Where(prompts=(target,))
        for metric in (TEXT, IDENTITY):
            one = [at_end(*side, metric, where) for side in OF_THE_TERM]
            name = "text alignment" if metric == TEXT else "identity"
            rows.append([target if metric == TEXT else "", name, *(f"{difference(x)}, p {chance(x)}" for x in one)])
    return markdown(("target", "", *(" minus ".join(side) for side in OF_THE_TERM)), rows, words=2)


def on_others() -> str:
    """The term added to two other recipes: means on the target it was tuned for, without and with it."""
    where, rows = Where(prompts=(SKETCH,), concepts=FIRST), []
    for arm, name in {"P+": "P+", "P+, .003": "P+ at rate .003", "Custom Diffusion": "Custom Diffusion"}.items():
        recipe, _, rate = arm.partition(", ")
        aligned = f"{recipe} with the term" + (f", {rate}" if rate else "")
        if len(have({arm: "", aligned: ""}, where)) == 2:
            shared = replace(where, beside=(arm, aligned))
            both = zip(means(arm, PLANE, shared), means(aligned, PLANE, shared), strict=True)
            rows.append([name, *(f"{alone} -> {term}" for alone, term in both)])
    return markdown(("alone -> with the term", *PLANE), rows)


def recipes() -> str:
    heads = (*PLANE, "diversity", "the bare class looks like the subject")
    where = replace(EIGHT, concepts=FIRST, seeds=(0, 1))
    rows = []
    for recipe, rates in {
        "Textual Inversion": [""],
        "P+": ["", ", .003"],
        "DreamBooth": ["", ", .0001"],
        "DreamBooth-LoRA": ["", ", .001"],
        "Custom Diffusion": [""],
        "TI + DB": [""],
        "Rare Adjective": ["", ", .0001"],
    }.items():
        for rate in rates:
            told = recipe + rate.replace(", ", " at rate ")
            for arm in have({recipe + rate: ""}, where):
                seeds = rows_of((arm,), where).groupby("concept")["train_seed"].unique()
                shared = replace(where, seeds=tuple(sorted(set.intersection(*map(set, seeds)))))
                rows.append([told, *means(arm, heads, shared, 2)])
    renders = bounds()[bounds()["name"].eq("true_renders") & bounds()["concept"].isin(FIRST)]
    shown = [bare(float(renders[METRICS[head]].mean()), 2) for head in heads[:-1]]
    return markdown(("", *heads), [*rows, ["true renders of the prompts", *shown, ""]])


def leads(arm: str, where: Where) -> str:
    """The mean lead in text alignment over TI + DB at equal identity, without an interval: for too few subjects."""
    level = None if arm == "TI + DB" else at_equal(arm, "TI + DB", where)
    return bare(level.difference.mean, sign="+") if level else ""


TWO = (0, 1)
"""The training seeds that all of the leaders have."""


def along() -> str:
    """Where curves stand after each kept number of steps: text alignment / identity."""
    where = replace(EIGHT, seeds=TWO)
    arms = have({arm: LEADERS.get(arm, arm) for arm in ("TI + DB", *LEADERS) if arm not in ("PALP", "control")}, where)
    rows = []
    for step in (50, 100, 200, 350):
        rows.append([str(step), *(" / ".join(means(arm, PLANE[:2], where, step=step)) for arm in arms)])
    return markdown(("steps", *arms.values()), rows)


def choices() -> str:
    rows = []
    settings = {
        "TI + DB": "TI + DB (LoRA, rank 16, rate .001)",
        "TI + DB, full": "TI + DB with all weights of the UNet instead, rate .0001",
        "Rare Adjective": "Rare Adjective, rate .001",
        "Rare Adjective, .0001": "Rare Adjective, rate .0001",
        "at once, .0001": "the same, word and weights from the start",
        "no class word, .0001": "the same, no class word in the prompt",
        "on LoRA": "Rare Adjective with TI + DB's LoRA",
        "TI + DB, attention": "TI + DB with all weights of the attention, rate .0001",
        "TI + DB, .0003": "TI + DB's LoRA at rate .0003",
    }
    for arm, name in have(settings, EIGHT).items():
        level = None if arm == "TI + DB" else at_equal(arm, "TI + DB", EIGHT)
        found = ["", ""] if arm == "TI + DB" else [difference(level), chance(level)]
        rows.append([name, *means(arm, PLANE, EIGHT), *found])
    return markdown(("", *PLANE, "text at equal identity, minus TI + DB", "p"), rows)


def gentler() -> str:
    """Part h's settings on the targets of part a."""
    where, rows = Where(seeds=TWO), []
    for arm, name in {
        "PALP": "PALP",
        "control": "control",
        "TI + DB, .0003": "TI + DB at rate .0003",
        "TI + DB, full": "TI + DB with all weights, rate .0001",
    }.items():
        rows.append([name, *(COLUMNS[column](arm, "TI + DB", where) for column in MOVED)])
    return markdown(("", *MOVED), rows)


LEADERS = {
    "PALP": "PALP",
    "control": "control",
    "Rare Adjective": "Rare Adjective, rate .001",
    "Rare Adjective, .0001": "Rare Adjective, rate .0001",
    "TI + DB, .0003": "TI + DB's LoRA at rate .0003",
    "TI + DB, full": "TI + DB with all weights, rate .0001",
}


def stopping() -> str:
    """What was trained to the end against TI + DB stopped at 200 steps: the same place, or another curve?"""
    rows = []
    for arm, name in have(LEADERS, Where()).items():
        both = rows_of((arm, "TI + DB"), Where())
        kept = both[both["step"] == both["series"].map({arm: 350, "TI + DB": 200})].assign(step=350)
        found = [compare_at_step(kept, "TI + DB", arm, metric, 350) for metric in (TEXT, IDENTITY)]
        shown = [cell for one in found for cell in (difference(one), chance(one))]
        rows.append([name, str(found[0].pairs if found[0] else 0), *shown])
    return markdown(("", "pairs", "text alignment", "p", "identity", "p"), rows)


def otherwise() -> str:
    """The lead at equal identity, had it been computed otherwise."""
    challengers = ("PALP", "control", *RARE, "TI + DB, full")

    def row(name: str, change: Callable[[pd.DataFrame], pd.DataFrame], levels: int = 9, x: str = IDENTITY) -> list[str]:
        cells = []
        for arm in challengers:
            frame = change(rows_of(("TI + DB", arm), Where()))
            one = compare_at_equal(frame, "TI + DB", arm, TEXT, x, levels=levels)
            assert one is not None
            cells.append(f"{bare(one.difference.mean, sign='+')}, p {chance(one)} ({one.pairs})")
        return [name, *cells]

    def halves(identity: tuple[int, ...], text: tuple[int, ...]) -> Callable[[pd.DataFrame], pd.DataFrame]:
        def change(frame: pd.DataFrame) -> pd.DataFrame:
            arms = tuple(frame["series"].unique())
            one, other = (rows_of(arms, Where(pictures=half)) for half in (identity, text))
            assert one["run"].tolist() == other["run"].tolist() and one["step"].tolist() == other["step"].tolist()
            return one.assign(**{TEXT: other[TEXT].to_numpy()})

        return change

    rows = [
        row("as above: nine levels, steps 50 to 350", lambda frame: frame),
        row("three levels", lambda frame: frame, levels=3),
        row("33 levels", lambda frame: frame, levels=33),
        row("without step 50", lambda frame: frame[frame["step"] > 50]),
        row("identity to photos that were not trained on", lambda frame: frame, x="identity_held_out"),
        row("the tiny CLIP's image alignment for identity", lambda frame: frame, x="image_alignment"),
        row("identity from pictures 1 and 2, text from 3 and 4", halves((0, 1), (2, 3))),
        row("identity from pictures 3 and 4, text from 1 and 2", halves((2, 3), (0, 1))),
    ]
    return markdown(("text at equal identity, minus TI + DB", *challengers), rows)


def volumes() -> str:
    """Whole curves in one number, on the pairs that all of them have."""
    where, plane = Where(seeds=TWO), (IDENTITY, TEXT)
    arms = ("TI + DB", *have(LEADERS, where))
    found = {arm: volumes_per_concept(rows_of((arm,), where), bounds(), plane) for arm in arms}
    rows = []
    for arm, own in found.items():
        gaps = [own[concept] - found["TI + DB"][concept] for concept in own]
        p = sign_flip_p(gaps)
        versus = (
            ["", ""] if arm == "TI + DB" else [bare(statistics.mean(gaps), sign="+"), "–" if p is None else bare(p)]
        )
        rows.append([LEADERS.get(arm, arm), bare(statistics.mean(own.values())), *versus])
    return markdown(("", "hypervolume", "minus TI + DB", "p"), rows)


def costs() -> str:
    """What an edit does beside the subject."""
    heads, rows = ("diversity", "the bare class looks like the subject"), []
    targets, bare_class = Where(seeds=TWO), Where(prompts=None, seeds=TWO)
    for arm, name in have({"TI + DB": "TI + DB", **LEADERS}, targets).items():
        shown = [*means(arm, heads[:1], targets, 3), *means(arm, heads[1:], bare_class, 2)]
        found = [result for result in ledger() if arm in arms_of(result)]
        numbers = statistics.mean(result.cost.trainable_parameters or 0 for result in found) / 1e6
        size = statistics.mean(result.cost.adapter_bytes or 0 for result in found) / 1e6
        rows.append([name, *shown, bare(numbers, 2), f"{size:.0f}"])
    return markdown(("", *heads, "trained numbers, millions", "adapter, MB"), rows)


def summary() -> str:
    """The project's own README: what was set beside TI + DB on its four targets, each with the seeds it has."""
    columns = ("pairs", "text alignment", "identity", "text at equal identity", "p")
    rows = []
    settings = {
        "PALP": "PALP",
        "control": "the same term without a target, which only recalls what the class looks like",
        "Rare Adjective": "Rare Adjective: the word first, then all weights",
        "TI + DB, .0003": "TI + DB at a third of the LoRA's rate",
        "TI + DB, full": "TI + DB that trains all weights, at rate .0001",
    }
    for arm, name in have(settings, Where()).items():
        rows.append([name, *(COLUMNS[column](arm, "TI + DB", Where()) for column in columns)])
    return markdown(("minus TI + DB", *columns), rows)


def knobs() -> str:
    drawn = {
        (record.knobs["guidance"], record.knobs["strength"])
        for result in ledger()
        if "TI + DB" in arms_of(result) and str(result.axes["study"]).endswith(("_a", "_d_knobs"))
        for record in result.records
    }
    rows = []
    for guidance, strength in sorted(drawn, key=lambda at: (-at[1], at[0])):
        where = replace(EIGHT, concepts=FIRST, seeds=(0, 1), guidance=guidance, strength=strength)
        measured = means("TI + DB", (*PLANE, "elements found"), where)
        rows.append([f"{guidance:g}", f"{strength:g}".removeprefix("0"), *measured])
    return markdown(("guidance", "adapter scale", *PLANE, "elements found"), rows, words=0)


def scaled() -> str:
    """The adapter's scale as a way of its own through the plane, from 1 down to .4 after the last step, beside the ways
    over steps; one row for the first seed alone, whose answer was another one."""
    pairs = (
        ("TI + DB scaled", "TI + DB", (0,)),
        ("TI + DB scaled", "TI + DB", (0, 1)),
        ("PALP", "TI + DB scaled", (0, 1)),
    )
    rows = []
    for challenger, baseline, seeds in pairs:
        usual, training = Where(seeds=seeds), ["concept", "train_seed"]
        drawn = {scale: rows_of(("TI + DB",), replace(usual, strength=scale)) for scale in (0.4, 0.6, 0.8, 1.0)}
        # Hundredths of the scale stand where a way over steps has its steps.
        way = [found[found["step"] == 350].assign(step=round(100 * scale)) for scale, found in drawn.items()]
        frame = pd.concat([rows_of(("TI + DB", "PALP"), usual), pd.concat(way).assign(series="TI + DB scaled")])
        frame = frame.assign(knobs=[()] * len(frame))
        # Only trainings of which all scales were drawn.
        whole = set.intersection(*(set(found.set_index(training).index) for found in drawn.values()))
        frame = frame[frame.set_index(training).index.isin(whole)]
        one, worn = (compare_at_equal(frame, baseline, challenger, metric, IDENTITY) for metric in (TEXT, WORN))
        cells = [cell for found in (one, worn) for cell in (difference(found), chance(found))]
        name = f"{challenger} minus {baseline}" + (", first seed alone" if seeds == (0,) else "")
        rows.append([name, *cells, str(one.pairs if one else 0)])
    return markdown(("at equal identity", "text alignment", "p", "accessory in its colour", "p", "pairs there"), rows)


def guidance() -> str:
    """Part g beside the parts it draws again: the means at guidance 3, and how far they are from those at 7.5."""
    metrics, rows = (TEXT, IDENTITY), []
    usual, less = (Where(seeds=(0,), guidance=scale) for scale in (7.5, 3))
    for arm in have(dict.fromkeys(("TI + DB", "control", "PALP", *RARE), ""), less):
        frame = pd.concat([rows_of((arm,), usual).assign(series="7.5"), rows_of((arm,), less).assign(series="3")])
        frame = frame.assign(knobs=[()] * len(frame))  # two settings side by side, as no report has them
        cells = []
        for metric in metrics:
            one = compare_at_step(frame, "7.5", "3", metric, 350)
            cells += [mean(arm, metric, less, 3), difference(one), chance(one)]
        rows.append([arm, *cells])
    heads = ("text alignment at guidance 3", "minus at 7.5", "p", "identity at guidance 3", "minus at 7.5", "p")
    return markdown(("", *heads), rows)


def worn(sides: Sequence[tuple[str, str]] = OF_THE_TERM, where: Where | None = None) -> str:
    """Accessories found in their colour, at equal steps and at equal identity."""
    rows = []
    for challenger, baseline in sides:
        frame = rows_of((baseline, challenger), replace(where or Where(), beside=(baseline, challenger)))
        after = compare_at_step(frame, baseline, challenger, WORN, 350)
        level = compare_at_equal(frame, baseline, challenger, WORN, IDENTITY)
        found = [cell for one in (after, level) for cell in (difference(one), chance(one))]
        levels = " / ".join(
            bare(float(frame.query("series == @arm and step == 350")[WORN].mean()), 2) for arm in (challenger, baseline)
        )
        rows.append([f"{challenger} minus {baseline}", levels, *found])
    heads = ("accessory in its colour", "found", "after 350 steps", "p", "at equal identity", "p")
    return markdown(heads, rows)


def of_each_subject() -> str:
    """Guidance 3 minus 7.5, per subject: three of them have no interval."""
    rows = []
    for concept in FIRST:
        usual = replace(EIGHT, concepts=(concept,), seeds=(0, 1))
        cells = []
        for metric in (TEXT, IDENTITY):
            less, more = (
                rows_of(("TI + DB",), replace(usual, guidance=scale)).query("step == 350")[metric].mean()
                for scale in (3, 7.5)
            )
            cells.append(bare(float(less - more), sign="+"))
        rows.append([concept.partition("_")[0], *cells])
    return markdown(("guidance 3 minus 7.5", *PLANE[:2]), rows)


def levels_i() -> str:
    """Part i's pairs under TI + DB's LoRA and under the full edit: the means."""
    where, rows = Where(prompts=(WATERCOLOR, BEACH), seeds=(0,)), []
    for edit, suffix in (("LoRA", ""), ("all weights", ", full")):
        rows += [[f"{edit}: {arm}", *means(arm + suffix, PLANE, where)] for arm in ("TI + DB", "PALP", "control")]
    return markdown(("", *PLANE), rows)


def more_of_i() -> str:
    """What else moves on the full edit."""
    where, rows = Where(prompts=(WATERCOLOR, BEACH), seeds=(0,)), []
    frame = rows_of(("TI + DB, full", "PALP, full"), where)
    sides = ("TI + DB, full", "PALP, full")
    for name, metric in {"image alignment": "image_alignment", "copy": "copy", PLANE[2]: WORN}.items():
        one = compare_at_step(frame, *sides, metric, 350)
        rows.append([f"{name}, after 350 steps", difference(one), chance(one)])
    one = compare_at_equal(frame, *sides, WORN, IDENTITY)
    rows.append([f"{PLANE[2]}, at equal identity", difference(one), chance(one)])
    return markdown(("PALP minus TI + DB, all weights", "", "p"), rows)


def models() -> str:
    """The project's own README: how good the embedded models are, from the scores shipped beside their weights."""
    scores = json.loads((Path(palp_lab.__file__).parent / "tinyworld/weights/scores.json").read_text(encoding="utf-8"))
    drawn, true, goals, reader = (
        scores["tiny"]["found"],
        scores["true_renders"]["found"],
        scores["tiny"]["goals"],
        scores["reader"],
    )

    def share(found: Mapping[str, Mapping[str, float]], *names: str) -> str:
        return " / ".join(bare(found[name]["found"], 2) for name in names)

    def goal(*names: str) -> str:
        return " / ".join(sorted({bare(goals[name], 2) for name in names}, reverse=True))

    things = [reader[name]["all"] for name in ("hat", "crown", "sunglasses", "scarf", "balloon")]
    every = ("style", "place", "class", "accessory", "accessory with colour")
    rows = [
        (
            f"prompted style / place found in generated pictures (reader, {scores['tiny']['pictures']} pictures)",
            share(drawn, "style", "place"),
            goal("style", "place"),
        ),
        ("prompted class / accessory found", share(drawn, "class", "accessory"), goal("class", "accessory")),
        ("prompted accessory in its prompted colour", share(drawn, every[4]), ""),
        (
            "reader on true renders of the same prompts: style / place / class / accessory / in its colour",
            share(true, *every),
            bare(scores["true_renders"]["goal"], 2),
        ),
        (
            "reader on held-out renders of any kind: class / accessories with colour / coat colour / pattern",
            f"{bare(reader['class_']['all'], 2)} / {bare(min(things), 2)} to {bare(max(things), 2)} / "
            f"{bare(reader['colour']['all'], 2)} / {bare(reader['pattern']['all'], 2)}",
            bare(scores["true_renders"]["goal"], 2),
        ),
        ("tiny CLIP picks the true caption of 8", bare(scores["clip"]["right_of_8"], 2), ".95"),
        (
            f"identity encoder: right identity of {scores['identity']['identities']}",
            bare(scores["identity"]["retrieval"], 2),
            "",
        ),
        ("autoencoder", f"{scores['autoencoder']['decibel']:.1f} dB", ""),
    ]
    return markdown(("on element combinations never trained on, and on held-out renders", "reached", "goal"), rows)


def smaller_models() -> str:
    scores = json.loads((Path(palp_lab.__file__).parent / "tinyworld/weights/scores.json").read_text(encoding="utf-8"))
    names = ("style", "place", "class", "accessory")
    rows = [
        (f"`{model}`", *(bare(scores[model]["found"][name]["found"], 2) for name in names))
        for model in ("tiny_small", "tiny_flow_unet", "tiny_flow")
    ]
    return markdown(("found in its pictures", *names), rows)


PARTS = {
    "TI + DB": "TI + DB",
    "PALP": "PALP",
    "fresh noise": "fresh noise instead of the same",
    "SDS": "SDS (reference noise)",
    "NFSD": "NFSD",
    "no re-scaling": "no re-scaling, same weight",
    "target as caption": "the target as caption of the photos",
}


ABLATED = Where(seeds=(0, 1), concepts=FIRST, beside=tuple(PARTS))
"""The pairs that all of part b's have: it is under way."""


def per_ablation() -> str:
    """Text alignment and identity, per target."""
    there = [prompt for prompt in TARGETS if not rows_of(("PALP",), replace(ABLATED, prompts=(prompt,))).empty]
    rows = [
        [name, *(" / ".join(means(arm, PLANE[:2], replace(ABLATED, prompts=(prompt,)), 2)) for prompt in there)]
        for arm, name in PARTS.items()
    ]
    return markdown(("text alignment / identity", *there), rows)


def ablations() -> str:
    where, rows = ABLATED, []
    for arm, name in PARTS.items():
        found = at_end(arm, "PALP", IDENTITY, where) if arm != "PALP" else None
        less = bare(found.difference.mean, sign="+") if found else ""
        rows.append([name, *means(arm, PLANE, where), less, leads(arm, where)])
    heads = ("", *PLANE, "identity, minus PALP", "text at equal identity, minus TI + DB")
    return markdown(heads, rows)


def a_third() -> str:
    """The term without re-scaling is three times as strong: the same at a third of the weight."""
    where = Where(prompts=(WATERCOLOR,), seeds=(0,), concepts=FIRST)
    arms = {"TI + DB": "TI + DB", "PALP": "PALP", "no re-scaling": PARTS["no re-scaling"]}
    arms["no re-scaling / 3"] = "no re-scaling, weight / 3"
    rows = [[name, *means(arm, PLANE, where), leads(arm, where)] for arm, name in arms.items()]
    return markdown(("", *PLANE, "text at equal identity, minus TI + DB"), rows)


DIALED = Where(prompts=(SKETCH, NIGHT), seeds=(0,), concepts=FIRST[:2], beside=DIALS)
"""Part c: the pairs that every setting has."""


UNSEEN = ("cat_77", "robot_77", "bird_77", "bird_1234")
"""The subjects of part k that part c, which it was chosen from, did not show."""


def dial() -> str:
    rows = []
    settings = {"TI + DB": ["TI + DB", "", "", ""], "control": ["control", ".1", "15", "7.5"]}
    settings |= {arm: [part.removeprefix("0") for part in arm.split()] for arm in DIALS}
    for arm, setting in settings.items():
        if not rows_of((arm,), DIALED).empty:
            rows.append([*setting, *means(arm, PLANE, DIALED, 2), leads(arm, DIALED)])
    return markdown(("", "weight", "alpha", "beta", *PLANE, "text at equal identity, minus TI + DB"), rows)


def turns() -> str:
    """What a step of one dial does in the mean over all settings of the other two, for each subject and target."""
    steps = (("weight", 0.03, 0.1), ("weight", 0.1, 0.3), ("alpha", 7.5, 15.0), ("beta", 7.5, 15.0))
    pairs_there = list(product(DIALED.concepts or (), DIALED.prompts or ()))
    rows = []
    for dial_name, *ends in steps:
        at, changes = ("weight", "alpha", "beta").index(dial_name), []
        for concept, prompt in pairs_there:
            where = replace(DIALED, concepts=(concept,), prompts=(prompt,))
            for metric in (TEXT, IDENTITY):
                before, after = (
                    [average(arm, metric, where) for arm in DIALS if float(arm.split()[1 + at]) == end] for end in ends
                )
                changes.append(statistics.mean(after) - statistics.mean(before))
        told = [bare(change, 2, sign="+") for change in changes]
        both = (f"{text} / {subject}" for text, subject in zip(told[::2], told[1::2], strict=True))
        low, high = (f"{end:g}".removeprefix("0") for end in ends)
        rows.append([f"{dial_name} {low} -> {high}", *both])
    short = {SKETCH: "sketch", NIGHT: "at night"}
    heads = (f"{concept.partition('_')[0]}, {short[prompt]}" for concept, prompt in pairs_there)
    return markdown(("text alignment / identity", *heads), rows)


def exposure() -> str:
    heads, rows = ("text alignment", "elements found", "style", "place", "accessory in its colour", "identity"), []
    for arm, shots, steps in (
        ("TI + DB", 1, (10, 100, 200, 350, 500)),
        ("TI + DB", 3, (10, 100, 200, 350, 500)),
        ("DreamBooth", 1, (10, 100, 200, 350, 500)),
        ("DreamBooth", 3, (10, 100, 200, 350, 500)),
        ("DreamBooth, .0001", 3, (10, 350, 500)),
    ):
        where = replace(EIGHT, concepts=FIRST, shots=shots, exposure=(500, 4))
        rows += [[arm, str(shots), str(step), *means(arm, heads, where, 2, step)] for step in steps]
    for rival, name in (("class_word", "the base, asked for the class"), ("described", "the base, fully described")):
        frame = bounds_beside(bounds(), rows_of(("TI + DB",), replace(EIGHT, concepts=FIRST)))
        frame = frame[(frame["name"] == rival) & frame["concept"].isin(FIRST)]
        rows.append([name, "", "", *(bare(float(frame[METRICS[head]].mean()), 2) for head in heads)])
    return markdown(("method", "photos", "step", *heads), rows)


def level_0() -> str:
    """Part 0's methods at equal identity, along 500 steps."""
    rows = []
    for shots in (1, 3):
        where = replace(EIGHT, concepts=FIRST, shots=shots, exposure=(500, 4))
        frame = rows_of(("TI + DB", "DreamBooth"), where)
        one, worn = (compare_at_equal(frame, "TI + DB", "DreamBooth", metric, IDENTITY) for metric in (TEXT, WORN))
        cells = [cell for found in (one, worn) for cell in (difference(found), chance(found))]
        rows.append([str(shots), *cells, str(one.pairs if one else 0)])
    heads = ("photos", "text at equal identity", "p", "accessory at equal identity", "p", "pairs there")
    return markdown(heads, rows)


EXPOSURES = {4: (200, 500), 32: (25, 50, 200, 500)}
"""Steps at which part 0 is read, by batch size: 25 of 32 pictures are as many as 200 of 4."""


def large_batch() -> str:
    """Part 0 at both batch sizes, by the pictures that a training has seen."""
    heads, rows = ("text alignment", "elements found", "style", "place", "accessory in its colour", "identity"), []
    for arm, shots in product(("TI + DB", "DreamBooth"), (1, 3)):
        for batch, steps in EXPOSURES.items():
            where = replace(EIGHT, concepts=FIRST, shots=shots, exposure=(500, batch))
            if have({arm: arm}, where):
                rows += [
                    [arm, str(shots), f"{step} × {batch}", str(step * batch), *means(arm, heads, where, 2, step)]
                    for step in steps
                ]
    return markdown(("method", "photos", "steps × batch", "pictures seen", *heads), rows)


def level_batch() -> str:
    """Batch 32 minus batch 4: after as many steps, and at equal identity along both curves."""
    rows = []
    for arm, shots in product(("TI + DB", "DreamBooth"), (1, 3)):
        small, large = (
            rows_of((arm,), replace(EIGHT, concepts=FIRST, shots=shots, exposure=(500, batch))) for batch in EXPOSURES
        )
        both = pd.concat([small.assign(series="small"), large.assign(series="large")])
        if large.empty:
            continue
        ended = [compare_at_step(both, "small", "large", metric, 500) for metric in (TEXT, WORN, IDENTITY)]
        level = compare_at_equal(both, "small", "large", TEXT, IDENTITY)
        cells = [*map(difference, ended), difference(level), chance(level), str(level.pairs if level else 0)]
        rows.append([arm, str(shots), *cells])
    heads = ("batch 32 minus 4", "photos", "text alignment", "accessory in its colour", "identity")
    return markdown((*heads, "text at equal identity", "p", "pairs there"), rows)


def gradients() -> str:
    """Between the term and reconstruction, at the parameters, as the trainings of the store logged them."""
    with (HERE / "gradients.csv").open(encoding="utf-8", newline="") as file:
        logged = list(csv.DictReader(file))
    rows = []
    for arm, target, name in (
        ("PALP", SKETCH, "PALP, a sketch ... in the snow"),
        ("PALP", WATERCOLOR, "PALP, a watercolor ... in the city"),
        ("PALP", BEACH, "PALP, a photo ... on the beach"),
        ("PALP", NIGHT, "PALP, a photo ... at night"),
        ("control", "", "control"),
        ("PALP, 7.5", WATERCOLOR, "PALP, the watercolor, alpha = beta = 7.5 (part e)"),
        ("PALP, 7.5", NIGHT, "PALP, the photo at night, alpha = beta = 7.5 (part e)"),
        ("P+ with the term", SKETCH, "P+ with the term, the sketch (part d)"),
        ("P+ with the term, .003", SKETCH, "P+ with the term at rate .003, the sketch (part d)"),
        ("Custom Diffusion with the term", SKETCH, "Custom Diffusion with the term, the sketch (part d)"),
    ):
        found = [row for row in logged if (row["arm"], row["target"]) == (arm, target)]
        if found:
            averages = [statistics.mean(float(row[key]) for row in found) for key in ("cosine", "ratio")]
            rows.append((name, str(len(found)), *(bare(value, 2) for value in averages)))
    return markdown(("training", "n", "cosine", "ratio"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "summary": summary,
    "stopping": stopping,
    "volumes": volumes,
    "otherwise": otherwise,
    "costs": costs,
    "a": lambda: pairs(Where(), ALL, *OF_THE_TERM),
    "targets": per_target,
    "price": price,
    "on_others": on_others,
    "along": along,
    "each": of_each_subject,
    "levels_i": levels_i,
    "more_of_i": more_of_i,
    "models": models,
    "smaller_models": smaller_models,
    "gentler_palp": lambda: pairs(Where(seeds=TWO), ALL, ("TI + DB, .0003", "PALP")),
    "h_two": lambda: pairs(
        replace(EIGHT, seeds=TWO),
        ALL,
        *((arm, "TI + DB") for arm in ("TI + DB, full", *RARE, "TI + DB, .0003")),
        ("Rare Adjective, .0001", "TI + DB, full"),
        ("TI + DB, .0003", "TI + DB, full"),
        RARE,
    ),
    "gradients": gradients,
    "d": recipes,
    "level_d": lambda: pairs(
        replace(EIGHT, concepts=FIRST, seeds=(0, 1)),
        LEVEL,
        *((arm, "TI + DB") for arm in ("P+", "Custom Diffusion", "DreamBooth-LoRA", "DreamBooth", "Rare Adjective")),
        ("DreamBooth", "Rare Adjective"),
    ),
    "f": lambda: pairs(Where(), ALL, *((arm, other) for other in ("TI + DB", "PALP", "control") for arm in RARE), RARE),
    "h": choices,
    "gentler": gentler,
    "i": lambda: trained_otherwise("full"),
    "j": lambda: trained_otherwise(".0003"),
    "knobs": knobs,
    "guidance": guidance,
    "scaled": scaled,
    "worn": worn,
    "transfer": lambda: pairs(Where(prompts=None, other=True), LEVEL, *OF_THE_TERM),
    "order": lambda: pairs(
        EIGHT,
        MOVED,
        ("Rare Adjective, .0001", "TI + DB, full"),
        ("at once, .0001", "Rare Adjective, .0001"),
        ("TI + DB, attention", "TI + DB, full"),
    ),
    "e": lambda: pairs(
        Where(prompts=(WATERCOLOR, NIGHT), seeds=(0,)), ALL, ("PALP, 7.5", "TI + DB"), ("PALP, 7.5", "PALP")
    ),
    "g": lambda: pairs(
        Where(seeds=(0,), guidance=3),
        ALL,
        *((arm, "TI + DB") for arm in ("PALP", "control", *RARE)),
        ("PALP", "control"),
    ),
    "k": lambda: pairs(Where(seeds=(0,)), ALL, *OF_HEAVY),
    "k_unseen": lambda: pairs(Where(seeds=(0,), concepts=UNSEEN), ALL, *OF_HEAVY),
    "k_worn": lambda: worn(OF_HEAVY[:3], Where(seeds=(0,))),
    "b": ablations,
    "b_pairs": lambda: pairs(ABLATED, ALL, *((arm, "PALP") for arm in PARTS if arm not in ("PALP", "TI + DB"))),
    "b_targets": per_ablation,
    "b_third": a_third,
    "c": dial,
    "c_turns": turns,
    "0": exposure,
    "0_batch": large_batch,
    "level_batch": level_batch,
    "level_0": level_0,
}


def trained_otherwise(name: str) -> str:
    """Part i and, at a lower rate, part j: the three of part a."""
    palp, control, alone = (f"{arm}, {name}" for arm in ("PALP", "control", "TI + DB"))
    where = Where(prompts=(WATERCOLOR, BEACH), seeds=(0,))
    return pairs(where, ALL, (palp, alone), (control, alone), (palp, control))


RATES = "rates, guidance scales and adapter scales of a setting"
GIVEN = {
    "arXiv 2401.06105, Table 2, and its differences": (".319", ".340", ".716", ".681", ".308", ".673", ".021", ".035"),
    "name of a model": ("1.4",),
    "two of the 64 ways to give six differences a sign": (".031",),
    "mean of sigma/alpha over the steps of SD's schedule": ("3.0",),
    RATES: (".001", ".0003", ".0001", ".003", ".01", ".4", ".6", ".8", "7.5"),
}
"""Numbers of README.md and parts.md that no table of their section makes."""
GIVEN_FRONT = {
    "versions": ("3.11", "1.5", "2.0"),
    RATES: (".001", ".0001", "7.5"),
    "two of the 64 ways to give six differences a sign": (".031",),
    "`make demo`, as experiments/quickstart has it": (".020", ".148", ".012"),
    '`make bench ARGS="-k footprint"`': ("3.3", "2.1", "6.4", "8.2", "35.6", "6.5"),
}
"""Those of the project's own README, which may also repeat what the tables of a study say."""


if __name__ == "__main__":
    front, flow = HERE.parents[1] / "README.md", HERE.parent / "palp_flow" / "README.md"
    parts, own = HERE / "parts.md", HERE / "README.md"
    results = [
        main(parts, TABLES, given=GIVEN),
        main(own, TABLES, given=GIVEN, beside=(parts,)),
        main(front, TABLES, given=GIVEN_FRONT, beside=(parts, own, flow)),
    ]
    sys.exit(max(results))

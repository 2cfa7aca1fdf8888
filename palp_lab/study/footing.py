"""What tables and verdict stand on, in words: the pairs behind each row, and how its pictures were drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from palp_lab.study.fields import Scalar
from palp_lab.study.observations import UNIT, at_usual_knobs, mixed_axes, usual_knobs
from palp_lab.study.palette import words
from palp_lab.study.result import Result

PLACE = tuple(key for key in UNIT if key != "model")
"""A pair without its base model, which is in a row's name where there are several."""
NAMED = 4
"""Rows whose pairs are counted in the sentence (ours); more would not be read."""
NO_BEST = "Rows are over different pairs, so none is marked best."
_SCHEDULERS = {"ddim": "DDIM", "ddpm": "DDPM", "dpm++": "DPM++", "unipc": "UniPC"}


def last_steps(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Per curve the rows of its last step, at the usual knobs: what a row of the tables is made of."""
    usual = at_usual_knobs(frame)
    return [
        (str(series), rows[rows["step"] == rows["step"].max()]) for series, rows in usual.groupby("series", sort=True)
    ]


def is_uneven(rows: Sequence[pd.DataFrame], metrics: Sequence[str]) -> bool:
    """Whether the metrics were measured on other concepts, prompts or seeds in one of these than in another; what has
    none of them is no rival."""
    places = [_places(one, metrics) for one in rows]
    return len({place for place in places if place}) > 1


def different_pairs(scope: pd.DataFrame, axes: Sequence[str], paired: bool) -> str:
    """A sentence where the curves' last marks are over different pairs, else nothing; `paired` where some comparison
    is over those that two share."""
    last = [(name, rows.dropna(subset=list(axes))) for name, rows in last_steps(scope)]
    last = [(name, rows) for name, rows in last if len(rows)]
    if not is_uneven([rows for _, rows in last], axes):
        return ""
    counted = [f"{words(name)} {_size(rows)}" for name, rows in last[:NAMED]]
    listed = "; ".join(counted) + (f"; and {len(last) - NAMED} more" if len(last) > NAMED else "")
    end = "only paired differences are over shared ones" if paired else "their means do not compare"
    return f"Rows are over different pairs (prompts × subjects × seeds: {listed}); {end}."


def short_of_pairs(scope: pd.DataFrame, axes: Sequence[str]) -> str:
    """A sentence where curves' last steps lack pairs that earlier ones have, as when some subjects were trained for
    longer than others; else nothing."""
    usual, short = at_usual_knobs(scope), []
    for name, last in last_steps(scope):
        every = _places(usual[usual["series"] == name], axes)
        if lost := len(every - _places(last, axes)):
            short.append(f"{words(name)} {len(every) - lost} of {len(every)} at step {int(last['step'].max())}")
    if not short:
        return ""
    listed = "; ".join(short)
    return f"Last steps lack pairs of earlier ones (prompt × subject × seed: {listed}); means there are over fewer."


def drawn_with(scope: pd.DataFrame, swept: bool) -> str:
    """At which setting tables and verdict hold, where other settings are, and whom that leaves out; nothing where
    nobody told one. `swept` where the front has marks of others."""
    usual = usual_knobs(scope)
    if not usual:
        return ""
    told = dict(usual)
    others = any(knobs and knobs != usual for knobs in scope["knobs"].unique())
    where = "marks on the front" if swept else "in none of them"
    held = f"Tables and verdict: {_setting(told)}" + (f"; other settings drawn are {where}." if others else ".")
    return " ".join([held, *drawn_otherwise(scope)])


def drawn_otherwise(scope: pd.DataFrame) -> list[str]:
    """A sentence per curve without rows at the usual setting: it is left out, however much of it was measured."""
    there = set(at_usual_knobs(scope)["series"])
    usual, sentences = usual_knobs(scope), []
    for name, rows in scope[~scope["series"].isin(there)].groupby("series", sort=True):
        unlike = dict.fromkeys(_unlike(knobs, usual) for knobs in rows["knobs"].unique())
        sentences.append(
            f"{words(str(name))} was drawn with {' or '.join(unlike)} only, so it is in no comparison, on no curve "
            "over steps, and in no table but that of cost."
        )
    return sentences


def settings_averaged(results: Sequence[Result], series: Sequence[str]) -> list[str]:
    """A sentence per curve whose subjects or seeds were trained with different settings."""
    sentences = []
    for name, axes in mixed_axes(results, series).items():
        listed = "; ".join(f"{axis} {' or '.join(map(_value, values))}" for axis, values in axes.items())
        sentences.append(
            f"Subjects or seeds of {words(name)} were trained with different settings, which its curve averages "
            f"({listed}); 'series=[{','.join(axes)}]' tells them apart."
        )
    return sentences


def _setting(told: Mapping[str, Scalar]) -> str:
    """Knobs in words, the best known first."""
    order = [name for name in ("guidance", "strength", "scheduler", "steps") if name in told]
    return ", ".join(_knob(name, told[name]) for name in (*order, *(name for name in told if name not in order)))


def _unlike(knobs: tuple[tuple[str, Scalar], ...], usual: tuple[tuple[str, Scalar], ...]) -> str:
    """What a setting has that the usual one has not."""
    lacking = [f"no {name} told" for name in dict(usual) if name not in dict(knobs)]
    return ", ".join(filter(None, (_setting(dict(item for item in knobs if item not in usual)), *lacking)))


def _value(value: Scalar) -> str:
    return "unset" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _places(rows: pd.DataFrame, metrics: Sequence[str]) -> frozenset[tuple[Scalar, ...]]:
    if not set(metrics) <= set(rows.columns):
        return frozenset()
    measured = rows.dropna(subset=list(metrics))
    return frozenset(measured[list(PLACE)].itertuples(index=False, name=None))


def _size(rows: pd.DataFrame) -> str:
    subjects = len(rows[["dataset", "concept"]].drop_duplicates())
    return f"{rows['prompt'].nunique()} × {subjects} × {rows['train_seed'].nunique()}"


def _knob(name: str, value: Scalar) -> str:
    shown = _value(value)
    if name == "scheduler":
        return _SCHEDULERS.get(shown, shown)
    return f"{shown} steps" if name == "steps" else f"{'adapter scale' if name == 'strength' else name} {shown}"

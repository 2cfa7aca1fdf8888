"""Results as one long table: a row per record, a column per metric, and which rows may be compared with which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import pandas as pd

from palp_lab.study.directions import nearest
from palp_lab.study.fields import Scalar
from palp_lab.study.result import MetricValue, Result
from palp_lab.types import UserError

UNIT = ("dataset", "model", "concept", "prompt", "train_seed")
"""What two methods are paired by: the same photos, the same prompt, the same seed of the training."""
SCOPES = ("own", "other", "all")
"""own: prompts that a method with a target was tuned for, and the same prompts from methods that have none.
other: every other prompt of the methods with a target, and all prompts of those without. all: everything."""
_KEYS = ("run", "method", *UNIT, "target", "prompt_group", "own_target", "step", "knobs", "series")
PARTS = ("tokens", "edits", "losses", "stages")
"""The parts of a recipe: a result has an axis of that name where another one than the recipe's was chosen."""
_UNIT_AXES = ("dataset", "model", "concept", "train_seed")
_BOUND_KEYS = ("name", "dataset", "model", "concept", "prompt", "shots", "drawn")


def observations(results: Iterable[Result], series: Sequence[str] = ()) -> pd.DataFrame:
    """One row per record. Columns: run, method, dataset, model, concept, prompt, train_seed, target, prompt_group,
    own_target, step, knobs, series, and one per metric (NaN here, and only here, means not measured).

    `series` names further axes that split a method into several curves ("shots", "losses.prompt_alignment.weight");
    axes in which several cells of one unit differ split their method anyway, so that no two settings are averaged.
    """
    results = list(results)
    names = series_names(results, series)
    rows: list[dict[str, object]] = []
    for result in results:
        for record in result.records:
            rows.append(
                {
                    **{key: result.axes[key] for key in ("method", "dataset", "model", "concept", "train_seed")},
                    "run": result.run,
                    "series": names[result.run],
                    "prompt": record.prompt,
                    "prompt_group": record.prompt_group,
                    "target": record.target,
                    "own_target": record.own_target,
                    "step": record.step,
                    "knobs": frozen(record.knobs),
                    **_measured(record.metrics),
                }
            )
    return _framed(rows, _KEYS)


def filed_alike(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Per curve the runs that measured one prompt of what the axes take for one training: they differ in what no axis
    names (a part that was changed, other prompts beside the common ones), and their numbers are averaged."""
    place = ["series", *UNIT, "target", "step", "knobs"]
    once = frame[[*place, "run"]].drop_duplicates()
    twice = once[once.duplicated(place, keep=False)]
    return {str(name): sorted(set(runs)) for name, runs in twice.groupby("series")["run"]}


def series_names(results: Sequence[Result], series: Sequence[str] = ()) -> dict[str, str]:
    """Per run the name of its curve: the method, what tells its setting from others of that method, the base model
    where there are several (a subject on two of them is no two subjects), and any part that replaces the recipe's own:
    without it the recipe would be blamed, or praised, for another method."""
    varied = varied_axes(results)
    models = ("model",) if len({result.axes["model"] for result in results}) > 1 else ()
    names = {}
    for result in results:
        splits = dict.fromkeys((*series, *models, *varied.get(str(result.axes["method"]), ()), *PARTS))
        extra = [f"{axis} {result.axes[axis]}" for axis in splits if result.axes.get(axis) not in (None, "")]
        names[result.run] = " · ".join([str(result.axes["method"]), *extra])
    return names


def varied_axes(results: Iterable[Result]) -> dict[str, list[str]]:
    """Per method the axes in which cells of the same photos and seed differ: a sweep of a setting. Targets share a
    curve; but a setting may come with a target, as prompt alignment among swept losses does."""
    results = list(results)
    skipped = {"study", "target", *_knob_axes(results)}
    cells: dict[tuple[Scalar, ...], list[Mapping[str, Scalar]]] = {}
    for result in results:
        axes = result.axes
        place = tuple(axes[key] for key in ("method", "dataset", "model", "concept", "train_seed"))
        cells.setdefault(place, []).append(axes)
    varied: dict[str, list[str]] = {}
    for (method, *_), found in cells.items():
        varied[str(method)] = list(dict.fromkeys([*varied.get(str(method), []), *_differing(found, skipped)]))
    return {method: names for method, names in varied.items() if names}


def mixed_axes(results: Iterable[Result], series: Sequence[str] = ()) -> dict[str, dict[str, list[Scalar]]]:
    """Per curve the axes in which its cells differ, with their values: a setting that every subject or seed has one
    value of, but not the same one, is no sweep and does not split the curve."""
    results = list(results)
    names, skipped = series_names(results, series), {*_UNIT_AXES, "study", "target", *_knob_axes(results)}
    cells: dict[str, list[Mapping[str, Scalar]]] = {}
    for result in results:
        cells.setdefault(names[result.run], []).append(result.axes)
    mixed = {
        name: {axis: _values(axis, found) for axis in _differing(found, skipped)}
        for name, found in sorted(cells.items())
    }
    return {name: axes for name, axes in mixed.items() if axes}


def _knob_axes(results: Iterable[Result]) -> set[str]:
    """The axes of knobs of sampling, which are no settings of the training: their values are points of one curve."""
    return {f"generate.{name}" for result in results for record in result.records for name in record.knobs}


def _differing(cells: Sequence[Mapping[str, Scalar]], skipped: Collection[str]) -> list[str]:
    """The axes in which cells differ, each once, but for those `skipped`."""
    names = dict.fromkeys(name for axes in cells for name in axes if name not in skipped)
    differing = [name for name in names if len({axes.get(name) for axes in cells}) > 1]
    differing = [name for name in differing if "losses" not in differing or not _comes_with_its_loss(name, cells)]
    # A result is filed under "shots" and under the key that set it: one of the two is enough.
    return [name for name in differing if name.rpartition(".")[2] not in differing or "." not in name]


def _values(axis: str, cells: Iterable[Mapping[str, Scalar]]) -> list[Scalar]:
    """The values of an axis: numbers in order, then words, then None, which cells that do not have it count as."""

    def order(value: Scalar) -> tuple[int, float, str]:
        if isinstance(value, int | float):
            return 0, value, ""
        return 2 if value is None else 1, 0.0, str(value)

    return sorted({axes.get(axis) for axes in cells}, key=order)


def _comes_with_its_loss(name: str, cells: Iterable[Mapping[str, Scalar]]) -> bool:
    """Whether `losses.<loss>.<key>` has one value wherever that loss is among the cell's: the losses say it all."""
    group, _, rest = name.partition(".")
    loss = rest.partition(".")[0]
    return group == "losses" and bool(loss) and len({c.get(name) for c in cells if loss in str(c.get("losses"))}) == 1


def bound_observations(results: Iterable[Result]) -> pd.DataFrame:
    """One row per bound × concept × prompt × number of photos × how pictures were drawn; the same in several cells is
    averaged. The untuned model is drawn with a cell's own sampler, so guidance moves it as it moves a method."""
    rows: list[dict[str, object]] = [
        {
            **{key: result.axes[key] for key in ("dataset", "model", "concept")},
            "name": bound.name,
            "prompt": bound.prompt,
            "shots": result.axes.get("shots"),
            "drawn": _drawn(next((frozen(record.knobs) for record in result.records), ())),
            **_measured(bound.metrics),
        }
        for result in results
        for bound in result.bounds
    ]
    frame = _framed(rows, _BOUND_KEYS)
    return frame if frame.empty else frame.groupby(list(_BOUND_KEYS), dropna=False, sort=True, as_index=False).mean()


def bounds_beside(bounds: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The bounds that were drawn as the frame's pictures usually are; of a subject that has none such, all it has."""
    if bounds.empty or frame.empty:
        return bounds
    alike = bounds["drawn"] == _drawn(usual_knobs(frame))
    known = alike.groupby([bounds[key] for key in ("name", "dataset", "model", "concept")]).transform("any")
    return bounds[alike | ~known]


def _drawn(knobs: tuple[tuple[str, Scalar], ...]) -> str:
    """A setting of the knobs but for the adapter's strength, which the untuned model has none of."""
    return repr(tuple(item for item in knobs if item[0] != "strength"))


def metric_names(frame: pd.DataFrame) -> list[str]:
    """The metrics that were measured at least once."""
    return [name for name in frame.columns if name not in (*_KEYS, *_BOUND_KEYS) and frame[name].notna().any()]


def require_metric(frame: pd.DataFrame, name: str) -> str:
    """The name, if anything was measured under it; otherwise one line that names the nearest that was."""
    names = metric_names(frame)
    if name not in names:
        raise UserError(f"metric '{name}' was not measured in these results{nearest(name, names)}")
    return name


def scoped(frame: pd.DataFrame, scope: str) -> pd.DataFrame:
    """The rows of a scope (see `SCOPES`). Without any target in the results every prompt is in every scope."""
    if scope not in SCOPES:
        raise UserError(f"scope '{scope}' is unknown{nearest(scope, SCOPES)}")
    if scope == "all" or not frame["own_target"].any():
        return frame
    untargeted = frame["target"].isna()
    if scope == "other":
        return frame[untargeted | ~frame["own_target"]]
    return frame[frame["own_target"] | (untargeted & frame["prompt"].isin(target_prompts(frame)))]


def target_prompts(frame: pd.DataFrame) -> list[str]:
    """The prompts that some adapter was tuned for."""
    return sorted(frame.loc[frame["own_target"], "prompt"].unique())


def usual_knobs(frame: pd.DataFrame) -> tuple[tuple[str, Scalar], ...]:
    """The setting of the knobs that most records share: the one at which methods are compared. Pictures made by
    other tools have none.

    Of several that as many share it is the one most of whose values are common among the others, as the middle of a
    sweep that turns one knob at a time is; then the whole adapter and the usual guidance (`USUAL`).
    """
    told = Counter(knobs for knobs in frame["knobs"] if knobs)
    if not told:
        return ()
    most = max(told.values())
    common = Counter(item for knobs in told for item in knobs)

    def merit(knobs: tuple[tuple[str, Scalar], ...]) -> tuple[float, float, str]:
        numbers = {name: value for name, value in knobs if isinstance(value, int | float)}
        far = sum(abs(numbers[name] - value) for name, value in USUAL.items() if name in numbers)
        return -sum(common[item] for item in knobs), far, repr(knobs)

    return min((knobs for knobs, count in told.items() if count == most), key=merit)


USUAL = {"strength": 1.0, "guidance": 7.5}
"""The whole adapter, and the guidance Stable Diffusion is used with (arXiv 2208.12242 has none in print; ours)."""


def at_usual_knobs(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows at the usual setting, and those of other tools' pictures, whose setting nobody told; the others belong
    to sweeps of a knob."""
    if frame.empty:
        return frame
    usual = usual_knobs(frame)
    return frame[frame["knobs"].map(lambda knobs: not knobs or knobs == usual)]


def per_unit(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Means per unit (index `UNIT`), over rows where all `metrics` were measured; several targets are averaged."""
    rows = frame.dropna(subset=list(metrics))
    return rows.groupby(list(UNIT), sort=True)[list(metrics)].mean()


def _framed(rows: list[dict[str, object]], keys: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(keys))
    metrics = [name for name in frame.columns if name not in keys]
    return frame.astype(dict.fromkeys(metrics, float))[[*keys, *metrics]]


def frozen(knobs: Mapping[str, Scalar]) -> tuple[tuple[str, Scalar], ...]:
    """A setting of the knobs as something that can be counted and compared."""
    return tuple(sorted(knobs.items()))


def _measured(metrics: Mapping[str, MetricValue]) -> dict[str, float | None]:
    return {name: metric.value for name, metric in metrics.items()}

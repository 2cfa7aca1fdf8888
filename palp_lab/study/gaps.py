"""What was not measured: missing cells, missing metrics, missing bounds. A partial study is reported as partial."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from palp_lab.study.palette import BOUND_WORDS, words
from palp_lab.study.result import BOUNDS, Result


@dataclass(frozen=True)
class Gaps:
    """`cells` found of `expected` (every method on every concept, seed and target that any method has), and the gaps
    in words, one sentence each."""

    cells: int
    expected: int
    sentences: tuple[str, ...]


def gaps(results: Sequence[Result]) -> Gaps:
    """What these results leave open."""
    found, expected, missing = _cells(results)
    sentences = []
    if missing:
        named = "; ".join(missing[:6]) + (f"; and {len(missing) - 6} more" if len(missing) > 6 else "")
        sentences.append(f"{len(missing)} of {expected} cells are missing, so this is a partial result: {named}.")
    sentences += _metrics(results)
    absent = [BOUND_WORDS[name] for name in BOUNDS if name not in {b.name for r in results for b in r.bounds}]
    if absent:
        sentences.append(f"Bounds not measured: {', '.join(absent)}.")
    seeds = {result.axes["train_seed"] for result in results}
    if len(seeds) == 1:
        sentences.append("One training seed only: the variation between trainings is not in the intervals.")
    protocols = {(r.protocol.name, r.protocol.version) for r in results if r.protocol is not None}
    if len(protocols) > 1:
        listed = ", ".join(f"{name} {version}" for name, version in sorted(protocols))
        sentences.append(f"The cells were scored under different protocols ({listed}): their numbers do not compare.")
    return Gaps(found, expected, tuple(sentences))


def _cells(results: Sequence[Result]) -> tuple[int, int, list[str]]:
    places = {tuple(str(r.axes[key]) for key in ("dataset", "model", "concept", "train_seed")) for r in results}
    targets: dict[str, set[object]] = defaultdict(set)
    for result in results:
        targets[str(result.axes["method"])].add(result.axes["target"])
    every = {target for kinds in targets.values() for target in kinds if target is not None}
    wanted = {
        (method, *place, target)
        for method, kinds in targets.items()
        for place in places
        for target in ({None} if kinds == {None} else every)
    }
    there = {
        (
            str(r.axes["method"]),
            *(str(r.axes[k]) for k in ("dataset", "model", "concept", "train_seed")),
            r.axes["target"],
        )
        for r in results
    }
    missing = [
        f"{words(str(method))}, {concept}, seed {seed}" + (f", “{target}”" if target else "")
        for method, _, _, concept, seed, target in sorted(wanted - there, key=str)
    ]
    return len(there & wanted), len(wanted), missing


def _metrics(results: Sequence[Result]) -> list[str]:
    named: dict[str, set[str]] = defaultdict(set)
    measured: dict[str, set[str]] = defaultdict(set)
    methods = {str(result.axes["method"]) for result in results}
    for result in results:
        method = str(result.axes["method"])
        for record in result.records:
            for name, metric in record.metrics.items():
                named[name].add(method)
                if metric.value is not None:
                    measured[name].add(method)
    never = sorted(name for name in named if not measured[name])
    sentences = [f"Asked for and measured nowhere: {', '.join(never)}."] if never else []
    for name in sorted(named):
        if measured[name] and measured[name] != methods:
            without = ", ".join(words(method) for method in sorted(methods - measured[name]))
            sentences.append(f"{name} was not measured for {without}.")
    return sentences

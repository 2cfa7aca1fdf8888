"""What was not measured: missing cells, missing metrics, missing bounds. A partial study is reported as partial."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from palp_lab.study.palette import BOUND_WORDS, words
from palp_lab.study.result import BOUNDS, Result


@dataclass(frozen=True)
class Gaps:
    """`cells` found of `expected` (each of the methods asked about on every concept and seed that any of them has, with
    every target that any of them has of that concept), and the gaps in words, one sentence each."""

    cells: int
    expected: int
    sentences: tuple[str, ...]


def gaps(results: Sequence[Result], methods: Sequence[str] = (), limits: Sequence[str] = ()) -> Gaps:
    """What these results leave open. `methods` are those that are compared, whose missing cells make a result partial;
    none means all. A method outside them may have been planned smaller, so it is only said how large it is. `limits`
    are what a study says of rows that it leaves out or averages."""
    asked = [result for result in results if not methods or result.axes["method"] in methods]
    found, expected, missing = _cells(asked)
    sentences = []
    if missing:
        named = "; ".join(missing[:6]) + (f"; and {len(missing) - 6} more" if len(missing) > 6 else "")
        sentences.append(f"{len(missing)} of {expected} cells are missing, so this is a partial result: {named}.")
    sentences += [*_unlike_targets(asked), *limits]
    sentences += _smaller(results, asked)
    sentences += _metrics(results)
    absent = [BOUND_WORDS[name] for name in BOUNDS if name not in {b.name for r in results for b in r.bounds}]
    if absent:
        sentences.append(f"Bounds not measured: {', '.join(absent)}.")
    repeated = _repeated(results)
    if repeated:
        sentences.append(f"{repeated} cells repeat the axes of another (made by another version?); they are averaged.")
    seeds = {result.axes["train_seed"] for result in results}
    if len(seeds) == 1:
        sentences.append("One training seed only: the variation between trainings is not in the intervals.")
    protocols = {(r.protocol.name, r.protocol.version) for r in results if r.protocol is not None}
    if len(protocols) > 1:
        listed = ", ".join(f"{name} {version}" for name, version in sorted(protocols))
        sentences.append(f"The cells were scored under different protocols ({listed}): their numbers do not compare.")
    elif len({tuple(sorted(r.protocol.hashes.items())) for r in results if r.protocol is not None}) > 1:
        sentences.append("The cells were scored by different networks of one protocol: their numbers do not compare.")
    sentences += _bases(results)
    return Gaps(found, expected, tuple(sentences))


def _bases(results: Sequence[Result]) -> list[str]:
    """Models whose cells stand on different weights of one name, as when the weights were trained on between them."""
    weights: dict[str, set[str]] = defaultdict(set)
    for result in results:
        told = ((result.data or {}).get("hashes") or {}).get("model")
        weights[str(result.axes["model"])] |= {str(told)} if told else set()
    mixed = sorted(name for name, found in weights.items() if len(found) > 1)
    return [f"Cells of {name} stand on different weights of that name: they do not compare." for name in mixed]


def _smaller(results: Sequence[Result], asked: Sequence[Result]) -> list[str]:
    """How many concepts and seeds the methods that are not compared have, where they have fewer."""

    def size(cells: Sequence[Result]) -> tuple[int, int]:
        return len({r.axes["concept"] for r in cells}), len({r.axes["train_seed"] for r in cells})

    full, sentences = size(asked), []
    for method in sorted({str(r.axes["method"]) for r in results} - {str(r.axes["method"]) for r in asked}):
        own = size([r for r in results if r.axes["method"] == method])
        if own[0] < full[0] or own[1] < full[1]:
            here, there = (f"{concepts} × {seeds}" for concepts, seeds in (own, full))
            sentences.append(f"{words(method)} was run on {here} concepts × seeds, the comparison on {there}.")
    return sentences


def _cells(results: Sequence[Result]) -> tuple[int, int, list[str]]:
    places = {tuple(str(r.axes[key]) for key in ("dataset", "model", "concept", "train_seed")) for r in results}
    targets: dict[str, set[object]] = defaultdict(set)
    for result in results:
        targets[str(result.axes["method"])].add(result.axes["target"])
    planned = _planned(results)
    shared = set[object].intersection(*planned.values()) if planned else set()
    wanted = {
        (method, *place, target)
        for method, kinds in targets.items()
        for place in places
        for target in ({None} if kinds == {None} else planned.get((place[0], place[2])) or shared or {None})
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


def _planned(results: Sequence[Result]) -> dict[tuple[str, str], set[object]]:
    """Per subject the targets that some cell of it has: subjects may have targets of their own."""
    planned: dict[tuple[str, str], set[object]] = defaultdict(set)
    for result in results:
        if result.axes["target"] is not None:
            planned[str(result.axes["dataset"]), str(result.axes["concept"])].add(result.axes["target"])
    return dict(planned)


def _unlike_targets(results: Sequence[Result]) -> list[str]:
    planned = _planned(results).values()
    counts = sorted(map(len, planned))
    if not counts or len(set(map(frozenset, planned))) == 1:
        return []
    each = str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return [
        f"Not every subject has the same targets ({each} of {len(set().union(*planned))}): one counts as missing only "
        "where another cell of its subject has it."
    ]


def _repeated(results: Sequence[Result]) -> int:
    kinds = [
        (
            frozenset((key, str(value)) for key, value in r.axes.items() if key != "study"),
            frozenset(record.prompt for record in r.records),
        )
        for r in results
    ]
    return len(kinds) - len(set(kinds))


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

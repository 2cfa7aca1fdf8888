"""Results whose numbers compare: those of one protocol, one version of it, and the same networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from palp_lab.study.result import Protocol, Result


def by_protocol(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results by what scored them, the most first, under a short name each: "tiny 3", and with the hash of the
    networks where two groups differ in these alone."""
    groups: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[Result]] = {}
    for result in results:
        groups.setdefault(_key(result.protocol), []).append(result)
    ordered = sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    plain = Counter(f"{name} {version}".strip() for name, version, _ in groups)
    return {_name(key, plain): found for key, found in ordered}


def _key(entry: Protocol | None) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    if entry is None:
        return "no protocol", "", ()
    return entry.name, str(entry.version), tuple(sorted((str(k), str(v)) for k, v in entry.hashes.items()))


def _name(key: tuple[str, str, tuple[tuple[str, str], ...]], plain: Counter[str]) -> str:
    name, version, hashes = key
    short = f"{name} {version}".strip()
    if plain[short] == 1:
        return short
    import hashlib

    return f"{short} {hashlib.sha256(repr(hashes).encode()).hexdigest()[:6]}"

"""One prompt under two spellings: pictures of other tools say "of sks cat", ours "of a {}"."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace

from palp_lab.study.result import Record, Result

logger = logging.getLogger(__name__)


def spelled_alike(results: Sequence[Result]) -> list[Result]:
    """The results, in which those that were not trained here (no cost is known of them) spell a prompt as the trained
    ones do where the two differ by the article before the slot alone, so that they pair. Where trained ones have both
    spellings, or none, a prompt stays as it is."""
    known = {record.prompt for result in results if not _foreign(result) for record in result.records}
    spellings: dict[str, set[str]] = {}
    for prompt in known:
        spellings.setdefault(_bare(prompt), set()).add(prompt)

    def spelled(prompt: str) -> str:
        same = spellings.get(_bare(prompt), set())
        return next(iter(same)) if prompt not in known and len(same) == 1 else prompt

    def read(record: Record) -> Record:
        target = record.target and spelled(record.target)
        return replace(record, prompt=spelled(record.prompt), target=target)

    found = []
    for result in results:
        if _foreign(result):
            for prompt in sorted({record.prompt for record in result.records}):
                if prompt != spelled(prompt):
                    logger.info("%s: %r is read as %r", result.axes.get("method"), prompt, spelled(prompt))
            result = replace(result, records=tuple(map(read, result.records)))
        found.append(result)
    return found


def _foreign(result: Result) -> bool:
    return result.cost.trainable_parameters is None


def _bare(prompt: str) -> str:
    return re.sub(r"\ban? \{\}", "{}", prompt)

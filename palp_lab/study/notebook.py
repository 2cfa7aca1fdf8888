"""The page of a study in the lab notebook: what the ledger holds of it so far, as a table and a front beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from palp_lab.study.figure import front_figure, png
from palp_lab.study.gaps import gaps
from palp_lab.study.ledger import collect, read_jsonl
from palp_lab.study.palette import words
from palp_lab.study.progress_figure import exposure_figure, progress_metrics
from palp_lab.study.rendering import markdown
from palp_lab.study.result import Result
from palp_lab.study.rivals import with_bounds
from palp_lab.study.scored_alike import by_protocol
from palp_lab.study.study import Question, study_of
from palp_lab.study.tables import comparison_table
from palp_lab.study.writing import write_bytes, write_text


def results_so_far(ledger: Path, study_name: str, finished: Sequence[Path]) -> list[Result]:
    """The cells of a study: those just `finished` (result.json files), and those the ledger has under its name.

    Bounds that a cell of another part keeps for the same concept are this one's too.
    """
    found = {result.run: result for result in (read_jsonl(ledger) if ledger.exists() else ())}
    mine = {run: result for run, result in found.items() if result.axes.get("study") == study_name}
    mine |= {result.run: found.get(result.run, result) for result in collect(finished)}
    return [with_bounds(mine[run], found.values()) for run in sorted(mine)]


def note(results: Sequence[Result], question: Question, title: str, folder: Path, name: str) -> Path:
    """Writes `<name>.md`, `<name>.png` (the front) and, of two steps or more, `<name>_exposure.png`; returns the first.

    However few cells there are, it says how many of each method, and what is missing.
    """
    (one, results), *others = by_protocol(results).items()
    study = study_of(results, question)
    compared = {part.split(" · ")[0] for pair in study.comparisons[:1] for part in (pair.baseline, pair.challenger)}
    open_ends = gaps(results, sorted(compared), study.limits)
    counts = Counter(str(result.axes["method"]) for result in results)
    concepts = len({result.axes["concept"] for result in results})
    cells = ", ".join(f"{words(method)} {count}" for method, count in sorted(counts.items()))
    front = front_figure([*study.curves, *study.knob_curves], study.anchors, study.axes, title)
    write_bytes(folder / f"{name}.png", png(front))
    pictures = ["", f"![front]({name}.png)", ""]
    if (exposure := exposure_figure(study.scope, progress_metrics(study.scope, study.axes))) is not None:
        write_bytes(folder / f"{name}_exposure.png", png(exposure))
        pictures += [f"![metrics over steps]({name}_exposure.png)", ""]
    else:
        (folder / f"{name}_exposure.png").unlink(missing_ok=True)
    tables = [*study.tables, *([comparison_table(study.comparisons)] if study.comparisons else [])]
    lines = [
        f"# {title}", "", f"**{study.headline.verdict}**", "",
        *([f"**{study.uneven}**", ""] if study.uneven else []),
        *(f"- {sentence}" for sentence in (*study.headline.sentences, *open_ends.sentences)),
        *([f"- {study.drawn}"] if study.drawn else []),
        *(f"- Left out, as all here were scored under {one}: {len(some)} under {other}." for other, some in others),
        "",
        f"n: {len(results)} cells ({cells}) of {concepts} concept{'' if concepts == 1 else 's'}. "
        "Written at the end of every sweep from the cells that are there.", *pictures, markdown(tables),
    ]  # fmt: skip
    return write_text(folder / f"{name}.md", "\n".join(lines))

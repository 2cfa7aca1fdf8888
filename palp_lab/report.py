"""palp-lab report: curves, front, tables and a page from the results of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from palp_lab.study.study import Question, Study


def report(config: DictConfig) -> Path:
    """Read results, answer the question of the configuration, write everything below `folder`; the path of the page.

    Keys: results (files and folders), folder, axes.x, axes.y, compare (two methods, or null), scope, series,
    reference (two numbers, or null), resamples, seed, title, question, command. Raises UserError for no results, a
    metric nobody measured, or a method nobody ran.
    """
    from omegaconf import OmegaConf

    from palp_lab.study.ledger import collect
    from palp_lab.study.publishing import publish
    from palp_lab.study.study import study_of

    results = collect(Path(str(path)) for path in config.results)
    if not results:
        listed = ", ".join(map(str, config.results))
        raise UserError(f"results=[{listed}]: no result.json and no results.jsonl there; run some cells first")
    study = study_of(results, question_of(config))
    folder = Path(str(config.folder))
    written = publish(study, words_of(config, study), folder)
    print(study.headline.verdict)
    for name in ("front.png", "contact_sheet.png", "tables.md", "report.html"):
        if name in written:
            print(f"  {written[name]}")
    if OmegaConf.select(config, "logger.name") == "wandb":
        from palp_lab.study.sinks import send_to_wandb
        from palp_lab.study.tracking import project_of

        send_to_wandb(study, written, folder, project_of(config.logger))
    return written["report.html"]


def question_of(config: DictConfig) -> Question:
    """The question as the numbers side takes it."""
    from palp_lab.study.study import Question

    return Question(
        x=str(config.axes.x),
        y=str(config.axes.y),
        compare=_pair(config.compare, "compare", "two methods: compare=[ti_db,palp]", str),
        scope=str(config.scope),
        series=tuple(str(axis) for axis in config.series),
        reference=_pair(config.reference, "reference", "two numbers: reference=[0.4,0.2]", float),
        resamples=int(config.resamples),
        seed=int(config.seed),
    )


def words_of(config: DictConfig, study: Study) -> Any:
    """Title, question and command, where the configuration leaves them to us."""
    from palp_lab.study.directions import label_of
    from palp_lab.study.page import Words
    from palp_lab.study.palette import words

    x, y = (label_of(axis) for axis in study.axes)
    if study.comparisons:
        first = study.comparisons[0]
        title = f"{words(first.challenger)} against {words(first.baseline)}"
        question = f"Does {words(first.challenger)} buy {y} without losing {x}, compared with {words(first.baseline)}?"
    else:
        title = "A study of personalization"
        question = f"What does each method reach in {y}, and what does it cost in {x}?"
    said = [f"results=[{','.join(map(str, config.results))}]"]
    if config.compare is not None:
        said.append(f"compare=[{','.join(map(str, config.compare))}]")
    return Words(
        title=str(config.title or title),
        question=str(config.question or question),
        command=str(config.command or " ".join(["palp-lab report", *said])),
        eyebrow=f"PALP Lab · {config.study_name}",
    )


def _pair(value: Any, key: str, wanted: str, kind: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, str) or len(value) != 2:
        raise UserError(f"{key} must be {wanted}")
    try:
        return kind(value[0]), kind(value[1])
    except ValueError:
        raise UserError(f"{key} must be {wanted}") from None

"""palp-lab report: curves, front, tables and a page from the results of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig

    from palp_lab.study.result import Result
    from palp_lab.study.study import Question, Study

STUDY = "study_kit"
"""Folder of the human study below the report's."""

TWO = """two methods: compare=[ti_db,palp], or 'compare=["ti_db · optimizer.lr 0.001","palp"]'"""


def report(config: DictConfig) -> Path:
    """Read results, answer the question of the configuration, write everything below `folder`; the path of the page.

    Keys: results (files and folders), folder, axes.x, axes.y, higher_is_better and lower_is_better (metrics of one's
    own), compare (two methods, or null), scope, series, reference (two numbers, or null), resamples, seed, title,
    question, command. Raises UserError for no results, a metric nobody measured, or a method nobody ran. Results of
    several protocols have a report each, in folders of their protocols' names; the first page, of the most results, is
    returned. Where a protocol's results cannot answer the question, the others' pages are written all the same before
    one UserError names each protocol without a report and why.

    With `study_kit` the questionnaire of a human study is written instead, with `study_kit_answers` one is scored,
    and with `dreambench_plus` the pictures are laid out for that benchmark's judges.
    """
    from palp_lab.study.ledger import collect
    from palp_lab.study.scored_alike import by_protocol
    from palp_lab.study.spelling import spelled_alike

    folder = Path(str(config.folder))
    if config.get("study_kit_answers"):
        return score_study(config, folder / STUDY)
    results = spelled_alike(collect(Path(str(path)) for path in config.results))
    if not results:
        listed = ", ".join(map(str, config.results))
        raise UserError(f"results=[{listed}]: no result.json and no results.jsonl there; run some cells first")
    if config.get("study_kit"):
        return ask_people(config, results, folder / STUDY)
    if config.get("dreambench_plus"):
        return for_judges(results, folder / "dreambench_plus")
    groups = by_protocol(results)
    if len(groups) == 1:
        return one_report(config, results, folder)
    print(f"{len(groups)} protocols, a report each, since their numbers do not compare:")
    pages, failed = [], []
    for name, some in groups.items():
        print(f"{name}, {len(some)} result{'s' if len(some) > 1 else ''}:")
        try:
            pages.append(one_report(config, some, folder / name.replace(" ", "-")))
        except UserError as error:
            failed.append(f"no report of {name}: {error}")
            print("  no report")
    if failed:
        raise UserError("; ".join(failed))
    return pages[0]


def one_report(config: DictConfig, results: Sequence[Result], folder: Path) -> Path:
    """The report of results that were scored alike; the path of the page."""
    from omegaconf import OmegaConf

    from palp_lab.study.directions import register_metric
    from palp_lab.study.publishing import publish
    from palp_lab.study.study import study_of

    for better in (True, False):
        for name in config.get("higher_is_better" if better else "lower_is_better") or []:
            register_metric(str(name), better)
    study = study_of(results, question_of(config))
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


def ask_people(config: DictConfig, results: Sequence[Result], folder: Path) -> Path:
    """The pages and the key of a human study; the first page."""
    from palp_lab.study.questionnaire import KEY, write_kit

    title = str(config.title or "Pictures of one subject")
    pages = write_kit(results, folder, title, int(config.study_kit_forms), int(config.seed))
    for page in pages:
        print(f"  {page}: hand this out; people save their answers as files")
    back = f"palp-lab report 'folder=\"{folder.parent}\"' 'study_kit_answers=[answers.json]'"
    print(f"  {folder / KEY}: keep this to yourself; then {back}")
    return pages[0]


def score_study(config: DictConfig, folder: Path) -> Path:
    """The scores of a human study from its answers, as tables; the Markdown file."""
    from palp_lab.study.answers import Key, read_answers, score_answers, summary
    from palp_lab.study.questionnaire import KEY
    from palp_lab.study.rendering import latex, markdown, tidy_csv
    from palp_lab.study.writing import write_text

    given = config.study_kit_answers
    paths = [Path(str(path)) for path in ([given] if isinstance(given, str) else given)]
    files = [file for path in paths for file in (sorted(path.glob("*.[jc]s*")) if path.is_dir() else [path])]
    key = Key.read(folder / KEY)
    answers = read_answers([file for file in files if file.name != KEY], key)
    tables = score_answers(answers, int(config.resamples), int(config.seed))
    for ending, render in (("tex", latex), ("csv", tidy_csv), ("md", markdown)):
        written = write_text(folder / f"scores.{ending}", render(tables))
    write_text(folder / "scores.json", summary(answers, key))
    print(markdown(tables))
    print(f"  {written}")
    return written


def for_judges(results: Sequence[Result], folder: Path) -> Path:
    """The pictures as the judges of DreamBench++ read them; the folder."""
    from palp_lab.study.dreambench_plus import lay_out

    for method, count in lay_out(results, folder).items():
        print(f"  {folder / 'samples' / method}: {count} pictures")
    return folder


def question_of(config: DictConfig) -> Question:
    """The question as the numbers side takes it."""
    from palp_lab.study.study import Question

    return Question(
        x=str(config.axes.x),
        y=str(config.axes.y),
        compare=_pair(config.compare, "compare", TWO, str),
        scope=str(config.scope),
        series=tuple(str(axis) for axis in config.series),
        reference=_pair(config.reference, "reference", "two numbers: reference=[0.4,0.2]", float),
        resamples=int(config.resamples),
        seed=int(config.seed),
        growing=bool(config.get("growing")),
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

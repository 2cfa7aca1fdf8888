"""The human study: blinded, balanced, sealed; and its answers scored as the numbers say."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from palp_lab.report import report
from palp_lab.study.agreement import krippendorff_alpha
from palp_lab.study.answers import COLUMNS, Key, read_answers, score_answers
from palp_lab.study.intervals import Interval
from palp_lab.study.ledger import collect
from palp_lab.study.questionnaire import choose, elements_of, write_kit
from palp_lab.types import UserError
from tests.study.conftest import CONCEPTS, METHODS, PROMPTS
from tests.study.test_report import configured

LIKENESS = {"palp": 5, "ti_db": 3, "textual_inversion": 1}


@pytest.fixture(scope="module")
def kit(study_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose page and key are written, through the verb."""
    page = report(configured([study_folder], tmp_path_factory.mktemp("kit"), study_kit=True))
    assert page.name == "questionnaire.html"
    return page.parent


def fill(kit: Path, rater: str, shift: int = 0, **changes: Any) -> dict[str, Any]:
    """The answers of somebody who sees all elements of PALP's pictures and all but one of the others'."""
    key = json.loads((kit / "key.json").read_text())
    answers = [
        {
            "id": name,
            "place": place,
            "elements": len(item["elements"]) - (item["method"] != "palp"),
            "similarity": min(5, LIKENESS[item["method"]] + shift),
        }
        for place, (name, item) in enumerate(key["items"].items(), start=1)
    ]
    digest = Key.read(kit / "key.json").digest
    return {"schema": "palp_lab.answers/1", "kit": digest, "form": 1, "rater": rater, "answers": answers, **changes}


def test_each_method_is_asked_once_per_concept_and_prompt(kit: Path) -> None:
    items = json.loads((kit / "key.json").read_text())["items"].values()
    asked = Counter((item["concept"], item["prompt"], item["method"]) for item in items)
    assert set(asked) == {(c, p, m) for c in CONCEPTS for p in PROMPTS for m in METHODS}
    assert set(asked.values()) == {1}
    assert {item["step"] for item in items} == {500}
    order = [item["method"] for item in items]
    assert order != sorted(order) and len({tuple(order[i : i + 3]) for i in range(0, 36, 3)}) > 3


def test_the_page_gives_nothing_away_and_needs_nothing(kit: Path) -> None:
    page = (kit / "questionnaire.html").read_text(encoding="utf-8")
    words = re.sub(r"data:image/png;base64,[^\"]+", "", page)
    for secret in (*METHODS, *CONCEPTS, "ti_db", "step", "guidance", "true_renders", "result.json"):
        assert secret not in words.replace("palp-lab", "").replace("palp_lab", ""), secret
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]+\"", page)
    assert words.count("<section data-id=") == 36
    assert "tEXt" not in page and "parameters" not in words


def test_forms_divide_the_questions_and_keep_rivals_together(study_folder: Path, tmp_path: Path) -> None:
    results = collect([study_folder])
    pages = write_kit(results, tmp_path, "Cats", forms=3)
    assert [page.name for page in pages] == [f"questionnaire_{form}.html" for form in (1, 2, 3)]
    items = choose(results, 3, 0)
    forms = {(item.concept, item.prompt): set() for item in items}
    for item in items:
        forms[item.concept, item.prompt].add(item.form)
    assert all(len(found) == 1 for found in forms.values())
    assert Counter(item.form for item in items) == {1: 12, 2: 12, 3: 12}
    with pytest.raises(UserError, match="a study lies there already"):
        write_kit(results, tmp_path, "Cats")


def test_elements_are_the_phrases_of_a_sentence() -> None:
    assert elements_of("a sketch of a {} wearing a red hat in the snow") == (
        "a sketch", "this subject", "wearing a red hat", "in the snow",
    )  # fmt: skip
    assert elements_of("an oil painting of {}, at night in Paris")[2:] == ("at night", "in Paris")
    assert elements_of("a {} next to a dog") == ("this subject", "next to a dog")


def test_answers_are_scored(kit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "anna.json").write_text(json.dumps(fill(kit, "Anna")))
    ben = fill(kit, "Ben", shift=1)
    with (tmp_path / "ben.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for answer in ben["answers"]:
            writer.writerow({**answer, "kit": ben["kit"], "form": 1, "rater": "Ben"})
    config = configured([], kit.parents[1], study_kit_answers=[str(tmp_path)])
    config.folder = str(kit.parent)
    assert report(config).read_text() in capsys.readouterr().out
    assert {path.name for path in kit.iterdir()} >= {"scores.md", "scores.csv", "scores.tex", "scores.json"}
    answers = read_answers([tmp_path / "anna.json", tmp_path / "ben.csv"], Key.read(kit / "key.json"))
    means, preference, agreement = score_answers(answers, resamples=50)
    found = {row[0]: row[1:] for row in means.rows}
    assert [interval.mean for interval in found["PALP"][:3]] == pytest.approx([1.0, 5.0, 1.0])
    seen, likeness = found["TI + DB"][:2]
    assert isinstance(seen, Interval) and likeness.mean == pytest.approx(3.5) and seen.mean < 1
    assert found["PALP"][3:] == (24, 2)
    pairs = {(row[0], row[1]): row[2:] for row in preference.rows}
    won, more, equal, less = pairs["PALP over TI + DB", "likeness"]
    assert won.mean == 1.0 and (more, equal, less) == (24, 0, 0)
    assert [row[2:] for row in agreement.rows] == [(36, 2), (36, 2)]
    assert float(str(agreement.rows[0][1])) == pytest.approx(1.0) and float(str(agreement.rows[1][1])) < 1


def test_a_tie_counts_half() -> None:
    rows = [
        {"item": f"{prompt}{method}", "method": method, "prompt": prompt, "elements": seen, "similarity": 3}
        for prompt, pair in (("a", (1.0, 0.5)), ("b", (0.5, 0.5)), ("c", (0.5, 0.5)), ("d", (0.0, 1.0)))
        for method, seen in zip(("palp", "ti_db"), pair, strict=True)
    ]
    answers = pd.DataFrame(rows).assign(rater="Anna", dataset="tiny", model="tiny", concept="cat")
    _, preference, _ = score_answers(answers, resamples=50)
    found = {row[1]: row[2:] for row in preference.rows}
    assert found["elements seen"][0].mean == 0.5 and found["elements seen"][1:] == (1, 2, 1)
    assert found["likeness"][0].mean == 0.5 and found["likeness"][1:] == (0, 4, 0)


def test_agreement_is_krippendorff_s() -> None:
    """The example of Krippendorff (2011), four observers and twelve units: .849 on the interval scale."""
    n = None
    raters = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, n, n, n],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, n, 3],
        [n, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, n],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, n],
    ]
    units = [[value for rater in raters if (value := rater[i]) is not None] for i in range(12)]
    assert krippendorff_alpha(units) == pytest.approx(0.849, abs=5e-4)
    assert krippendorff_alpha([[1], [2]]) is None and krippendorff_alpha([[2, 2], [2, 2]]) is None
    assert krippendorff_alpha([[1, 5], [5, 1]]) < 0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "x/1"}, "no file of answers"),
        ({"kit": "0" * 64}, "answers to another study"),
        ({"rater": " "}, "the rater has no name"),
        ({"answers": [{"id": "ffff", "elements": 1, "similarity": 1}]}, "question 'ffff' is not in"),
        ({"similarity": 6}, "similarity is 6; it must be a whole number from 1 to 5"),
        ({"elements": 2.5}, "elements is 2.5; it must be a whole number from 0 to"),
        ({"elements": "many"}, "elements is 'many', which is no number"),
        ({"elements": None, "similarity": None}, "no question was answered"),
    ],
)
def test_bad_answers_are_one_line(kit: Path, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    given = fill(kit, "Anna")
    if set(change) <= {"elements", "similarity"}:
        given["answers"] = [{**given["answers"][0], **change}]
    else:
        given |= change
    path = tmp_path / "anna.json"
    path.write_text(json.dumps(given))
    with pytest.raises(UserError) as caught:
        read_answers([path], Key.read(kit / "key.json"))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_answer_counts_once_and_files_must_be_there(kit: Path, tmp_path: Path) -> None:
    key, path = Key.read(kit / "key.json"), tmp_path / "anna.json"
    path.write_text(json.dumps(fill(kit, "Anna")))
    with pytest.raises(UserError, match=r"Anna answered question \w+ in .*anna\.json already"):
        read_answers([path, path], key)
    with pytest.raises(UserError, match="no such file of answers"):
        read_answers([tmp_path / "ben.json"], key)
    with pytest.raises(UserError, match="no key of a study"):
        Key.read(tmp_path / "key.json")
    (tmp_path / "carl.csv").write_text("id,elements\n")
    with pytest.raises(UserError, match="has no column kit"):
        read_answers([tmp_path / "carl.csv"], key)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize("name", ["elements", "similarity"])
def test_a_number_that_is_none_is_named_with_its_line(kit: Path, tmp_path: Path, name: str, value: str) -> None:
    given, path = fill(kit, "Anna"), tmp_path / "anna.csv"
    first, second = ({**one, "kit": given["kit"], "form": 1, "rater": "Anna"} for one in given["answers"][:2])
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerow(first)
        stream.write("\n")
        writer.writerow({**second, name: value})
    with pytest.raises(UserError, match=rf"anna\.csv, line 4: {name} is '{value}', which is no number"):
        read_answers([path], Key.read(kit / "key.json"))


def test_a_study_needs_pictures_of_two_methods(study_folder: Path) -> None:
    results = collect([study_folder])
    with pytest.raises(UserError, match="at least two methods"):
        choose([result for result in results if result.axes["method"] == "palp"], 1, 0)
    with pytest.raises(UserError, match="at least two methods"):
        choose([result.compact() for result in results], 1, 0)


def test_raters_do_not_count_where_in_the_picture_something_is() -> None:
    found = elements_of("a digital art of {} on a field with lightning in the background")
    assert found == ("a digital art", "this subject", "on a field", "with lightning in the background")

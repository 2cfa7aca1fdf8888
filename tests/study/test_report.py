"""The verb: from a folder of results to files a person opens; and every way it can go wrong in one line."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from palp_lab.report import report
from palp_lab.study import directions
from palp_lab.study.ledger import collect, merge_jsonl
from palp_lab.study.result import Result, save_result
from palp_lab.study.scored_alike import by_protocol
from palp_lab.study.writing import write_bytes
from palp_lab.types import UserError
from tests.study.wandb_records import read_offline

CONF = Path(__file__).parents[2] / "conf" / "report.yaml"


def configured(results: list[Path], output: Path, **changes: object) -> DictConfig:
    base = OmegaConf.create({"output": str(output), "seed": 0, "study_name": "synthetic", "logger": {"name": "csv"}})
    given = OmegaConf.create({"results": [str(path) for path in results], "resamples": 25, **changes})
    config = OmegaConf.merge(base, OmegaConf.load(CONF), given)
    assert isinstance(config, DictConfig)
    return config


@pytest.fixture(scope="module")
def written(study_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = report(configured([study_folder], tmp_path_factory.mktemp("out")))
    return page.parent


def test_everything_is_written_and_nothing_half(written: Path) -> None:
    names = {path.name for path in written.iterdir()}
    figures = {"front.png", "exposure.png", "training.png", "contact_sheet.png", "strip.png"}
    tables = {f"{name}.{ending}" for name in ("tables", "comparison") for ending in ("md", "tex", "csv")}
    assert names == figures | tables | {"summary.json", "report.html"}


@pytest.mark.parametrize("name", ["front", "exposure", "training", "contact_sheet", "strip"])
def test_pictures_are_pictures_of_a_sensible_size(written: Path, name: str) -> None:
    with Image.open(written / f"{name}.png") as picture:
        picture.load()
        assert 500 <= picture.width <= 3200 and 300 <= picture.height <= 4000
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colours is not None and len(colours) > 50


def test_the_summary_agrees_with_the_results(written: Path, text_gain: float) -> None:
    summary = json.loads((written / "summary.json").read_text())
    assert summary["schema"] == "palp_lab.summary/1"
    assert (summary["cells"]["found"], summary["cells"]["expected"]) == (30, 30), "the two that are compared"
    assert summary["verdict"].startswith("Nothing is settled: PALP has 0.05"), "three concepts are too few"
    last = [one for one in summary["comparisons"] if one["metric"] == "text_alignment" and one["at"] == "step 500"]
    assert last[0]["difference"]["mean"] == pytest.approx(text_gain, abs=0.006)
    assert summary["hypervolume"]["palp"]["mean"] > summary["hypervolume"]["ti_db"]["mean"]


def test_the_tables_hold_the_summary_s_numbers(written: Path) -> None:
    summary = json.loads((written / "summary.json").read_text())
    palp = next(curve for curve in summary["curves"] if curve["series"] == "palp")
    with (written / "tables.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["table"] == "methods_own" and row["row"] == "PALP"]
    identity = next(row for row in rows if row["column"] == "identity")
    assert float(identity["value"]) == pytest.approx(palp["points"][-1]["x"]["mean"])


class Reader(HTMLParser):
    """Collects what a browser would fetch, what a screen reader needs, and whether tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.without_alt = 0
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.sources += [str(found[key]) for key in ("src", "href", "data", "action", "poster") if key in found]
        self.without_alt += tag == "img" and not found.get("alt")
        self.ids += [str(found["id"])] if "id" in found else []
        self.anchors += [str(found["href"])[1:]] if str(found.get("href", "")).startswith("#") else []
        if tag not in ("meta", "img", "link", "br", "line", "circle", "polygon", "polyline", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def read(written: Path) -> Reader:
    reader = Reader()
    reader.feed((written / "report.html").read_text(encoding="utf-8"))
    return reader


def test_the_page_asks_nobody_for_anything(read: Reader, written: Path) -> None:
    assert read.sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in read.sources)
    text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", (written / "report.html").read_text(encoding="utf-8"))
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest", text)


def test_the_page_is_well_formed_and_reachable(read: Reader) -> None:
    assert read.open == [] and read.without_alt == 0
    assert len(set(read.ids)) == len(read.ids)
    assert set(read.anchors) <= set(read.ids)


def test_the_page_says_what_was_found(read: Reader) -> None:
    for words in (
        "PALP against TI + DB",
        "a claim takes at least 8 pairs from 6 concepts",
        "Does PALP buy text alignment without losing identity",
        "a method that does not beat it has learned nothing",
        "drift_without_class_word",
        "a sketch of {} in Paris",
        "palp-lab report results=",
        "torch 2.13.0",
    ):
        assert words in read.words, words


def test_the_page_carries_every_mark_with_its_numbers(written: Path) -> None:
    text = (written / "report.html").read_text(encoding="utf-8")
    assert len(re.findall(r'data-tip="(?:PALP|TI \+ DB|Textual Inversion), \d+ steps \| identity ', text)) == 15
    assert len(re.findall(r'class="bound"', text)) == 5


def test_a_ledger_alone_is_enough(study_folder: Path, tmp_path: Path) -> None:
    merge_jsonl(tmp_path / "results.jsonl", collect([study_folder]))
    page = report(configured([tmp_path / "results.jsonl"], tmp_path / "out"))
    names = {path.name for path in page.parent.iterdir()}
    assert "front.png" in names and "contact_sheet.png" not in names


def test_a_partial_study_says_so(study_folder: Path, tmp_path: Path) -> None:
    cells = [c for c in collect([study_folder]) if c.axes["method"] != "ti_db" or c.axes["concept"] == "cat 11"]
    merge_jsonl(tmp_path / "results.jsonl", cells)
    text = report(configured([tmp_path / "results.jsonl"], tmp_path / "out")).read_text(encoding="utf-8")
    assert "A partial result:" in text and "26 of 30 cells" in text
    assert "One concept only" in text


def test_a_report_of_one_step_has_no_curves_over_training(study_folder: Path, tmp_path: Path) -> None:
    cells = collect([study_folder])
    last = max(record.step for record in cells[0].records)
    for name, kept in (("whole", cells), ("once", [_at(cell, last) for cell in cells])):
        merge_jsonl(tmp_path / f"{name}.jsonl", kept)
    for name, there in (("whole", True), ("once", False)):  # into one folder: the second takes the picture away
        page = report(configured([tmp_path / f"{name}.jsonl"], tmp_path / "out"))
        assert (page.parent / "exposure.png").exists() is there
        assert ("As training goes on" in page.read_text(encoding="utf-8")) is there


def _at(cell: Result, step: int) -> Result:
    return replace(cell, records=tuple(record for record in cell.records if record.step == step))


@pytest.mark.slow
def test_a_page_speaks_only_of_what_it_shows(study_folder: Path, tmp_path: Path) -> None:
    """No words of stars without bounds, of photos without photos, of tuning without targets."""
    cells = [c for c in collect([study_folder]) if c.axes["method"] in ("ti_db", "textual_inversion")]
    for cell in cells:
        records = tuple(replace(record, own_target=False, target=None) for record in cell.records)
        save_result(replace(cell, bounds=(), records=records), tmp_path / "bare" / cell.run / "result.json")
        shutil.copytree(cell.folder / "images", tmp_path / "bare" / cell.run / "images")
    text = report(configured([tmp_path / "bare"], tmp_path / "out")).read_text(encoding="utf-8")
    for said in ("Stars are", 'id="bounds"', "The training photos first", "tuned for"):
        assert said not in text, said
    assert "One column per prompt" in text
    whole = report(configured([study_folder], tmp_path / "whole")).read_text(encoding="utf-8")
    for said in ("Stars are", 'id="bounds"', "The training photos first. One column", "tuned for"):
        assert said in whole, said
    sizes = [Image.open(tmp_path / name / "synthetic" / "contact_sheet.png").height for name in ("out", "whole")]
    assert sizes[0] < sizes[1], "no row of photos"


@pytest.mark.slow
def test_curves_that_far_bounds_make_small_are_on_the_page_once_more(study_folder: Path, tmp_path: Path) -> None:
    cells = collect([study_folder])
    assert report(configured([study_folder], tmp_path / "near")).read_text().count('<svg class="front"') == 1
    far = []
    for cell in cells:
        bounds = []
        for bound in cell.bounds:
            metrics = {n: replace(m, value=m.value and 9 * m.value, per_image=None) for n, m in bound.metrics.items()}
            bounds.append(replace(bound, metrics=metrics))
        far.append(replace(cell, bounds=tuple(bounds)))
    merge_jsonl(tmp_path / "far.jsonl", far)
    text = report(configured([tmp_path / "far.jsonl"], tmp_path / "far")).read_text(encoding="utf-8")
    assert text.count('<svg class="front"') == 2 and "The curves alone" in text


def test_one_method_alone_has_a_page_without_comparison(study_folder: Path, tmp_path: Path) -> None:
    merge_jsonl(tmp_path / "r.jsonl", [c for c in collect([study_folder]) if c.axes["method"] == "textual_inversion"])
    page = report(configured([tmp_path / "r.jsonl"], tmp_path / "out"))
    assert "nothing to compare it with" in page.read_text(encoding="utf-8")
    assert not (page.parent / "comparison.md").exists()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"axes": {"x": "identiy", "y": "text_alignment"}}, "'identiy' was not measured .*did you mean 'identity'"),
        ({"axes": {"x": "identity", "y": "saturation"}}, "'saturation' has no better end"),
        ({"compare": ["ti_db", "pulp"]}, "no results of 'pulp' to compare; did you mean 'palp'"),
        ({"compare": ["palp"]}, "compare must be two methods"),
        ({"reference": ["a", "b"]}, "reference must be two numbers"),
        ({"scope": "owm"}, "scope 'owm' is unknown; did you mean 'own'"),
    ],
)
def test_a_wrong_question_is_one_line(
    study_folder: Path, tmp_path: Path, changes: dict[str, object], line: str
) -> None:
    one_cell = sorted(study_folder.iterdir())[:4]
    with pytest.raises(UserError, match=line) as caught:
        report(configured(one_cell, tmp_path, **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "synthetic").exists(), "nothing is written for a wrong question"


def test_an_own_metric_is_an_axis_once_its_better_end_is_said(
    study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directions, "_DIRECTIONS", dict(directions._DIRECTIONS))
    cells = []
    for cell in collect([study_folder]):
        records = [replace(r, metrics={**r.metrics, "sharpness": r.metrics["identity"]}) for r in cell.records]
        cells.append(replace(cell, records=tuple(records)))
    merge_jsonl(tmp_path / "results.jsonl", cells)
    axes = {"axes": {"x": "sharpness", "y": "text_alignment"}}
    with pytest.raises(UserError, match=r"say which end is better, higher_is_better=\[sharpness\]"):
        report(configured([tmp_path / "results.jsonl"], tmp_path / "out", **axes))
    with pytest.raises(UserError, match="'identity' is registered with higher_is_better=True already"):
        report(configured([tmp_path / "results.jsonl"], tmp_path / "out", lower_is_better=["identity"]))
    axes |= {"higher_is_better": ["sharpness"]}
    page = report(configured([tmp_path / "results.jsonl"], tmp_path / "out", **axes))
    assert "sharpness" in page.read_text(encoding="utf-8")


def test_no_results_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no result\.json and no results\.jsonl there; run some cells first"):
        report(configured([tmp_path], tmp_path))
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        report(configured([tmp_path / "nowhere"], tmp_path))


@pytest.mark.slow
def test_the_report_goes_to_wandb_where_the_logger_says_so(
    study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    logger = {"name": "wandb", "project": "p", "entity": None, "mode": "offline", "group": "synthetic", "tags": ["a"]}
    page = report(configured(sorted(study_folder.iterdir())[:3], tmp_path, logger=logger))
    (offline,) = read_offline(page.parent / "wandb")
    assert (offline.run.job_type, offline.run.run_group, offline.exit_code) == ("report", "synthetic", 0)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"front\.png: cannot be written"):
        write_bytes(tmp_path / "file" / "front.png", b"")


def test_results_of_two_protocols_have_a_report_each(
    study: list[Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their numbers are never in one mean, one front or one verdict."""
    first = next(result for result in study if result.protocol is not None)
    assert first.protocol is not None
    other = replace(first.protocol, version="another")
    mixed = [replace(r, protocol=other) if r.axes["method"] == "palp" and r.axes["train_seed"] else r for r in study]
    merge_jsonl(tmp_path / "results.jsonl", mixed)
    page = report(configured([tmp_path / "results.jsonl"], tmp_path))
    folders = sorted(path.parent.name for path in tmp_path.rglob("report.html"))
    assert folders == [f"{first.protocol.name}-{first.protocol.version}", f"{first.protocol.name}-another"]
    counted = {
        path.parent.name: json.loads(path.read_text())["cells"]["runs"] for path in tmp_path.rglob("summary.json")
    }
    assert sorted(map(len, counted.values())) == [12, 24] and len(counted[page.parent.name]) == 24
    assert "2 protocols, a report each" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("without", "changes", "why"),
    [
        ("identity", {}, "metric 'identity' was not measured"),
        ("nothing", {"compare": ["palp", "textual_inversion"]}, "no results of 'textual_inversion' to compare"),
    ],
)
def test_a_protocol_that_cannot_answer_leaves_the_others_their_reports(
    study: list[Result], tmp_path: Path, without: str, changes: dict[str, object], why: str
) -> None:
    """The one that fails comes second of three: the third was never made."""
    assert study[0].protocol is not None
    several = []
    for cell in study:
        seed, concept, method = (cell.axes[key] for key in ("train_seed", "concept", "method"))
        version = "1" if seed == 0 else "3" if concept == "cat 11" else "2"
        if version == "2" and method == "textual_inversion" and without == "nothing":
            continue
        records = [
            replace(r, metrics={n: m for n, m in r.metrics.items() if n != without} if version == "2" else r.metrics)
            for r in cell.records
        ]
        protocol = replace(study[0].protocol, name="p", version=version)
        several.append(replace(cell, protocol=protocol, records=tuple(records)))
    merge_jsonl(tmp_path / "results.jsonl", several)
    with pytest.raises(UserError, match=f"^no report of p 2: {why}") as caught:
        report(configured([tmp_path / "results.jsonl"], tmp_path, **changes))
    assert "\n" not in str(caught.value) and "p 1" not in str(caught.value)
    assert sorted(path.parent.name for path in tmp_path.rglob("report.html")) == ["p-1", "p-3"]


def test_networks_are_part_of_what_scored(study: list[Result]) -> None:
    first = study[0].protocol
    assert first is not None and len(by_protocol(study)) == 1
    mixed = [replace(study[0], protocol=replace(first, hashes={"clip": "other"})), *study[1:]]
    names = list(by_protocol(mixed))
    assert len(set(names)) == 2
    assert all(name.startswith(f"{first.name} {first.version} ") for name in names)

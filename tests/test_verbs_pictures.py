"""The verbs generate and score on a laboratory of random networks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from palp_lab.export import export
from palp_lab.generate import generate
from palp_lab.pictures import png_bytes, read_pictures
from palp_lab.report import report
from palp_lab.score import score
from palp_lab.study.result import load_result
from palp_lab.types import UserError
from tests.metrics.conftest import noise_pictures
from tests.micro_lab import MicroLab
from tests.study.wandb_records import read_offline


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command says what it was given."""
    monkeypatch.setattr("palp_lab.study.sweeps._jobs", [])


def test_generate_from_this_configuration_and_from_saved_adapters(
    micro_lab: MicroLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("method=ti_db", f"output={tmp_path}", "generate.seeds=1", "trainer.max_steps=1")
    generate(compose_verb(micro_lab, "generate", *overrides))
    folder = Path(capsys.readouterr().out.strip().splitlines()[-1])
    trained = read_pictures(folder)
    assert len(trained) == 3, "two sentences and a drift prompt"
    (adapter,) = tmp_path.glob("store/train/*/adapters/step_000001.safetensors")
    again = shutil.copy(adapter, tmp_path / "mine.safetensors")
    generate(compose_verb(micro_lab, "generate", *overrides, f"adapters=[{adapter},{again}]"))
    one, two = (read_pictures(Path(line)) for line in capsys.readouterr().out.strip().splitlines()[-2:])
    assert [p.sentence for p in one] == [p.sentence for p in two]
    same = {p.sentence: p.image for p in trained}
    assert len(one) == 2
    assert all(int((p.image.int() - same[p.sentence].int()).abs().max()) <= 1 for p in one)
    assert one[0].knobs["adapter"] == two[0].knobs["adapter"], "the adapter's own hash, not its file's place"


def test_score_of_this_configuration_is_its_cells_result(
    micro_lab: MicroLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("method=ti_db", f"output={tmp_path}", "generate.seeds=2", "trainer.max_steps=1")
    score(compose_verb(micro_lab, "score", *overrides))
    path = Path(capsys.readouterr().out.strip().splitlines()[-1])
    result = load_result(path)
    assert {r.step for r in result.records} == {1}
    assert sorted(str(r.prompt_group) for r in result.records) == ["drift", "same_style", "style"]
    assert {b.name for b in result.bounds} == {
        "class_word", "described", "held_out_photos", "training_photos", "true_renders",
    }  # fmt: skip
    pictures = [path.parent / image for r in (*result.records, *result.bounds) for image in r.images]
    assert pictures
    assert all(p.is_file() for p in pictures)


def test_score_of_any_tools_pictures_lies_beside_them(
    micro_lab: MicroLab, tmp_path: Path, capsys: pytest.CaptureFixture[str], notebook: None
) -> None:
    for i, image in enumerate(noise_pictures(2)):
        (tmp_path / f"{i}.png").write_bytes(png_bytes(image))
    (tmp_path / "prompts.json").write_text(json.dumps({"0": "a sketch of a cat", "1": "a sketch of a cat"}))
    score(compose_verb(micro_lab, "score", f"images={tmp_path}", "labels.dataset=tiny", "labels.model=sd15"))
    path = Path(capsys.readouterr().out.strip())
    assert path == tmp_path / "result.json"
    result = load_result(path)
    assert result.axes["method"] == tmp_path.name, "the recipe in the configuration did not make these pictures"
    assert result.records[0].prompt == "a sketch of a {}"
    assert result.records[0].metrics["text_alignment"].n == 2


def test_people_and_judges_can_be_asked_of_other_tools_alone(
    micro_lab: MicroLab, tmp_path: Path, capsys: pytest.CaptureFixture[str], notebook: None
) -> None:
    for seed, method in enumerate(("mine", "theirs")):
        folder = tmp_path / "sets" / method
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(png_bytes(noise_pictures(1, seed=seed)[0]))
        (folder / "prompts.json").write_text(json.dumps({"0": "a sketch of a cat"}))
        score(compose_verb(micro_lab, "score", f"images={folder}", "labels.model=sd15"))
        score(compose_verb(micro_lab, "score", f"images={folder}", "labels.model=sd15"))
        shown = [bound for bound in load_result(folder / "result.json").bounds if bound.images]
        assert {bound.name for bound in shown} == {"training_photos"}
        photos = {str(path.relative_to(folder)) for path in (folder / "bounds" / "training_photos").iterdir()}
        assert photos == set(shown[0].images)
    shutil.rmtree(tmp_path / "sets" / "theirs" / "bounds")
    asked = (f"results=[{tmp_path / 'sets'}]", f"folder={tmp_path}")
    report(compose_verb(micro_lab, "report", *asked, "study_kit=true"))
    items = json.loads((tmp_path / "study_kit" / "key.json").read_text())["items"].values()
    assert {item["method"] for item in items} == {"mine", "theirs"}
    assert {Path(item["photo"]).parents[2].name for item in items} == {"mine"}, "one photo, whoever has it"
    report(compose_verb(micro_lab, "report", *asked, "dreambench_plus=true"))
    (said,) = (tmp_path / "dreambench_plus" / "data" / "captions" / "object").glob("*.txt")
    assert said.read_text().splitlines() == ["cat", "a sketch of a cat"]
    [asked_for, *_] = (tmp_path / "dreambench_plus" / "samples").glob("*/text/*/*.txt")
    assert asked_for.read_text() == "a sketch of a cat"
    assert len(list((tmp_path / "dreambench_plus" / "samples").glob("*/tgt_image/*/*.jpg"))) == 2
    shutil.rmtree(tmp_path / "sets" / "mine" / "bounds")
    shutil.rmtree(tmp_path / "study_kit")
    for key in ("study_kit", "dreambench_plus"):
        with pytest.raises(UserError, match=r"no result of cat.* has a training photo beside it") as error:
            report(compose_verb(micro_lab, "report", *asked, f"{key}=true"))
        assert "\n" not in str(error.value)


def test_each_verb_has_its_own_run_in_wandb(
    micro_lab: MicroLab,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    notebook: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-home"))
    overrides = (
        "method=ti_db", f"output={tmp_path}", "generate.seeds=1", "trainer.max_steps=2",
        "logger=wandb", "logger.mode=offline", "study_name=tracked",
    )  # fmt: skip
    generate(compose_verb(micro_lab, "generate", *overrides))
    (adapter,) = tmp_path.glob("store/train/*/adapters/step_000002.safetensors")
    generate(compose_verb(micro_lab, "generate", *overrides, f"adapters=[{adapter}]"))
    folder = Path(capsys.readouterr().out.strip().splitlines()[-1])
    score(compose_verb(micro_lab, "score", *overrides))
    score(compose_verb(micro_lab, "score", *overrides, f"images={folder}", "labels.model=micro"))
    export(compose_verb(micro_lab, "export", *overrides, f"adapter={adapter}", f"to={tmp_path / 'out'}"))
    drawn, redrawn, scored, foreign, exported = read_offline(tmp_path)
    kinds = ["generate", "generate", "score", "score", "export"]
    assert [run.run.job_type for run in (drawn, redrawn, scored, foreign, exported)] == kinds
    assert {run.run.run_group for run in (drawn, redrawn, scored, foreign, exported)} == {"tracked"}
    assert len({run.run.run_id for run in (drawn, redrawn, scored, foreign, exported)}) == 5
    for run in (drawn, scored):
        assert len([row for row in run.history if "reconstruction/value" in row]) == 2, "live, and sent afterwards"
    for run in (drawn, redrawn, scored, foreign):
        assert any(key.startswith("pictures") for row in run.history for key in row)
        assert run.exit_code == 0
    assert all(run.summary["text_alignment"] == pytest.approx(mean_text(path)) for run, path in (
        (scored, next((tmp_path / "tracked" / "cells").glob("*/result.json"))), (foreign, folder / "result.json"),
    ))  # fmt: skip
    assert exported.summary["bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert not list(folder.glob("wandb")), "a folder of pictures holds pictures"
    for seeds, runs in ((1, 5), (2, 6)):
        generate(compose_verb(micro_lab, "generate", *overrides, f"adapters=[{adapter}]", f"generate.seeds={seeds}"))
        assert len(read_offline(tmp_path)) == runs, "sent once; more pictures are another run"
    generate(compose_verb(micro_lab, "generate", *overrides, f"adapters=[{adapter}]", "logger.project=another"))
    assert len(read_offline(tmp_path)) == 7, "another project has none of it yet"


def mean_text(path: Path) -> float:
    values = [r.metrics["text_alignment"].value for r in load_result(path).records if r.prompt_group != "drift"]
    return sum(value for value in values if value is not None) / len(values)


def compose_verb(lab: MicroLab, verb: str, *overrides: str):  # type: ignore[no-untyped-def]
    from palp_lab.composition import compose

    """A verb's configuration; the report is the main job's alone."""
    own = [o for o in lab.overrides if not o.startswith("report.")]
    return compose(verb, *own, *overrides, config_dir=lab.conf)

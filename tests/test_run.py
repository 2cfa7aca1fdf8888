"""One cell from configuration to result: what is made, what is shared, what is never made twice."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from palp_lab import keys
from palp_lab.adapter import read_adapter
from palp_lab.cell import Cell
from palp_lab.composition import conf_folder
from palp_lab.dataset.tiny import TARGET as DEFAULT
from palp_lab.edits.lora import LoraEdits
from palp_lab.memory import known_result
from palp_lab.result_folder import RESULT, link, overridden, result_folder
from palp_lab.run import read_targets, run
from palp_lab.sources import digest_of, written_in
from palp_lab.study.ledger import read_jsonl
from palp_lab.study.result import load_result
from palp_lab.study.sweeps import Job, begin
from palp_lab.targets import say_unknown
from palp_lab.tracked import objectives
from palp_lab.train import train
from palp_lab.types import UserError
from tests.dataset.pictures import photos
from tests.micro import LENGTH
from tests.micro_lab import MicroLab

TARGET = "target='a sketch of a {} in the snow'"
PARTS = {"losses", "tokens", "edits", "dataset", "metrics", "prompts"}
OTHER = "target='a photo of a {} wearing a red hat at night'"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One output folder for this module: what a test made, later tests find."""
    return tmp_path_factory.mktemp("output")


class Stages(dict[str, set[str]]):
    """By kind; of a kind that is not there yet, none."""

    def __missing__(self, kind: str) -> set[str]:
        return set()


def stages(output: Path) -> Stages:
    """The finished stages of a store by kind, whichever test is the first to fill it."""
    return Stages({kind.name: {path.name for path in kind.iterdir()} for kind in output.glob("store/*")})


def cell_of(lab: MicroLab, output: Path, *overrides: str) -> Cell:
    return Cell(lab.compose(f"output={output}", *overrides))


def ran(lab: MicroLab, output: Path, *overrides: str) -> Path:
    config = lab.compose(f"output={output}", *overrides)
    run(config)
    return result_folder(Cell(config))


def test_a_cell_leaves_what_it_promises(micro_lab: MicroLab, output: Path) -> None:
    folder = ran(micro_lab, output, "method=ti_db", "checkpoints=[2]")
    result = load_result(folder / RESULT)
    assert {record.step for record in result.records} == {2, 4}
    assert {bound.name for bound in result.bounds} >= {"class_word", "described", "true_renders", "training_photos"}
    assert result.data is not None
    read = result.data["text"]
    assert read["word"] == result.data["superclass"] and read["anchor"] == [read["pieces"][0][-1]]
    for record in result.records:
        assert all((folder / image).is_file() for image in record.images)
        assert len(record.images) == len(record.picture_seeds) == 2
    assert all((folder / image).is_file() for bound in result.bounds for image in bound.images)
    for name in ("adapter/adapter.safetensors", "adapter/step_000002.safetensors", "config.yaml", "log.csv"):
        assert (folder / name).is_file()
    assert json.loads((folder / "strip" / "strip.json").read_text())["pictures"]["ti_db"].keys() == {"2", "4"}
    assert result.axes["method"] == "ti_db" and result.axes["concept"].startswith("cat")
    assert result.cost.trainable_parameters and result.cost.adapter_bytes and result.cost.seconds
    assert str(output) not in (folder / RESULT).read_text(), "a result that is shared names no folder of this machine"
    assert next(record.prompt for record in result.records if record.step == 4) == "a sketch of a {} in the snow"


def test_again_nothing_is_made(micro_lab: MicroLab, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ran(micro_lab, output, "method=ti_db", "checkpoints=[2]")
    before, text = stages(output), (folder / RESULT).read_text()

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("made again")

    for name in ("train_stage", "generate_pictures", "score_records", "score_bounds", "strip_images"):
        monkeypatch.setattr(f"palp_lab.cell.{name}", refuse)
    values = run(micro_lab.compose(f"output={output}", "method=ti_db", "checkpoints=[2]"))
    assert stages(output) == before
    assert (folder / RESULT).read_text() == text
    assert values == objectives(load_result(folder / RESULT))
    assert all(math.isfinite(value) for value in values)


def test_a_deleted_result_folder_is_made_from_the_store(micro_lab: MicroLab, output: Path) -> None:
    import shutil

    folder = ran(micro_lab, output, "method=ti_db", "checkpoints=[2]")
    text, before = (folder / RESULT).read_text(), stages(output)
    shutil.rmtree(folder)
    assert ran(micro_lab, output, "method=ti_db", "checkpoints=[2]") == folder
    assert (folder / RESULT).read_text() == text
    assert stages(output) == before


def test_two_processes_of_one_number_may_make_one_result_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two containers that share the output may."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    (source := tmp_path / "source").write_text("whole")
    really, others = os.replace, [tmp_path / "target"]

    def meanwhile(part: Path, target: Path) -> None:
        if others:
            link(source, others.pop())
        really(part, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    link(source, tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_a_method_without_target_is_trained_once_for_all(micro_lab: MicroLab, output: Path) -> None:
    cells = [cell_of(micro_lab, output, "method=ti_db", target) for target in (TARGET, OTHER)]
    assert cells[0].stage_key("train") == cells[1].stage_key("train")
    assert cells[0].run == cells[1].run
    aligned = [cell_of(micro_lab, output, "method=palp", target) for target in (TARGET, OTHER)]
    assert aligned[0].stage_key("train") != aligned[1].stage_key("train")
    assert cell_of(micro_lab, output, "method=palp_control", TARGET).target is None


def test_captions_that_are_the_target_are_a_target(micro_lab: MicroLab, output: Path) -> None:
    cells = [
        cell_of(micro_lab, output, "method=target_as_caption", "captions=['${target}']", target)
        for target in (TARGET, OTHER)
    ]
    assert cells[0].target == "a sketch of a {} in the snow"
    assert cells[0].stage_key("train") != cells[1].stage_key("train")


def test_own_target_is_marked_and_others_are_measured(micro_lab: MicroLab, output: Path) -> None:
    result = load_result(ran(micro_lab, output, "method=palp", TARGET) / RESULT)
    concept = [record for record in result.records if record.prompt_group != "drift"]
    assert [record.own_target for record in concept] == [True, False]
    assert {record.target for record in result.records} == {"a sketch of a {} in the snow"}


def test_drift_is_from_the_base_models_own_pictures(micro_lab: MicroLab, output: Path) -> None:
    result = load_result(ran(micro_lab, output, "method=ti_db", "optimizer.lr=0.3", "trainer.max_steps=2") / RESULT)
    drift = [record.metrics for record in result.records if record.prompt_group == "drift"]
    moved = [metric.value for metrics in drift for name, metric in metrics.items() if name.startswith("drift")]
    assert moved and any(value and value > 1e-3 for value in moved), "a network that was changed draws other pictures"


def test_estimates_are_told_apart_by_how_the_strip_is_drawn(micro_lab: MicroLab, output: Path) -> None:
    plain, other = (cell_of(micro_lab, output, "method=ti_db", *more) for more in ((), ("strip.t=0.5",)))
    assert plain.stage_key("estimates", 1) != other.stage_key("estimates", 1)
    assert plain.stage_key("pictures", 1) == other.stage_key("pictures", 1) and plain.run == other.run


def test_numbers_beside_true_renders_that_changed_are_made_anew(
    micro_lab: MicroLab, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cell_of(micro_lab, output, "method=ti_db")
    kinds = ("scores", "bounds", "pictures", "train")
    keys, run = [before.stage_key(kind, 4) for kind in kinds], before.run
    monkeypatch.setattr(type(before.dataset), "redrawn", lambda _, sentences: {sentences[0]: 3})
    after = cell_of(micro_lab, output, "method=ti_db")
    same = [after.stage_key(kind, 4) == key for kind, key in zip(kinds, keys, strict=True)]
    assert same == [False, False, True, True] and run != after.run


def test_more_pictures_do_not_retrain_and_other_metrics_do_not_redraw(micro_lab: MicroLab, tmp_path: Path) -> None:
    ran(micro_lab, tmp_path, "method=ti_db", "checkpoints=[2]")
    before = stages(tmp_path)
    ran(micro_lab, tmp_path, "method=ti_db", "checkpoints=[2]", "generate.seeds=1")
    after = stages(tmp_path)
    assert after["train"] == before["train"]
    assert len(after["pictures"]) > len(before["pictures"])
    ran(micro_lab, tmp_path, "method=ti_db", "checkpoints=[2]", "metrics.version=2")
    last = stages(tmp_path)
    assert (last["train"], last["pictures"]) == (after["train"], after["pictures"])
    assert len(last["scores"]) == len(after["scores"]) + 2


def test_cells_of_a_concept_share_base_pictures_and_bounds(micro_lab: MicroLab, output: Path) -> None:
    one, two = (cell_of(micro_lab, output, "method=ti_db", f"seed={seed}") for seed in (0, 1))
    assert one.run != two.run
    assert one.stage_key("pictures", "class_word") == two.stage_key("pictures", "class_word")
    assert one.stage_key("bounds") == two.stage_key("bounds")
    assert one.stage_key("pictures", 4) != two.stage_key("pictures", 4)


@pytest.mark.parametrize(
    "override",
    ["log.every=7", "trainer.save_every=3", "study_name=x", "labels.method=x", "logger=wandb", "generate.batch_size=1"],
)
def test_what_does_not_change_an_adapter_is_not_in_its_key(micro_lab: MicroLab, tmp_path: Path, override: str) -> None:
    plain = cell_of(micro_lab, tmp_path / "a", "method=ti_db")
    other = cell_of(micro_lab, tmp_path / "b", "method=ti_db", override)
    assert plain.stage_key("train") == other.stage_key("train")
    assert plain.run == other.run


@pytest.mark.parametrize(
    "override",
    [
        "seed=1", "optimizer.lr=0.5", "dataset.seed=5", "dataset.shots=3", "edits.rank=1", "checkpoints=[1]",
        "trainer.ema=0.9", "trainer.gradient_clip=0.1", "trainer.precision=bf16", "trainer.batch_size=3",
        "trainer.accumulate=2", "augment.flip=0.25", "captions=['a picture of {}']",
    ],
)  # fmt: skip
def test_what_changes_an_adapter_is(micro_lab: MicroLab, tmp_path: Path, override: str) -> None:
    plain, other = (cell_of(micro_lab, tmp_path, "method=ti_db", *more) for more in ((), (override,)))
    assert plain.stage_key("train") != other.stage_key("train")
    assert plain.run != other.run


@pytest.mark.parametrize("override", ["guidance=3", "steps=3", "scheduler=dpm++", "strength=0.5"])
def test_how_pictures_are_drawn_is_in_their_key(micro_lab: MicroLab, tmp_path: Path, override: str) -> None:
    plain, other = (cell_of(micro_lab, tmp_path, "method=ti_db", *more) for more in ((), (f"generate.{override}",)))
    assert plain.stage_key("train") == other.stage_key("train")
    assert plain.stage_key("pictures", 4) != other.stage_key("pictures", 4)
    assert plain.run != other.run


def test_what_is_measured_is_in_the_hash_whichever_way_it_comes(micro_lab: MicroLab, tmp_path: Path) -> None:
    """A method without a target is measured on the target's sentence too; held-out photos are a column of scores."""
    near, far = "a photo of a {} in a spaceship", "a photo of a {} reading a newspaper"
    one, two = (cell_of(micro_lab, tmp_path, "method=ti_db", f'target="{target}"') for target in (near, far))
    assert one.stage_key("train") == two.stage_key("train")
    assert one.run != two.run
    (known, *_) = one.prompts.sentences(None)
    plain, same = (cell_of(micro_lab, tmp_path, "method=ti_db", *more) for more in ((), (f'target="{known}"',)))
    assert plain.run == same.run, "a target among the prompts adds nothing"
    other = cell_of(micro_lab, tmp_path, "method=ti_db")
    other.concept = replace(other.concept, held_out_digest="other photos")
    assert other.run != plain.run and other.stage_key("train") == plain.stage_key("train")


def test_base_pictures_belong_to_how_the_base_is_run(micro_lab: MicroLab, tmp_path: Path) -> None:
    plain, other = (cell_of(micro_lab, tmp_path, "method=ti_db", *more) for more in ((), ("+model.autocast=true",)))
    assert plain.stage_key("pictures", "class_word") != other.stage_key("pictures", "class_word")


def test_the_machine_is_in_the_keys_of_stages_and_not_in_the_hash(micro_lab: MicroLab, tmp_path: Path) -> None:
    one, two = (cell_of(micro_lab, tmp_path, "method=ti_db", f"threads={threads}") for threads in (1, 2))
    assert one.run == two.run
    assert one.stage_key("train") != two.stage_key("train")


def test_a_stage_is_computed_with_the_threads_of_its_key(
    micro_lab: MicroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a notebook nobody else has told torch, which takes all there are."""
    seen: list[int] = []
    monkeypatch.setattr("palp_lab.cell.train_stage", lambda *_: seen.append(torch.get_num_threads()) or {})
    before = torch.get_num_threads()
    try:
        one, two = (cell_of(micro_lab, tmp_path, "method=ti_db", f"threads={number}") for number in (1, 2))
        torch.set_num_threads(3)
        one.train()
        two.train()
    finally:
        torch.set_num_threads(before)
    assert seen == [one.machine["threads"], two.machine["threads"]] == [1, 2]


def test_every_key_of_the_configuration_is_some_stages(micro_lab: MicroLab) -> None:
    known = frozenset().union(*keys.READ_BY.values())
    own = [set(OmegaConf.load(conf_folder() / f"{verb}.yaml")) for verb in ("train", "generate", "score", "export")]
    there = set(micro_lab.compose()).union(*own) - {"defaults", "hydra"}
    assert there == known, "say in palp_lab/keys.py which stage reads a new key"


def test_a_key_nobody_listed_counts_as_the_trainings() -> None:
    assert keys.read_by("train", {"seed": 0, "something_new": 1}) == {"seed": 0, "something_new": 1}


def test_a_part_that_was_mended_is_another_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without a version stands for itself; with one, its number does; version 1 is the name alone."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two texts of one length and one second would share it
    node = {
        "losses": {"mine": {"_target_": "mended_part.Mine", "weight": 1.0}, "other": [{"_target_": "mended_part.Mine"}]}
    }
    said = []
    for text in (
        "class Mine: ...",
        "class Mine: # mended\n    ...",
        "class Mine: version = 1",
        "class Mine: version = 2",
    ):
        (tmp_path / "mended_part.py").write_text(text)
        sys.modules.pop("mended_part", None)
        importlib.invalidate_caches()
        said.append(keys.code_of(node))
    assert said[0].keys() == said[1].keys() == {"mended_part.Mine"} and said[0] != said[1]
    assert said[2:] == [{}, {"mended_part.Mine": "version 2"}]


def test_a_part_is_another_one_when_what_it_imports_from_beside_it_was_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an installed package or this one is made of has a version; a helper in the next file has none."""
    monkeypatch.syspath_prepend(tmp_path)
    for folder in ("mended", "mended/inner"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    files = {
        "mended/part.py": "import json, torch\nfrom palp_lab import types\nfrom .inner import near\nclass Mine: ...",
        "mended/inner/near.py": "import far_helper\nfrom ..odd import *",
        "mended/odd.py": "from mended import part",
        "far_helper.py": "import not_there",
        "unrelated.py": "x = 1",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = written_in("mended.part", tmp_path / "mended" / "part.py")
    everything = {"mended", "mended.part", "mended.inner", "mended.inner.near", "mended.odd", "far_helper"}
    assert set(found) == everything
    before = digest_of("mended.part", found["mended.part"])
    for name in ("far_helper.py", "mended/odd.py", "mended/part.py"):
        (tmp_path / name).write_text(files[name] + "\n# mended")
        assert digest_of("mended.part", found["mended.part"]) != before
        (tmp_path / name).write_text(files[name])
    (tmp_path / "unrelated.py").write_text("x = 2")
    assert digest_of("mended.part", found["mended.part"]) == before
    site = tmp_path / "site-packages"
    (tmp_path / "mended").rename(site.parent / "moved")
    site.mkdir()
    (tmp_path / "moved").rename(site / "mended")
    (site / "far_helper.py").touch()
    assert set(written_in("mended.part", site / "mended" / "part.py")) == everything - {"far_helper"}


def test_a_part_that_is_edited_while_its_process_runs_is_what_was_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later cells of a sweep run what was imported at its start, whatever has been written into the file since."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    files = [tmp_path / "edited_part.py", tmp_path / "edited_helper.py"]
    files[0].write_text("import edited_helper\nclass Mine: ...")
    files[1].write_text("x = 1")
    importlib.invalidate_caches()
    node = {"_target_": "edited_part.Mine"}
    before = keys.code_of(node)
    for file in files:
        file.write_text(file.read_text() + "\n# edited")
        assert keys.code_of(node) == before
        importlib.reload(sys.modules[file.stem])
        after = keys.code_of(node)
        assert after != before
        before = after


def test_every_part_that_is_shipped_has_a_version(micro_lab: MicroLab) -> None:
    """So that the results of a long study outlive a tidying up."""
    nodes = [
        OmegaConf.to_container(OmegaConf.load(path))
        for path in conf_folder().rglob("*.yaml")
        if path.parent.name in PARTS
    ]
    assert len(nodes) > 30
    assert [keys.code_of(node) for node in nodes] == [{}] * len(nodes)


def test_what_a_training_is_keyed_by_tells_of_unfinished_parts(
    micro_lab: MicroLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell(micro_lab.compose("method=ti_db"))
    before, run_before = cell.stage_key("train"), cell.run
    monkeypatch.delattr(LoraEdits, "version")
    again = Cell(micro_lab.compose("method=ti_db"))
    assert "code" not in cell.train_inputs and list(again.train_inputs["code"]) == ["palp_lab.edits.lora.LoraEdits"]
    assert (again.stage_key("train") == before, again.run == run_before) == (False, False)


def test_a_result_is_filed_under_what_its_study_sets(micro_lab: MicroLab, tmp_path: Path) -> None:
    cell = Cell(micro_lab.compose("method=palp", TARGET, "losses.prompt_alignment.alpha=5.0"))
    begin(Job(tmp_path, {"seed": "0"}, study=("losses.prompt_alignment.alpha",)))
    try:
        assert overridden(cell) == {"losses.prompt_alignment.alpha": 5.0}
    finally:
        begin(Job(tmp_path))


def test_a_list_and_null_tell_cells_apart_too(micro_lab: MicroLab, tmp_path: Path) -> None:
    """An edit of the attention alone was filed, and averaged, as one of everything."""
    words = ("edits=full", "edits.targets=[attn2, to_q]", "optimizer.token_lr=null")
    absent = {"losses.prompt_alignment.clamp": "null"}
    said = {"edits": "full", "edits.targets": "[attn2, to_q]", "optimizer.token_lr": "null"} | absent
    cell = Cell(micro_lab.compose("method=ti_db", *words))
    begin(Job(tmp_path, said))
    try:
        assert overridden(cell) == {"edits": "full", "edits.targets": "[attn2,to_q]", "optimizer.token_lr": "null"}
    finally:
        begin(Job(tmp_path))


def test_the_ledger_spares_a_known_cell(
    micro_lab: MicroLab, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "experiments" / "results.jsonl"
    config = micro_lab.compose(f"output={output}", "method=ti_db", "checkpoints=[2]", f"ledger={ledger}")
    values = run(config)
    assert len(ledger.read_text().splitlines()) == 1
    fresh = micro_lab.compose(f"output={tmp_path / 'elsewhere'}", "method=ti_db", "checkpoints=[2]", f"ledger={ledger}")
    assert run(fresh) == pytest.approx(values, abs=1e-5)
    assert not (tmp_path / "elsewhere" / "store").exists(), "a cell the ledger knows is not made"
    assert load_result(result_folder(Cell(fresh)) / RESULT).run == Cell(config).run
    assert len(ledger.read_text().splitlines()) == 1
    (damaged := result_folder(Cell(fresh)) / RESULT).write_text('{"schema": "palp')
    run(fresh)
    assert load_result(damaged).run == Cell(config).run, "or the sweep's report would never be made again"
    run(
        micro_lab.compose(
            f"output={tmp_path / 'new'}", "method=ti_db", "checkpoints=[2]", f"ledger={ledger}", "dry_run=true"
        )
    )
    assert "1 cells, 0 to do" in capsys.readouterr().out


def test_a_concepts_bounds_are_in_the_ledger_once(micro_lab: MicroLab, output: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "results.jsonl"
    configs = [
        micro_lab.compose(f"output={output}", "method=ti_db", "checkpoints=[2]", f"ledger={ledger}", *more)
        for more in ((), ("seed=1",), ("generate.seeds=1",))
    ]
    for config in configs:
        run(config)
    lines = read_jsonl(ledger)
    assert len(lines) == 3
    assert sum(bool(line.bounds) for line in lines) == 2, "one for two seeds per prompt, one for one"
    for config in configs:
        known = known_result(Cell(config))
        assert known is not None
        fresh = load_result(result_folder(Cell(config)) / RESULT)
        assert [(bound.name, bound.prompt) for bound in known.bounds] == [(b.name, b.prompt) for b in fresh.bounds]
        for mine, theirs in zip(known.bounds, fresh.bounds, strict=True):
            assert mine.metrics["identity"].value == pytest.approx(theirs.metrics["identity"].value, abs=1e-5)


def test_a_ledger_that_knows_few_bounds_still_gets_all(micro_lab: MicroLab, output: Path, tmp_path: Path) -> None:
    given = (f"output={output}", "method=ti_db", "checkpoints=[2]", f"ledger={tmp_path / 'results.jsonl'}")
    run(micro_lab.compose(*given, "+metrics.bounds=[training_photos]"))
    whole = micro_lab.compose(*given)
    run(whole)
    fresh, known = load_result(result_folder(Cell(whole)) / RESULT), known_result(Cell(whole))
    assert known is not None and len({bound.name for bound in fresh.bounds}) > 1
    assert [bound.name for bound in known.bounds] == [bound.name for bound in fresh.bounds]


def test_targets_from_a_file(micro_lab: MicroLab, output: Path, tmp_path: Path) -> None:
    path = tmp_path / "targets.txt"
    path.write_text("# two\na sketch of a {} in the snow\n\na photo of a {} wearing a red hat at night\n")
    before = stages(output)["train"]
    run(micro_lab.compose(f"output={output}", "method=palp", f"targets_file={path}", "seed=7"))
    assert len(stages(output)["train"] - before) == 2
    path.write_text("a sketch in the snow\n")
    with pytest.raises(UserError, match=r"targets\.txt, line 1: .* needs exactly one {}"):
        run(micro_lab.compose(f"output={output}", "method=palp", f"targets_file={path}"))


def test_a_line_that_fails_does_not_keep_the_others_from_being_trained(
    micro_lab: MicroLab,
    output: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with the verb `run`, a sweep over lines goes on, names what failed and ends with an error."""
    path = tmp_path / "targets.txt"
    path.write_text("a sketch of a {} in the city\na photo of a {} wearing a blue hat at night\n")
    real = Cell.train

    def broken(cell: Cell, *given: object, **more: object) -> object:
        if cell.target == "a sketch of a {} in the city":
            raise UserError("no such luck")
        return real(cell, *given, **more)

    monkeypatch.setattr(Cell, "train", broken)
    given = (f"output={output}", "method=palp", f"targets_file={path}", "seed=8")
    with pytest.raises(UserError, match=r"1 of 2 targets failed, the first of them 'a sketch of a {} in the city': no"):
        train(micro_lab.compose(*given))
    (line,) = capsys.readouterr().out.splitlines()
    assert Path(line).is_file()
    with pytest.raises(UserError, match="1 of 2"):
        train(micro_lab.compose(*given, "fail_fast=true"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("model", "sentence", "said"),
    [
        ("tiny", "a sketch of {} in Paris", True),
        ("tiny_small", "a sketch of {} in Paris", True),
        ("tiny", "a sketch of {} in the snow", False),
        ("sd15", "a sketch of {} in Paris", False),
        ("somebody/tiny-sd", "a sketch of {} in Paris", False),
    ],
)
def test_words_the_tiny_world_does_not_have_are_said(
    model: str, sentence: str, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    say_unknown(model, [sentence])
    assert (f"model={model} does not know 'paris'" in caplog.text) is said


def test_only_line_breaks_part_targets(tmp_path: Path) -> None:
    path = tmp_path / "targets.txt"
    path.write_bytes("a photo of\u2028{} in Paris\r\n\na sketch of {}\r\n".encode())
    assert read_targets(path) == ["a photo of\u2028{} in Paris", "a sketch of {}"]


def test_a_byte_order_mark_is_no_part_of_a_target(tmp_path: Path) -> None:
    """Editors of Windows write one."""
    path = tmp_path / "targets.txt"
    for text in ("a photo of {}\n", "# a comment\na photo of {}\n"):
        path.write_text(text, encoding="utf-8-sig")
        assert read_targets(path) == ["a photo of {}"]


def test_several_targets_and_several_processes_are_one_line(
    micro_lab: MicroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A further rank ends with the first cell's training; what the first rank trains next would lack its share."""
    monkeypatch.setattr("palp_lab.run.run_cell", lambda cell: pytest.fail("begun"))
    path = tmp_path / "targets.txt"
    path.write_text("a sketch of a {} in the snow\na photo of a {} wearing a red hat at night\n")
    given = (f"output={tmp_path}", "method=palp", f"targets_file={path}", "trainer.devices=2")
    for more in ((), ("dry_run=true",)):
        with pytest.raises(UserError, match=r"targets_file=.*trainer\.devices=2; give one command per target") as error:
            run(micro_lab.compose(*given, *more))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("method=ti_db", "+prompts.groups.long=['a photo of a {} LONG']"),
        ("method=ti_db", "+prompts.groups.long=['a {} SHORT']", "tokens.num_vectors=9"),
        ("method=ti_db", "prompts.drift_with_class_word=['a photo of a {} LONG']"),
        ("method=ti_db", "+prompts.drift_without_class_word=['a dog LONG']"),
        ("method=ti_db", "target='a photo of a {} LONG'"),
        (
            "method=dreambooth_lora",
            "+prompts.groups.long=['a {} SHORT']",
            "tokens.phrase='sks sks sks sks {superclass}'",
        ),
    ],
)
def test_a_prompt_that_is_too_long_is_known_before_anything_is_trained(
    micro_lab: MicroLab, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """In the words it will be read with: those of the concept count, and so does its description."""
    long, short = " ".join(["cat"] * LENGTH), " ".join(["cat"] * (LENGTH - 5))
    given = [word.replace("LONG", long).replace("SHORT", short) for word in words]
    with pytest.raises(UserError, match=r"prompt '.*' has \d+ tokens .* would be cut; shorten the prompt"):
        cell_of(micro_lab, tmp_path, *given)
    cell_of(micro_lab, tmp_path, *given, "model.windows=3")
    cell_of(micro_lab, tmp_path, *given, "model.long_prompts=cut")


def test_settings_nobody_can_train_with_are_known_before_a_model_is_opened(
    micro_lab: MicroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palp_lab.cell.open_model", lambda config: pytest.fail("opened"))
    with pytest.raises(UserError, match=r"trainer\.precision=fp16: must be 32 or bf16"):
        cell_of(micro_lab, tmp_path, "trainer.precision=fp16")


def test_a_dry_run_lists_and_makes_nothing(
    micro_lab: MicroLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = micro_lab.compose(f"output={tmp_path}", "method=ti_db", "dry_run=true")
    run(config)
    said = capsys.readouterr().out
    assert "train, pictures, scores, bounds to do" in said
    assert "1 cells, 1 to do" in said and "GB of memory for the largest: all weights" in said
    assert not (tmp_path / "store").exists()


def test_a_dry_run_knows_what_is_there(micro_lab: MicroLab, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran(micro_lab, output, "method=ti_db", "checkpoints=[2]")
    run(micro_lab.compose(f"output={output}", "method=ti_db", "checkpoints=[2]", "dry_run=true"))
    assert "finished" in capsys.readouterr().out


def test_a_method_with_a_target_asks_for_it(micro_lab: MicroLab, tmp_path: Path) -> None:
    """Of photos nobody but the user knows what they shall be put into; the tiny world has a target of its own."""
    photos(tmp_path / "photos", 2)
    folder = ("dataset=folder", f"dataset.path={tmp_path / 'photos'}", "dataset.superclass=cat", "metrics=micro")
    with pytest.raises(UserError, match=r"target: palp tunes for a prompt; add 'target="):
        run(micro_lab.compose(f"output={tmp_path}", "method=palp", *folder))


def test_the_tiny_world_has_a_target_of_its_own(micro_lab: MicroLab, tmp_path: Path) -> None:
    plain, said = (
        Cell(micro_lab.compose(f"output={tmp_path}", "method=palp", *words)) for words in ((), (f"target='{DEFAULT}'",))
    )
    assert plain.target == plain.config.target == DEFAULT and plain.run == said.run
    free = Cell(micro_lab.compose(f"output={tmp_path}", "method=ti_db"))
    assert free.config.target is None
    assert free.probe == plain.probe == DEFAULT != free.sentences[0], "one strip shows both"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("generate.seeds=0", "generate.seeds=0: must be at least 1"),
        ("generate.guidance=-2", "generate.guidance=-2: must be at least 0; 1 is no guidance, 0 no prompt"),
        ("strip.guidance=-2", "strip.guidance=-2: must be at least 0; 1 is no guidance"),
        ("strip.t=0", "strip.t=0: must be above 0 and at most 1, a share of the clock"),
        ("generate.scheduler=plms", "generate.scheduler='plms'"),
        ("target='a sketch in Paris'", "target: 'a sketch in Paris' needs exactly one {}"),
        ("metrics.embedders.clip.path=nowhere", "metrics.embedders.clip: nowhere: no network there"),
    ],
)
def test_what_comes_after_the_training_is_refused_before_it(
    micro_lab: MicroLab, tmp_path: Path, words: str, said: str
) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        run(micro_lab.compose(f"output={tmp_path}", "method=ti_db", words))
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_two_cells_in_one_process_leave_the_base_as_it_was(micro_lab: MicroLab, tmp_path: Path) -> None:
    """The second cell of a process is bit for bit what it is in a process of its own."""
    ran(micro_lab, tmp_path / "both", "method=ti_db")
    second = ran(micro_lab, tmp_path / "both", "method=palp", TARGET)
    from palp_lab import parts

    parts._open.clear()
    alone = ran(micro_lab, tmp_path / "alone", "method=palp", TARGET)
    (mine, _), (theirs, _) = (read_adapter(folder / "adapter" / "adapter.safetensors") for folder in (second, alone))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for name in ("strip/base.png", "strip/step_000004.png"):
        assert (second / name).read_bytes() == (alone / name).read_bytes()

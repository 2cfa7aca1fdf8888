"""Saved adapters as the commands open them: found where people look, foreign ones imported, wrong ones one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from palp_lab.adapter import SCHEMA
from palp_lab.cli import main
from palp_lab.generate import generate, say_all_unknown, sentences_for
from palp_lab.model.unet import UNetModel
from palp_lab.pictures import read_pictures
from palp_lab.saved_adapters import find_adapter, rebuild
from palp_lab.score import score
from palp_lab.study.result import load_result
from palp_lab.study.sweeps import Job
from palp_lab.types import UserError
from tests.micro import build
from tests.micro_lab import MicroLab, micro_lab  # noqa: F401
from tests.test_verbs_pictures import compose_verb


def test_adapters_are_found_in_the_folders_people_give(tmp_path: Path) -> None:
    for number in (50, 100):
        path = tmp_path / "adapters" / f"step_{number:06d}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert find_adapter(tmp_path).name == "step_000100.safetensors"
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter.safetensors").write_bytes(b"")
    assert find_adapter(tmp_path).name == "adapter.safetensors"
    assert find_adapter(path) == path
    with pytest.raises(UserError, match=r"adapter\.safetensors"):
        find_adapter(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("key", "node", "said"),
    [
        ("tokens", {"_target_": "palp_lab.dataset.folder.FolderDataset", "path": "/"}, "names palp_lab.dataset"),
        (
            "edits",
            {"_target_": "palp_lab.edits.lora.LoraEdits", "rank": {"_target_": "palp_lab.doctor.Finding"}},
            "no part",
        ),
        ("model", {"_target_": "os.getcwd"}, r"only palp_lab\.\* may be built"),
        ("model", "tiny", "no part"),
    ],
)
def test_a_header_from_anybody_builds_nothing_but_parts(key: str, node: object, said: str) -> None:
    about = {
        "model": {"_target_": "palp_lab.model.open_model", "path": "tiny"},
        "tokens": {"_target_": "palp_lab.tokens.learned.LearnedTokens"},
        "edits": {"_target_": "palp_lab.edits.none.NoEdits"},
        "superclass": "cat", "placeholder": "<v>", key: node,
    }  # fmt: skip
    with pytest.raises(UserError, match=said):
        rebuild(about)


def kohya_file(micro_path: Path, folder: Path, width: int | None = None) -> Path:
    """A LoRA under kohya's keys that is large enough to be seen, or one that reads text of another width."""
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for site in UNetModel.open(micro_path).sites:
        word = f"lora_unet_{site.path.replace('.', '_')}_to_v"
        tensors |= {
            f"{word}.lora_down.weight": torch.randn(2, width or site.context_width, generator=draw),
            f"{word}.lora_up.weight": torch.randn(site.channels, 2, generator=draw),
            f"{word}.alpha": torch.tensor(8.0),
        }
    save_file(tensors, folder / "mine.safetensors")
    return folder / "mine.safetensors"


@pytest.mark.slow
def test_another_tools_lora_draws_is_scored_and_exported_again(
    micro_lab: MicroLab,  # noqa: F811
    micro_path: Path,
    tmp_path: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("palp_lab.study.sweeps._jobs", [])
    path = kohya_file(micro_path, tmp_path)
    overrides = (
        f"adapters=[{path}]",
        'imported.trigger="sks {superclass}"',
        "imported.superclass=cat",
        "generate.seeds=1",
    )
    generate(compose_verb(micro_lab, "generate", *overrides))
    weak = (*overrides, "generate.strength=0", f"output={tmp_path / 'weak'}")
    generate(compose_verb(micro_lab, "generate", *weak))
    folders = [Path(line) for line in capsys.readouterr().out.strip().splitlines()]
    drawn, base = (read_pictures(folder) for folder in folders)
    assert "a sketch of a sks cat in the snow" in [picture.prompt for picture in drawn]
    assert any(not torch.equal(a.image, b.image) for a, b in zip(drawn, base, strict=True))
    assert drawn[0].knobs["adapter"] == base[0].knobs["adapter"]
    score(compose_verb(micro_lab, "score", f"images={folders[0]}", "dataset.superclass=cat", "labels.dataset=tiny"))
    result = load_result(folders[0] / "result.json")
    assert str(result.axes["method"]).startswith("mine-") and len(result.records) == len(drawn)
    assert all(record.metrics["text_alignment"].n == 1 for record in result.records)
    again = tmp_path / "again"
    said = (f"adapter={path}", "imported.trigger=sks cat", f"model.path={micro_path}", "format=kohya", f"to={again}")
    assert main(["export", *said]) == 0
    first, second = load_file(path), load_file(again / "kohya_lora.safetensors")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_each_setting_has_a_folder_that_can_be_scored(
    micro_lab: MicroLab,  # noqa: F811
    micro_path: Path,
    tmp_path: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = kohya_file(micro_path, tmp_path)
    other = build(tmp_path / "other", seed=7)
    plain = (f"adapters=[{path}]", "imported.trigger='sks cat'", "generate.seeds=1", "generate.steps=1")
    changes = ["imported.trigger='ohwx cat'", "generate.guidance=3", "generate.strength=0.5", f"model.path={other}"]
    settings = [(), *((change,) for change in changes)]
    for changed in (*settings, ()):
        generate(compose_verb(micro_lab, "generate", *plain, *changed))
    folders = [Path(line) for line in capsys.readouterr().out.strip().splitlines()]
    assert len(set(folders)) == len(settings) and folders[-1] == folders[0]
    digest = read_pictures(folders[0])[0].knobs["adapter"]
    for folder in folders:
        assert re.fullmatch(rf"mine-{digest}-[0-9a-f]{{8}}", folder.name)
        drawn = read_pictures(folder)
        assert len({picture.sentence for picture in drawn}) == len(drawn), "one setting, one picture of each"
    whole, half = (read_pictures(folders[place])[0] for place in (0, 3))
    assert (whole.knobs["strength"], half.knobs["strength"]) == (1.0, 0.5)
    assert not torch.equal(whole.image, half.image), "half of the adapter draws another picture"


def test_the_first_seed_of_a_saved_adapters_pictures_is_chosen(
    micro_lab: MicroLab,  # noqa: F811
    micro_path: Path,
    tmp_path: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("palp_lab.study.sweeps._jobs", [Job(tmp_path, {"seed": "5"})])
    plain = ("imported.trigger='sks cat'", "generate.steps=1", "generate.seeds=2", "seed=5")
    for more in ("generate.first_seed=0", "generate.first_seed=2"):
        generate(compose_verb(micro_lab, "generate", f"adapters=[{kohya_file(micro_path, tmp_path)}]", *plain, more))
    one, two = (Path(line) for line in capsys.readouterr().out.strip().splitlines())
    assert one == two, "pictures of other seeds lie beside those of the same setting, to be scored with them"
    sentence = read_pictures(one)[0].sentence
    assert sorted(p.seed for p in read_pictures(one) if p.sentence == sentence) == [0, 1, 2, 3]
    assert "seed=5 has no effect on a saved adapter; generate.first_seed chooses pictures" in caplog.text
    assert main(["generate", "generate.first_seed=2"]) == 2
    assert "generate.first_seed=2: chooses what a saved adapter draws; name it" in capsys.readouterr().err
    assert main(["generate", "generate.first_seed=-1", "adapters=[x]"]) == 2
    assert "generate.first_seed=-1: must be at least 0" in capsys.readouterr().err


def test_a_saved_adapter_draws_sentences_of_ones_own_or_its_target(
    micro_lab: MicroLab,  # noqa: F811
    micro_path: Path,
    tmp_path: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    foreign = kohya_file(micro_path, tmp_path)
    how = ("imported.trigger='sks cat'", "generate.steps=1", "generate.seeds=1")
    words = ["a {} on a red sofa", "a sketch, of a {}"]
    generate(
        compose_verb(micro_lab, "generate", f"adapters=[{foreign}]", f"generate.prompts={json.dumps(words)}", *how)
    )
    drawn = read_pictures(Path(capsys.readouterr().out.strip()))
    assert sorted(picture.sentence for picture in drawn) == sorted(words)

    def said(*more: str) -> list[str]:
        config = compose_verb(micro_lab, "generate", "prompts=target", *more)
        return sentences_for(Path(config.adapters[0]), config)

    about = json.dumps({"target": "a {} in Paris", "superclass": "cat", "model": {"path": "tiny"}})
    save_file({"x": torch.zeros(1)}, tmp_path / "own.safetensors", {"schema": SCHEMA, "about": about})
    own = f"adapters=[{tmp_path / 'own.safetensors'}]"
    assert said(own) == ["a {} in Paris"], "what it was tuned for"
    asked = [(tmp_path / "own.safetensors", ["a {} in Paris"])] * 2
    say_all_unknown(asked, compose_verb(micro_lab, "generate", own, "model.path=elsewhere"))
    assert caplog.text.count("model=tiny does not know 'paris'") == 1, "the model its header names, once"
    caplog.clear()
    say_all_unknown([(foreign, ["a {} in Paris"])], compose_verb(micro_lab, "generate", "model.path=elsewhere"))
    assert not caplog.text, "no model of the tiny world"
    assert said(own, 'target="a {} at sea"') == ["a {} at sea"]
    with pytest.raises(UserError, match=r"there are none, and .* was tuned for no target"):
        said(f"adapters=[{foreign}]")
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        said(own.replace("own.safetensors", "nowhere"))
    with pytest.raises(UserError, match=r"generate\.prompts\[1\]: 'a dog' needs exactly one {}"):
        said(own, 'generate.prompts=["a {}","a dog"]')


@pytest.mark.parametrize("trouble", ["torn", "another base"])
def test_a_wrong_adapter_is_one_line_of_the_command(
    trouble: str, micro_path: Path, tmp_path: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = kohya_file(micro_path, tmp_path, 768 if trouble == "another base" else None)
    if trouble == "torn":
        path.write_bytes(path.read_bytes()[:-40])
    said = [f"adapters=[{path}]", f"model.path={micro_path}", "device=cpu", "imported.trigger=sks cat"]
    assert main(["generate", *said]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    wrong = "a damaged safetensors file" if trouble == "torn" else "it seems made for Stable Diffusion 1.x"
    assert len(lines) == 1 and lines[0].startswith(f"palp-lab: {path}: ") and wrong in lines[0]
    assert not list(output.rglob("*.png"))

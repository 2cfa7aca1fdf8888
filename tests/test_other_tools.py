"""Pictures of any other tool: their sentences, their errors, the same numbers as ours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from palp_lab.cli import main
from palp_lab.metrics.protocols import Protocol
from palp_lab.other_tools import as_sentence, read_foreign, score_folder
from palp_lab.pictures import png_bytes, write_pictures
from palp_lab.score import gather_references, score_records
from palp_lab.study.result import load_result, save_result
from palp_lab.types import UserError
from tests.dataset.pictures import photos
from tests.metrics.conftest import clip_path, noise_pictures, resnet_path  # noqa: F401
from tests.test_score import SENTENCES, Renders, measuring, pictures  # noqa: F401

AXES = {"method": "another tool", "dataset": "tiny", "concept": "test", "model": "sd14", "train_seed": 0}


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Four pictures by somebody else, two prompts."""
    prompts = {}
    for i, image in enumerate(noise_pictures(4, seed=77)):
        (tmp_path / f"out_{i}.png").write_bytes(png_bytes(image))
        prompts[f"out_{i}"] = "a photo of a cat in the snow" if i < 3 else "a sketch of a <v> cat"
    Image.open(tmp_path / "out_3.png").save(tmp_path / "out_3.webp", lossless=True)
    (tmp_path / "out_3.png").unlink()
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    return tmp_path


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("a photo of a cat in the snow", "a photo of a {} in the snow"),
        ("a photo of <v> at night", "a photo of {} at night"),
        ("a photo of a <v> cat at night", "a photo of a {} at night"),
        ("a {} by a cathedral", "a {} by a cathedral"),
        ("a cathedral and a cat", "a cathedral and a {}"),
        ("a cat next to a cat", "a {} next to a cat"),
        ("a sks cat in the snow", "a {} in the snow"),
        ("photo of a <new1> cat", "photo of a {}"),
        ("a photo of <s0><s1> at night", "a photo of {} at night"),
    ],
)
def test_prompts_get_their_slot_back(prompt: str, sentence: str) -> None:
    assert as_sentence(prompt, Renders().concept(), "here") == sentence


def test_the_word_that_was_made_up_for_the_subject_never_reaches_a_scorer(foreign: Path) -> None:
    """Given by hand, or known to the dataset that the pictures belong to."""
    concept = Renders().concept()
    path = foreign / "prompts.json"
    path.write_text(path.read_text().replace("a photo of a cat", "a photo of a zwx cat"))
    assert as_sentence("a zwx cat", concept, "here") == "a zwx {}"
    assert as_sentence("a zwx cat", replace(concept, token="zwx"), "here") == "a {}"
    sentences = {picture.sentence for picture in read_foreign(foreign, concept, "zwx cat")}
    assert sentences == {"a photo of a {} in the snow", "a sketch of a {}"}


def test_a_byte_order_mark_before_the_prompts(foreign: Path) -> None:
    """Editors of Windows write one."""
    path = foreign / "prompts.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert len(read_foreign(foreign, Renders().concept())) == 4


def test_a_prompt_without_the_class_word_is_one_line(foreign: Path) -> None:
    path = foreign / "prompts.json"
    path.write_text(path.read_text().replace("a photo of a cat", "a photo of a cathedral"))
    with pytest.raises(UserError, match=r"prompts\.json: out_0: .*class word 'cat'") as error:
        read_foreign(foreign, Renders().concept())
    assert "\n" not in str(error.value)


def test_pictures_and_prompts_must_name_each_other(foreign: Path) -> None:
    path, prompts = foreign / "prompts.json", json.loads((foreign / "prompts.json").read_text())
    path.write_text(json.dumps({**prompts, "out_9": "a cat"}))
    with pytest.raises(UserError, match="out_9 has no picture"):
        read_foreign(foreign, Renders().concept())
    path.write_text(json.dumps({k: v for k, v in prompts.items() if k != "out_1"}))
    with pytest.raises(UserError, match=r"no prompt for out_1\.png"):
        read_foreign(foreign, Renders().concept())
    path.unlink()
    with pytest.raises(UserError, match=r"out_0\.png: does not say what it shows; write .*prompts\.json"):
        read_foreign(foreign, Renders().concept())


def test_the_numbers_are_those_our_own_pictures_would_get(foreign: Path, measuring: Protocol) -> None:  # noqa: F811
    dataset, concept = Renders(), Renders().concept()
    result = score_folder(foreign, measuring, dataset, axes=AXES, target="a sketch of a {}")
    snow, sketch = result.records
    assert (snow.prompt, snow.picture_seeds) == ("a photo of a {} in the snow", (0, 1, 2))
    assert snow.images == ("out_0.png", "out_1.png", "out_2.png")
    assert (sketch.own_target, sketch.images) == (True, ("out_3.webp",))
    ours = score_records(
        measuring,
        concept,
        gather_references(dataset, concept, [snow.prompt]),
        read_foreign(foreign, concept)[:3],
        step=0,
    )
    assert ours[0].metrics == snow.metrics
    assert {b.name for b in result.bounds} == {"held_out_photos", "training_photos", "true_renders"}
    assert all(not b.images for b in result.bounds)
    assert load_result(save_result(result, foreign / "result.json")).records == result.records


def test_the_run_follows_the_pictures(foreign: Path, measuring: Protocol) -> None:  # noqa: F811
    first = score_folder(foreign, measuring, Renders(), axes=AXES)
    assert score_folder(foreign, measuring, Renders(), axes=AXES).run == first.run
    (foreign / "out_0.png").write_bytes(png_bytes(noise_pictures(1, seed=99)[0]))
    assert score_folder(foreign, measuring, Renders(), axes=AXES).run != first.run


def test_the_run_follows_what_the_pictures_are_compared_with(foreign: Path, measuring: Protocol) -> None:  # noqa: F811
    """One hash for two scorings and a report would take one of them for both."""
    first = score_folder(foreign, measuring, Renders(), axes=AXES)
    stripped = replace(measuring, strip="drop")
    aimed = score_folder(foreign, measuring, Renders(), axes=AXES, target="a sketch of a {}")
    later = score_folder(foreign, measuring, Renders(), axes=AXES, step=200)
    runs = {first.run, score_folder(foreign, stripped, Renders(), axes=AXES).run, aimed.run, later.run}
    assert len(runs) == 4
    concept = Renders().concept()
    other = Renders()
    other.concept = lambda: replace(concept, digest="other photos")  # type: ignore[method-assign]
    assert score_folder(foreign, measuring, other, axes=AXES).run != first.run


def test_several_settings_are_not_one_record(measuring: Protocol, tmp_path: Path) -> None:  # noqa: F811
    one, other = (pictures(SENTENCES[0], (seed,)) for seed in (3, 5))
    write_pictures(tmp_path, [*one, *(replace(p, knobs={**p.knobs, "guidance": 3.0}) for p in other)])
    with pytest.raises(UserError, match=r"some were drawn with guidance=7\.5, some with guidance=3\.0; score one"):
        score_folder(tmp_path, measuring, Renders(), axes=AXES)


def test_our_own_pictures_say_themselves_what_they_show(measuring: Protocol, tmp_path: Path) -> None:  # noqa: F811
    drawn = [p for sentence in SENTENCES for p in pictures(sentence, (3, 5))]
    write_pictures(tmp_path, [*drawn, *pictures("a photo of a dog", (0,))])
    read = read_foreign(tmp_path, Renders().concept())
    assert {(p.sentence, p.seed) for p in read} == {(p.sentence, p.seed) for p in drawn}, "drift needs the base model"
    result = score_folder(tmp_path, measuring, Renders(), axes=AXES)
    own = next(r for r in result.records if r.prompt == SENTENCES[0])
    assert (own.picture_seeds, own.knobs) == ((3, 5), {"guidance": 7.5})
    assert all((tmp_path / image).is_file() for image in own.images)


def folder_with(path: Path, trouble: str) -> Path:
    """A folder of pictures with one thing wrong."""
    folder = path / "mine"
    if trouble == "missing":
        return folder
    if trouble == "a file":
        folder.write_text("")
        return folder
    folder.mkdir()
    if trouble == "empty":
        return folder
    sizes = [(40, 40), (40, 48)] if trouble == "mixed sizes" else [(40, 40), (40, 40)]
    for name, size in zip("ab", sizes, strict=True):
        (folder / f"{name}.png").write_bytes(png_bytes(noise_pictures(1, size=size)[0]))
    words = {"a": "a photo of a cat", "b": "a photo of a cat"}
    if trouble == "corrupt":
        (folder / "b.png").write_bytes(b"not a picture")
    if trouble == "one name":
        Image.open(folder / "a.png").save(folder / "a.jpg")
    if trouble == "two slots":
        words["b"] = "a {} and a {}"
    if trouble != "no prompts":
        (folder / "prompts.json").write_text("[" if trouble == "damaged" else json.dumps(words))
    return folder


TROUBLES = {
    "missing": "no such folder",
    "a file": "is a file; give the folder",
    "empty": "holds no pictures",
    "no prompts": "a.png: does not say what it shows; write",
    "corrupt": "cannot be read as a picture",
    "damaged": "prompts.json",
    "one name": "a.jpg and a.png have one name",
    "two slots": "has 2 slots",
    "mixed sizes": "a.png is 40 x 40, b.png is 48 x 40, both of 'a photo of a {}'",
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_bad_folder_is_one_line_that_names_it(trouble: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, trouble)
    with pytest.raises(UserError) as error:
        read_foreign(folder, Renders().concept())
    said = str(error.value)
    assert "\n" not in said and TROUBLES[trouble] in said and str(folder) in said


@pytest.mark.parametrize("trouble", ["missing", "no prompts", "mixed sizes"])
def test_the_command_says_so_before_it_loads_a_network(
    trouble: str,
    tmp_path: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("palp_lab.study.sweeps._jobs", [])
    folder = folder_with(tmp_path, trouble)
    words = ["score", f"images={folder}", "model=sd15", "dataset.superclass=cat", "metrics.embedders.clip.path=nowhere"]
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("palp-lab: ") and TROUBLES[trouble] in lines[0]


@pytest.mark.parametrize("given", [(), ("labels.model=null",)])
def test_pictures_of_no_base_model_are_refused(
    given: tuple[str, ...],
    tmp_path: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("palp_lab.study.sweeps._jobs", [])
    folder = folder_with(tmp_path, "nothing")
    assert main(["score", f"images={folder}", "dataset.superclass=cat", *given]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"images={folder}: nothing says which base model drew" in line and "add model=sd15" in line
    assert not (folder / "result.json").exists()


@pytest.mark.parametrize(("given", "filed"), [("model=sd15", "sd15"), ("labels.model=flux", "flux")])
def test_the_command_scores_a_folder(
    given: str,
    filed: str,
    tmp_path: Path,
    clip_path: Path,  # noqa: F811
    resnet_path: Path,  # noqa: F811
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("palp_lab.study.sweeps._jobs", [])  # what the command leaves behind ends with this test
    folder = folder_with(tmp_path, "nothing")
    assert main([
        "score", f"images={folder}", given, 'labels.method="mine, 2"', "dataset.superclass=cat", "dataset.shots=1",
        "device=cpu", f"metrics.embedders.clip.path={clip_path}", f"metrics.embedders.identity.path={resnet_path}",
        "metrics.reader=null",
    ]) == 0  # fmt: skip
    result = load_result(folder / "result.json")
    assert (result.axes["method"], result.records[0].metrics["text_alignment"].n) == ("mine, 2", 2)
    assert result.axes["model"] == filed
    assert result.records[0].metrics["elements"].value is None


def test_without_a_model_photos_are_scaled_to_the_size_of_the_pictures(
    tmp_path: Path,
    clip_path: Path,  # noqa: F811
    resnet_path: Path,  # noqa: F811
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The preset that nobody chose is the embedded one, whose 64 px would blur every photo."""
    monkeypatch.setattr("palp_lab.study.sweeps._jobs", [])
    folder = folder_with(tmp_path, "nothing")
    photos(tmp_path / "photos", 2)
    assert main([
        "score", f"images={folder}", "labels.model=flux", "labels.method=mine", "dataset=folder", "metrics=tiny",
        f"dataset.path={tmp_path / 'photos'}", "dataset.superclass=cat", "device=cpu", "metrics.reader=null",
        f"metrics.embedders.clip.path={clip_path}", f"metrics.embedders.identity.path={resnet_path}",
    ]) == 0  # fmt: skip
    result = load_result(folder / "result.json")
    assert [picture["side"] for picture in result.data["pictures"]] == [40, 40]

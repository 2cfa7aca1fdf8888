from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from palp_lab.cli import main
from palp_lab.diffusion.sampler import sample
from palp_lab.export import export_adapter
from palp_lab.formats.card import find_result
from palp_lab.formats.writing import EMBEDDING, KOHYA
from palp_lab.model import open_model
from palp_lab.model.base import TextCond
from palp_lab.model.pipeline import stock_pipeline
from palp_lab.model.unet import UNetModel
from palp_lab.saved_adapters import rebuild
from palp_lab.study.result import MetricValue, Protocol, Record, Result, load_result, save_result
from palp_lab.types import UserError
from tests.contracts.parts import adapter, train_a_little
from tests.micro import build
from tests.model import sd3_pipelines
from tests.model.original_layout import one_file

SENTENCE = "a sketch of {} in paris"


def draw(one, guidance: float = 5.0) -> torch.Tensor:
    """Pictures of a sentence with the adapter on, by our loop."""
    model = one.model
    with torch.no_grad():
        cond, empty = one.encode([SENTENCE]), model.unconditional(1)
    noise = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(4))

    def predict(x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), TextCond.cat([empty, cond])).raw
        return rows[1:], rows[:1]

    with torch.no_grad():
        return sample(predict, model.scheduler("ddim"), noise, 5, guidance)


def test_lora_and_embedding_are_written_with_alpha_and_a_card(micro: UNetModel, tmp_path: Path) -> None:
    one = adapter(micro, rank=4, alpha=3.0)
    train_a_little(one)
    about = {"model": {"path": "owner/name"}, "target": SENTENCE}
    assert export_adapter(one, tmp_path, about) == ["pytorch_lora_weights.safetensors", EMBEDDING, "README.md"]
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as file:
        assert json.loads(file.metadata()["lora_adapter_metadata"])["unet.lora_alpha"] == 3
        assert all(name.startswith("unet.") for name in list(file.keys()))
    assert load_file(tmp_path / EMBEDDING)["<v>"].shape == (1, 16)
    card = (tmp_path / "README.md").read_text()
    for line in ('from_pretrained("owner/name")', "load_lora_weights", "load_textual_inversion", SENTENCE, "<v>"):
        assert line in card
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "owner/name" and front["license"] is None and "lora" in front["tags"]
    assert "Not measured" in card


@pytest.mark.parametrize(
    ("model", "line", "origin"),
    [
        (
            {"path": "owner/name", "revision": "v2", "variant": "fp16", "config": None},
            'from_pretrained("owner/name", variant="fp16", revision="v2")',
            "owner/name",
        ),
        (
            {"path": "mine.safetensors", "config": "owner/name", "revision": "v2", "variant": None},
            'from_single_file("{here}/mine.safetensors", config="owner/name", revision="v2")',
            "owner/name",
        ),
        (
            {"path": "mine.safetensors", "config": "folder"},
            'from_single_file("{here}/mine.safetensors", config="{here}/folder")',
            None,
        ),
        ({"path": "folder"}, 'from_pretrained("{here}/folder")', None),
    ],
    ids=["hub id", "file and hub id", "file and folder", "folder"],
)
def test_a_card_opens_the_base_as_it_was_opened(
    model: dict[str, str | None],
    line: str,
    origin: str | None,
    micro: UNetModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights in one file by that file, a hub id at its revision, what is on this disk from wherever one stands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.safetensors").touch()
    (tmp_path / "folder").mkdir()
    export_adapter(adapter(micro, rank=2), tmp_path / "out", {"model": model}, format="lora")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"StableDiffusionPipeline.{line.replace('{here}', str(tmp_path))}\n" in card
    assert yaml.safe_load(card.split("---")[1])["base_model"] == origin, "nobody else has a path of this disk"


def test_a_card_tells_the_protocol_and_the_scores(micro: UNetModel, tmp_path: Path) -> None:
    cell = tmp_path / "cell"
    result = result_of({SENTENCE: 0.25, "a photo of {}": 0.5, "a photo of a dog": 0.75}, target=SENTENCE)
    save_result(result, cell / "result.json")
    (cell / "adapter").mkdir()
    found = find_result(cell / "adapter" / "adapter.safetensors")
    assert found == find_result(cell) == cell / "result.json"
    export_adapter(adapter(micro, edits="none"), tmp_path / "out", {"step": 5}, result=load_result(found))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Protocol `micro`, version 1; means over n prompts at step 5." in card
    assert "| text_alignment | 0.250 (n = 1) | 0.500 (n = 1) | 0.750 (n = 1) |" in card
    assert "0.900" not in card, "another step's"


def result_of(values: dict[str, float], target: str) -> Result:
    records = [
        Record(step, prompt, {"text_alignment": MetricValue("image", value if step == 5 else 0.9, None, 1)},
               target=target, own_target=prompt == target)
        for step in (2, 5)
        for prompt, value in values.items()
    ]  # fmt: skip
    axes = {"method": "palp", "dataset": "tiny", "concept": "mia", "model": "micro", "train_seed": 0}
    return Result("run", axes, tuple(records), protocol=Protocol("micro", "1"))


def test_tensors_are_as_small_as_they_are_asked_for(micro: UNetModel, tmp_path: Path) -> None:
    one = adapter(micro, rank=2)
    export_adapter(one, tmp_path, format=["kohya", "embedding"], dtype=torch.float16)
    tensors = load_file(tmp_path / KOHYA)
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert all(name.startswith("lora_unet_") for name in tensors)
    assert load_file(tmp_path / EMBEDDING)["<v>"].dtype == torch.float32


def test_a_second_export_of_the_same_adapter_leaves_a_card_of_both(micro: UNetModel, tmp_path: Path) -> None:
    one, about = adapter(micro, rank=2), {"model": {"path": "owner/name"}, "digest": "0123abcd"}
    export_adapter(one, tmp_path, about, format="lora")
    export_adapter(adapter(micro, rank=2), tmp_path, about, format=["embedding", "kohya"])
    card = (tmp_path / "README.md").read_text()
    assert 'load_lora_weights(".")' in card and KOHYA in card and "load_textual_inversion" in card
    export_adapter(adapter(micro, rank=2), tmp_path, {**about, "digest": "another"}, format="kohya")
    card = (tmp_path / "README.md").read_text()
    assert 'load_lora_weights(".")' not in card, "those files are another adapter's"


def test_a_word_alone_says_how_it_is_loaded_and_what_it_lacks(micro: UNetModel, tmp_path: Path) -> None:
    export_adapter(adapter(micro, rank=2), tmp_path, {"model": {"path": "owner/name"}}, format="embedding")
    card = (tmp_path / "README.md").read_text()
    assert "## Load" in card and "load_textual_inversion" in card and "the network was edited as well" in card


def test_per_site_vectors_say_that_diffusers_has_no_loader(micro: UNetModel, tmp_path: Path) -> None:
    one = adapter(micro, tokens="per_layer", edits="none")
    assert export_adapter(one, tmp_path) == [EMBEDDING, "README.md"]
    assert len(load_file(tmp_path / EMBEDDING)) == len(micro.sites)
    assert "no loader" in (tmp_path / "README.md").read_text()


def test_a_format_the_recipe_cannot_give_names_those_it_can(micro: UNetModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="format=lora: this recipe gives custom_diffusion, embedding, pipeline"):
        export_adapter(adapter(micro, edits="key_value"), tmp_path, format="lora")
    assert not list(tmp_path.iterdir())


def test_a_recipe_that_learns_nothing_is_refused(micro: UNetModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="learns nothing"):
        export_adapter(adapter(micro, tokens="rare", edits="none"), tmp_path)


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_trained(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[object] = []
    monkeypatch.setattr("palp_lab.export._trained", trained.append)
    (tmp_path / "file").write_text("")
    assert main(["export", f"to={tmp_path / 'file' / 'inside'}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"to={tmp_path / 'file' / 'inside'}: cannot be written to (Not a directory); give another folder" in line
    assert not trained


def about_of(path: Path | str, tokens: str, edits: str) -> dict[str, object]:
    nodes = {
        "model": {"_target_": "palp_lab.model.open_model", "path": str(path)},
        "tokens": {"_target_": f"palp_lab.tokens.{tokens}.{TOKENS[tokens]}"},
        "edits": {"_target_": f"palp_lab.edits.{edits}.{EDITS[edits]}"},
    }
    return {**nodes, "superclass": "cat", "placeholder": "<v>", "concept": "mia"}


TOKENS = {"learned": "LearnedTokens", "per_layer": "PerLayerTokens", "rare": "RareTokens"}
EDITS = {"none": "NoEdits", "lora": "LoraEdits", "full": "FullEdits", "key_value": "KeyValueEdits"}


def test_an_adapter_is_rebuilt_from_its_own_description(micro_path: Path, tmp_path: Path) -> None:
    about = about_of(micro_path, "learned", "lora")
    one = rebuild(about)
    train_a_little(one)
    from palp_lab.adapter import read_adapter

    tensors, read = read_adapter(one.save(tmp_path, about))
    other = rebuild(read)
    other.load_tensors(tensors)
    assert torch.equal(draw(one), draw(other))
    with pytest.raises(UserError, match="edits"):
        rebuild({key: value for key, value in about.items() if key != "edits"})


def test_an_adapter_of_other_weights_of_the_same_shape_is_refused(micro_path: Path, tmp_path: Path) -> None:
    about = about_of(micro_path, "learned", "none")
    own = {"fingerprint": rebuild(about).model.fingerprint, "dtype": "torch.float32"}
    rebuild({**about, **own})
    other = build(tmp_path / "other", seed=7)
    with pytest.raises(UserError, match=r"model\.path=.*other: holds other weights"):
        rebuild({**about_of(other, "learned", "none"), **own})


IN_NEW_PROCESS = """
import json, sys
import torch
from safetensors.torch import save_file
from palp_lab.adapter import read_adapter
from pathlib import Path
from palp_lab.saved_adapters import rebuild
from tests.test_export import draw
found = {}
for name in json.loads(sys.argv[2]):
    tensors, about = read_adapter(Path(sys.argv[1]) / name / "adapter.safetensors")
    one = rebuild(about)
    one.load_tensors(tensors)
    found[name] = draw(one)
save_file(found, sys.argv[3])
"""

PLAIN_DIFFUSERS = """
import json, os, re, sys
from pathlib import Path
import torch
from diffusers import DDIMScheduler
from safetensors.torch import save_file
found = {}
for name, (folder, prompt, shape) in json.loads(sys.argv[1]).items():
    os.chdir(folder)
    for i, block in enumerate(re.findall("```python\\n(.*?)```", Path("README.md").read_text(), re.S)):
        said = {}
        exec("\\n".join(block.strip().splitlines()[:-1]), said)
        pipe = said["pipe"]
        if not type(pipe.scheduler).__name__.startswith("FlowMatch"):
            pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(4))
        found[f"{name}/{i}"] = pipe(
            prompt, latents=noise, num_inference_steps=5, guidance_scale=5.0, output_type="latent"
        ).images
assert "palp_lab" not in sys.modules
save_file(found, sys.argv[2])
"""


def run(script: str, *arguments: object) -> None:
    command = [sys.executable, "-c", script, *(str(argument) for argument in arguments)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]


def saved(micro_path: Path, folder: Path, pairs: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
    """Saves a trained adapter for each pair of tokens and edits; returns our pictures of them."""
    wanted = {}
    for tokens, edits in pairs:
        name, about = f"{tokens}-{edits}", about_of(micro_path, tokens, edits)
        one = rebuild(about)
        train_a_little(one)
        one.save(folder / name, about)
        wanted[name] = draw(one)
        one.detach()
    return wanted


@pytest.mark.slow
def test_a_new_process_draws_the_same_picture_from_a_saved_adapter(micro_path: Path, tmp_path: Path) -> None:
    pairs = [
        ("learned", "lora"),
        ("learned", "none"),
        ("rare", "full"),
        ("learned", "key_value"),
        ("per_layer", "none"),
    ]
    wanted = saved(micro_path, tmp_path, pairs)
    run(IN_NEW_PROCESS, tmp_path, json.dumps(list(wanted)), tmp_path / "found.safetensors")
    found = load_file(tmp_path / "found.safetensors")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert len({tuple(picture.flatten()[:8].tolist()) for picture in wanted.values()}) == len(wanted)


UNET = {
    ("learned", "lora", False): 4,
    ("learned", "lora", True): 4,
    ("learned", "none", False): 2,
    ("rare", "full", True): 1,
    ("learned", "key_value", False): 2,
}
"""Recipes, with or without the text encoder, and in how many ways their cards load them."""
ONE_FILE = {("learned", "lora", True): 4, ("learned", "none", False): 2}
FLOW = {("rare", "lora", False): 3, ("rare", "lora", True): 3, ("rare", "full", True): 1}
TOLD = {("learned", "lora", False): 4, ("rare", "full", False): 1}
EXPORTS = {
    "sd": UNET,
    "sd_told": TOLD,
    "sdxl_marked_file": ONE_FILE,
    "sdxl": UNET,
    "sd_file": ONE_FILE,
    "sdxl_file": ONE_FILE,
    "sd3": FLOW,
    "sd3_t5": FLOW,
}
"""The same by family, what its weights lie in, and who says what its UNet says: the scheduler's file, the user, or
marks in the file."""


@pytest.fixture
def base_model(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, object]:
    """What a configuration says of the random pipeline of a family; sd3 leaves T5 out of a folder that has one."""
    if family.startswith("sd3"):
        return {"path": str(sd3_pipelines.build(tmp_path / "sd3")), "t5": family == "sd3_t5"}
    folder = request.getfixturevalue("micro_sdxl_path" if family.startswith("sdxl") else "micro_path")
    if family == "sd_told":  # as Stable Diffusion 1.4's own scheduler file, silent on what the UNet says
        folder = shutil.copytree(folder, tmp_path / "sd")
        said = json.loads((file := folder / "scheduler" / "scheduler_config.json").read_text())
        file.write_text(json.dumps({key: value for key, value in said.items() if key != "prediction_type"}))
        return {"path": str(folder), "prediction": "v_prediction"}
    if not family.endswith("_file"):
        return {"path": str(folder)}
    marks = {name: torch.zeros(0) for name in ("v_pred", "ztsnr") if "marked" in family}
    save_file(one_file(stock_pipeline(open_model(folder))) | marks, tmp_path / "model.safetensors")
    return {"path": str(tmp_path / "model.safetensors"), "config": str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize("family", EXPORTS)
def test_what_the_card_says_draws_our_picture(family: str, base_model: dict[str, object], tmp_path: Path) -> None:
    """Every format, loaded by the lines of its own card in a process that knows diffusers and peft alone."""
    wanted, jobs = {}, {}
    for (tokens, edits, text), ways in EXPORTS[family].items():
        name, about = f"{tokens}-{edits}-{text}", about_of(str(base_model["path"]), tokens, edits)
        about["model"] |= base_model  # type: ignore[operator]
        about["edits"] |= {"text_encoder": True} if text else {}  # type: ignore[operator]
        about["edits"] |= {"rank": 2, "alpha": 3.0} if edits == "lora" else {}  # type: ignore[operator]
        about["edits"] |= {"targets": WIDE} if edits == "lora" and "sd3" not in family else {}  # type: ignore[operator]
        about["tokens"] |= {"num_vectors": 2} if tokens == "learned" else {}  # type: ignore[operator]
        one = rebuild(about)
        train_a_little(one)
        with one.off():
            base = draw(one)
        wanted[name] = draw(one)
        if edits != "none":
            assert float((wanted[name] - base).abs().max()) > 0.02
        prompt = one.concept.fill(SENTENCE, one.tokens.call(one.concept))
        export_adapter(one, tmp_path / name, about, "all")
        assert (tmp_path / name / "README.md").read_text().count("```python") == ways
        jobs[name] = (str(tmp_path / name), prompt, one.model.latent_shape)
    run(PLAIN_DIFFUSERS, json.dumps(jobs), tmp_path / "found.safetensors")
    found = load_file(tmp_path / "found.safetensors")
    assert len(found) == sum(EXPORTS[family].values())
    for name, picture in found.items():
        torch.testing.assert_close(picture, wanted[name.split("/")[0]], rtol=1e-3, atol=1e-4, msg=name)


WIDE = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in", "ff.net.2"]


def test_a_foreign_safetensors_file_is_no_adapter(tmp_path: Path) -> None:
    from palp_lab.adapter import read_adapter

    path = tmp_path / "adapter.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="schema"):
        read_adapter(path)
    path.write_bytes(b"not one")
    with pytest.raises(UserError, match="not a"):
        read_adapter(path)
    with pytest.raises(UserError, match="nowhere"):
        read_adapter(tmp_path / "nowhere")


def test_an_adapter_of_a_later_version_is_ours_and_says_so(tmp_path: Path) -> None:
    from palp_lab.adapter import is_own, read_adapter

    path = tmp_path / "mine.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"schema": "palp_lab.adapter/9"})
    assert is_own(path)
    with pytest.raises(UserError, match=r"schema is 'palp_lab\.adapter/9'"):
        read_adapter(path)
    save_file({"a": torch.zeros(1)}, path)
    assert not is_own(path)

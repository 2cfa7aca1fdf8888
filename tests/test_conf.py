"""The configuration: every choice composes, every key is read, every number has a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from palp_lab import training
from palp_lab.build import ALLOWED, FACTORIES, build, build_all, build_device, build_dtype, check_fit, locate
from palp_lab.cli_help import VERBS, groups, keys
from palp_lab.composition import compose, compose_as_written, conf_folder
from palp_lab.dataset.captions import read_captions
from palp_lab.model import choose_device, open_model, synchronize
from palp_lab.schema import check, drop_strangers
from palp_lab.types import Capability, UserError

CONF = conf_folder()
PACKAGE = Path(__file__).parents[1] / "palp_lab"
FILES = sorted(p for p in CONF.rglob("*.yaml"))
PARTS = ("tokens", "edits", "losses")
"""Groups whose files mirror the modules of the package of the same name."""

BY_RUN = {
    "model",
    "dataset",
    "tokens",
    "edits",
    "losses",
    "optimizer",
    "trainer",
    "prompts",
    "metrics",
    "logger",
    "method",
    "debug",
}
"""Groups the main job chooses from."""


def choices() -> list[tuple[str, str]]:
    return [(group, choice) for group, names in groups(CONF).items() if group in BY_RUN for choice in names]


def own_header(path: Path) -> str:
    return path.read_text(encoding="utf-8")[:400]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_configuration_and_a_module(verb: str) -> None:
    config = compose(verb)
    assert config.verb == verb
    assert (PACKAGE / f"{verb}.py").is_file()


@pytest.mark.parametrize(("group", "choice"), choices())
def test_every_choice_composes_and_every_key_is_read(group: str, choice: str) -> None:
    value = f"[{choice}]" if group == "losses" else choice
    config = compose("run", f"{group}={value}")
    with open_dict(config):  # what only the user can give may be missing here
        for key in OmegaConf.missing_keys(config):
            OmegaConf.update(config, key, None)
    check(config)


@pytest.mark.parametrize("choice", groups(CONF).get("study", []))
def test_every_study_composes(choice: str) -> None:
    config = compose("run", f"study={choice}")
    with open_dict(config):  # where the user's data lies
        for key in OmegaConf.missing_keys(config):
            OmegaConf.update(config, key, None)
    check(config)


@pytest.mark.parametrize("choice", groups(CONF).get("study", []))
def test_a_study_has_the_last_word(choice: str) -> None:
    """Its ledger and its report too: what a verb says of them are defaults."""
    config = OmegaConf.to_container(compose("run", f"study={choice}"))
    wanted: Any = OmegaConf.to_container(OmegaConf.load(CONF / "study" / f"{choice}.yaml"))
    said = list(flat({key: value for key, value in wanted.items() if key not in ("defaults", "hydra")}))
    assert said or "defaults" in wanted
    for path, value in said:
        assert reduce(lambda node, key: node[key], path, config) == value, ".".join(path)


def flat(node: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, (*above, key))
        else:
            yield (*above, key), value


PUBLISHED: dict[str, dict[str, object]] = {
    # arXiv 2401.06105, appendix C
    "palp": {
        "trainer.max_steps": 500,
        "trainer.batch_size": 32,
        "optimizer.lr": 5e-5,
        "edits.rank": 32,
        "losses.prompt_alignment.alpha": 15.0,
        "losses.prompt_alignment.beta": 7.5,
        "losses.prompt_alignment.noise": "same",
        "losses.prompt_alignment.rescale": True,
        "captions": ["a photo of {}"],
    },
    "ti_db": {"trainer.max_steps": 500, "trainer.batch_size": 32, "optimizer.lr": 5e-5, "edits.rank": 32},
    # arXiv 2208.12242, sections 3 and 4
    "dreambooth": {
        "trainer.max_steps": 1000,
        "optimizer.lr": 5e-6,
        "losses.prior_preservation.weight": 1.0,
        "losses.prior_preservation.count": 1000,
        "captions": ["a {}"],
    },
    # the released configuration of arXiv 2208.01618 for Stable Diffusion
    "textual_inversion": {"trainer.max_steps": 6100, "trainer.batch_size": 2, "optimizer.token_lr": 1e-2},
    # arXiv 2303.09522
    "p_plus": {"trainer.max_steps": 500, "trainer.batch_size": 8, "optimizer.token_lr": 5e-3},
    # arXiv 2212.04488 and its released code
    "custom_diffusion": {
        "trainer.max_steps": 250,
        "trainer.batch_size": 4,
        "optimizer.lr": 8e-5,
        "losses.prior_preservation.count": 200,
    },
}


@pytest.mark.parametrize("method", sorted(PUBLISHED))
def test_stable_diffusion_alone_gives_the_papers_numbers(method: str) -> None:
    config = compose("run", "model=sd14", f"method={method}")
    for key, value in PUBLISHED[method].items():
        assert OmegaConf.select(config, key) == value, key


@pytest.mark.parametrize("path", sorted((CONF / "tuning").glob("tiny_[!s]*.yaml")), ids=lambda p: p.stem)
def test_what_is_tuned_for_another_base_says_whose_it_is(path: Path) -> None:
    """Every tuned number is marked ours (the small pipeline's files take the larger one's)."""
    numbers = [line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"\s+\w+:\s*[-\d.]", line)]
    assert numbers or re.search(r"^defaults:", path.read_text(encoding="utf-8"), re.M), (
        "a tuning file that tunes nothing"
    )
    assert not [line for line in numbers if "# ours" not in line]


def test_losses_are_a_list_of_words_and_each_lands_under_its_own_name() -> None:
    config = compose("run", "losses=[reconstruction,prompt_alignment]")
    assert list(config.losses) == ["reconstruction", "prompt_alignment"]
    assert all("_target_" in node for node in config.losses.values())


def test_no_package_line_makes_a_loss_vanish() -> None:
    """With `# @package _group_._name_` the last loss of a list silently replaces the others."""
    assert not [p for p in FILES if re.search(r"@package\s+_group_", own_header(p))]


@pytest.mark.parametrize("group", PARTS)
def test_a_part_has_one_file_here_and_one_module_there(group: str) -> None:
    """conf/losses/ewc.yaml <-> palp_lab/losses/ewc.py; an alias names a module that has its own file too."""
    modules = {p.stem for p in (PACKAGE / group).glob("*.py")} - {"__init__", "base"}
    named = set()
    for path in sorted((CONF / group).glob("*.yaml")):
        targets = re.findall(r"_target_:\s*(\S+)", path.read_text(encoding="utf-8"))
        if not targets:
            assert "override" in path.read_text(encoding="utf-8") or "defaults" in path.read_text(encoding="utf-8"), (
                path
            )
            continue
        package, module = targets[0].split(".")[1:3]
        assert package == group, f"{path}: {targets[0]}"
        assert path.stem == module or module in {p.stem for p in (CONF / group).glob("*.yaml")}, f"{path}: {targets[0]}"
        named.add(module)
    assert named == {
        m
        for m in modules
        if re.search(r"^class (?!Abstract)\w+\(Abstract", (PACKAGE / group / f"{m}.py").read_text(), re.M)
    }


OURS = [path for path in FILES if path.relative_to(CONF).parts[0] != "hydra"]
"""What Hydra's own groups name, Hydra builds."""


@pytest.mark.parametrize("path", OURS, ids=lambda p: str(p.relative_to(CONF)))
def test_every_target_is_allowed_and_there(path: Path) -> None:
    for target in re.findall(r"^\s*_target_:\s*(\S+)", path.read_text(encoding="utf-8"), re.M):
        assert target.startswith(ALLOWED)
        assert locate(target, path.stem) is not None


NUMBERED = ("optimizer", "trainer", "losses", "edits", "tokens", "method", "tuning")


SOURCE = re.compile(
    r"arXiv|\b[Oo]urs\b|torch's|diffusers'|\breleased\b|ibid|usual value|usual rate|the paper|experiments/|kohya|"
    r"as in tiny_"
)


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent.name in NUMBERED or p.parent == CONF], ids=lambda p: str(p.relative_to(CONF))
)
def test_every_number_has_a_reason(path: Path) -> None:
    """A line that sets a number names its source or says it is ours, there or in the comment right above or below."""
    lines = path.read_text(encoding="utf-8").splitlines()
    bare = [
        line
        for at, line in enumerate(lines)
        if re.match(r"\s*\w+:\s*[\d.]+(e[-+]?\d+)?\s*(#|$)", line)
        and not SOURCE.search(" ".join([line.partition("#")[2], *comment(lines[:at][::-1]), *comment(lines[at + 1 :])]))
    ]
    assert not bare, f"{path}: {bare}"


def comment(lines: Sequence[str]) -> list[str]:
    """Lines of comment with which they begin."""
    return list(takewhile(lambda line: line.strip().startswith("#"), lines))


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "method"], ids=lambda p: p.stem)
def test_a_recipe_is_global_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "@package _global_" in own_header(path)
    assert "arXiv" in text
    assert "palp-lab " in text, "the header shows the command"


def unknown(config: DictConfig, key: str, value: Any) -> str:
    with open_dict(config):
        OmegaConf.update(config, key, value, force_add=True)
    with pytest.raises(UserError) as caught:
        check(config)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("trainer.max_stps", 3, "did you mean trainer.max_steps?"),
        ("sed", 3, "did you mean seed?"),
        ("losses.reconstruction.wieght", 3, "did you mean losses.reconstruction.weight?"),
        ("edits.rnak", 3, "did you mean edits.rank?"),
        ("log.evry", 3, "did you mean log.every?"),
        ("trainer.batch_size", "large", "trainer.batch_size='large': must be a whole number"),
        ("dry_run", 1, "must be true or false"),
        ("trainer.max_steps", None, "must be a whole number"),
        ("checkpoints", 5, "must be a list"),
        ("generate", 5, "generate is a group of keys"),
    ],
)
def test_a_wrong_key_or_kind_is_named_with_the_nearest(key: str, value: Any, said: str) -> None:
    assert said in unknown(compose("run"), key, value)


def test_a_value_that_must_be_given_is_named() -> None:
    config = compose("run")
    OmegaConf.update(config, "dataset.seed", "???")
    with pytest.raises(UserError, match=r"dataset\.seed has no value: add dataset\.seed="):
        check(config)


def test_a_replaced_part_does_not_inherit_the_recipe_s_numbers() -> None:
    """palp gives its low-rank edits a rank; the full fine-tuning that replaces them has none."""
    assert "rank" not in compose("run", "method=palp", "edits=full").edits
    config = compose_as_written("run", "method=palp", "edits=full")
    assert "edits.rank" in drop_strangers(config, ["method=palp", "edits=full"])
    assert "rank" not in config.edits
    check(config)


@pytest.mark.parametrize("method", ["custom_diffusion", "rare_adjective"])
def test_replaced_words_do_not_inherit_the_recipe_s_phrase(method: str) -> None:
    """These recipes call the subject by its placeholder; a rare word is none."""
    assert compose("run", f"method={method}").tokens.phrase == "{placeholder} {superclass}"
    assert compose("run", f"method={method}", "tokens=rare").tokens.phrase == "{word} {superclass}"
    told = compose("run", f"method={method}", "tokens=rare", 'tokens.phrase="my {word} {superclass}"')
    assert told.tokens.phrase == "my {word} {superclass}"
    assert compose("run", f"method={method}", "tokens=per_layer").tokens.phrase == "{placeholder} {superclass}"


def test_an_alias_of_a_loss_is_what_it_says_or_refused() -> None:
    def reference(*words: str) -> str:
        return str(compose("run", *words).losses.prompt_alignment.reference)

    assert reference("method=palp", "losses=[reconstruction,sds]") == "noise"
    assert reference("method=palp", "losses=[reconstruction,dds]") == "personal"
    for alias, said in (("sds", "noise"), ("dds", "personal")):
        words = ["method=palp_nfsd", f"losses=[reconstruction,{alias}]"]
        with pytest.raises(UserError, match=rf"{alias}\]: the recipe says losses.prompt_alignment.reference=nfsd"):
            reference(*words)
        assert reference(*words, f"losses.prompt_alignment.reference={said}") == said


@pytest.mark.parametrize("model", ["tiny", "tiny_small", "tiny_flow", "tiny_flow_unet"])
def test_the_baseline_with_the_term_added_is_palp(model: str) -> None:
    added = compose("run", "method=ti_db", f"model={model}", "losses=[reconstruction,prompt_alignment]")
    palp = compose("run", "method=palp", f"model={model}")
    for part in ("losses", "tokens", "edits", "optimizer", "trainer", "augment", "captions", "stages"):
        assert added[part] == palp[part], part


def test_a_loss_that_was_left_out_does_not_come_back_with_its_tuning() -> None:
    config = compose("run", "method=palp", "losses=[reconstruction]")
    assert list(config.losses) == ["reconstruction"]


def test_what_the_command_line_says_is_never_dropped() -> None:
    config = compose("run", "method=palp", "edits=full", "edits.rank=3")
    drop_strangers(config, ["method=palp", "edits=full", "edits.rank=3"])
    with pytest.raises(UserError, match=r"edits\.rank: .* takes no such key"):
        check(config)
    with pytest.raises(UserError, match="this loss is not in use; add it"):
        compose("run", "losses=[reconstruction]", "losses.prompt_alignment.weight=0")


@pytest.mark.parametrize("verb", ["train", "generate", "score"])
def test_a_study_can_be_read_by_a_stage_alone(verb: str) -> None:
    """Its ledger and its report belong to `run`; what the command line says is still answered."""
    config = compose(verb, "study=palp_vs_ti_db_a")
    check(config)
    assert config.trainer.max_steps == 350 and "ledger" not in config and "report" not in config
    with pytest.raises(UserError, match="ledger: no such key"):
        check(compose(verb, "+ledger=mine.jsonl"))


@pytest.mark.parametrize("choice", groups(CONF).get("method", []))
def test_a_recipe_gives_its_own_parts_no_strange_keys(choice: str) -> None:
    for model in groups(CONF)["model"]:
        config = compose_as_written("run", f"method={choice}", f"model={model}")
        # A tuning may say how a loss is weighed where it is added on the command line.
        assert set(drop_strangers(config, [])) <= {"losses.prompt_alignment"}


@pytest.mark.parametrize(
    "method", ["p_plus", "custom_diffusion", "dreambooth", "dreambooth_lora", "rare_adjective", "textual_inversion"]
)
@pytest.mark.parametrize("model", ["tiny", "tiny_small"])
def test_an_added_term_is_weighed_as_in_palp_on_this_model(method: str, model: str) -> None:
    added = compose("run", f"method={method}", f"model={model}", "losses=[reconstruction,prompt_alignment]")
    palp = compose("run", "method=palp", f"model={model}")
    assert added.losses.prompt_alignment == palp.losses.prompt_alignment


def test_a_null_switches_off_what_may_be_null() -> None:
    check(compose("run", "trainer.gradient_clip=2", "trainer.ema=0.99"))
    check(compose("run", "target=null"))
    check(compose("run", "trainer.gradient_clip=null"))


def documented() -> list[tuple[str, str]]:
    """(verb, words): what the comment beside a plain key says it may be, null or one of several words, as a command."""
    found = []
    by_run = [path for group in BY_RUN for path in sorted((CONF / group).glob("*.yaml"))]
    files = [(verb, path) for verb in VERBS for path in (CONF / f"{verb}.yaml", CONF / "base.yaml")]
    for verb, path in [*files, *(("run", path) for path in by_run)]:
        group = path.parent.name
        above, chosen = ("", "") if path.parent == CONF else (f"{group}.", f"{group}={path.stem} ")
        if re.search("^_target_", path.read_text(encoding="utf-8"), re.M):
            continue  # what a constructor takes, it says itself
        own = [(key.partition("=")[0], says) for key, says in keys(path)]
        for key, says in own:
            name = above + key
            if any(other.startswith(f"{key}.") for other, _ in own):
                continue  # what is said of a group holds for its keys
            if re.search(r"(^|; |or )null\b", says):
                found.append((verb, f"{chosen}{name}=null"))
            words = re.match(r"[\w+]+( \| [\w+]+)+", says)
            found += [(verb, f"{chosen}{name}={word}") for word in (words.group().split(" | ") if words else [])]
    return sorted(set(found))


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "words"), documented())
def test_what_a_comment_says_a_key_may_be_it_may_be(verb: str, words: str) -> None:
    check(compose(verb, *words.split(" ")))


@pytest.mark.parametrize(
    ("verb", "override"),
    [
        ("run", "trainer.precision=bf16"),
        ("run", "trainer.precision=32"),
        ("run", "trainer.precision='32'"),
        ("run", "trainer.gradient_clip=0"),
        ("run", "captions=textual_inversion"),
        ("run", 'captions="a photo of {}"'),
        ("pretrain", "pretrain.generator.minutes=2.5"),
        ("doctor", "free_gigabytes=0.5"),
    ],
)
def test_a_key_may_be_of_another_kind_where_it_is_read_so(verb: str, override: str) -> None:
    """The shipped value is one of several kinds; what reads the key takes each."""
    config = compose(verb, override)
    check(config)
    assert training.read_settings(training.as_plain(config)).trainer.precision in {32, "32", "bf16"}
    assert read_captions(training.as_plain(config)["captions"])


def test_only_allowed_targets_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = OmegaConf.create({"_target_": "os.getcwd"})
    with pytest.raises(UserError, match=r"edits\._target_=os\.getcwd: only palp_lab\.\* may be built"):
        build(evil, "edits")
    inner = OmegaConf.create({"_target_": "palp_lab.doctor.Finding", "subject": {"_target_": "os.getcwd"}, "found": ""})
    with pytest.raises(UserError, match=r"edits\.subject\._target_"):
        build(inner, "edits")
    monkeypatch.setenv("PALP_LAB_TARGETS", "pathlib")
    assert build(OmegaConf.create({"_target_": "pathlib.PurePath"}), "x").name == ""


@pytest.mark.parametrize("target", ["palp_lab.study.writing.write_text", "palp_lab.study.writing.Path"])
def test_neither_other_functions_of_ours_nor_what_they_import_is_built(target: str, tmp_path: Path) -> None:
    node = OmegaConf.create({"_target_": target, "path": str(tmp_path / "x"), "content": "gone"})
    with pytest.raises(UserError, match=rf"tokens\._target_={target}: is no class of palp_lab"):
        build(node, "tokens")
    assert not list(tmp_path.iterdir())


def test_every_factory_is_one_that_a_shipped_file_names() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in conf_folder().rglob("*.yaml"))
    assert {name for name in FACTORIES if f"_target_: {name}" in text} == FACTORIES


def test_build_passes_objects_and_explains_wrong_keys() -> None:
    node = OmegaConf.create({"_target_": "palp_lab.doctor.Finding", "subject": "disk"})
    given = object()
    assert build(node, "x", found=given).found is given
    with pytest.raises(UserError, match=r"^x: .*'found'"):
        build(node, "x")
    with pytest.raises(UserError, match=r"x\._target_=palp_lab\.doctor\.Nothing: palp_lab\.doctor has no Nothing"):
        build(OmegaConf.create({"_target_": "palp_lab.doctor.Nothing"}), "x")
    with pytest.raises(UserError, match=r"there is no module palp_lab\.nowhere"):
        build(OmegaConf.create({"_target_": "palp_lab.nowhere.Nothing"}), "x")


def test_a_package_of_ones_own_that_is_not_found_is_looked_for_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALP_LAB_TARGETS", "my_package")
    with pytest.raises(UserError, match=r"no module my_package; is the folder it lies in on PYTHONPATH\?"):
        build(OmegaConf.create({"_target_": "my_package.Loss"}), "x")


def test_build_lets_a_user_error_through() -> None:
    with pytest.raises(UserError, match="is no number of sampling steps"):
        build(OmegaConf.create({"_target_": "palp_lab.generate.Sampling", "steps": 0}), "x")


def test_build_all_keeps_the_order_and_drops_nulls() -> None:
    node = {"_target_": "palp_lab.doctor.Finding", "subject": "s", "found": "f"}
    assert list(build_all(OmegaConf.create({"b": node, "c": None, "a": node}), "losses")) == ["b", "a"]


def test_a_recipe_must_fit_the_model() -> None:
    check_fit({Capability.CROSS_ATTENTION}, {"edits": {Capability.CROSS_ATTENTION}, "tokens": set()})
    with pytest.raises(UserError, match="tokens needs per_site_text, which the tiny model does not provide"):
        check_fit({Capability.CROSS_ATTENTION}, {"tokens": {Capability.PER_SITE_TEXT}}, "the tiny model")


def test_a_training_checks_that_before_it_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training, "train_adapter", lambda *_, **__: pytest.fail("began"))
    config = compose("train", "method=p_plus")
    with pytest.raises(UserError, match="tokens needs per_site_text"):
        training.train_stage(
            config,
            SimpleNamespace(provides={Capability.TOKEN_VECTORS}),
            None,
            {},
            None,
            (),
            tmp_path,  # type: ignore[arg-type]
        )


def test_device_and_dtype_names() -> None:
    assert build_device("cpu").type == "cpu"
    assert build_device("auto").type in {"cpu", "cuda", "mps"}
    assert str(build_dtype("bfloat16")) == "torch.bfloat16"
    for refuses in (build_dtype, lambda name: open_model("tiny", dtype=name)):
        with pytest.raises(UserError, match="dtype=half: must be float32"):
            refuses("half")
    for refuses in (build_device, lambda name: open_model("tiny", device=name)):
        with pytest.raises(UserError, match="device=toaster: must be auto, cpu, cuda or mps"):
            refuses("toaster")
    if not torch.backends.mps.is_available():
        with pytest.raises(UserError, match=r"device=mps: torch .* sees none here"):
            open_model("tiny", device="mps")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch answers on a machine with two CUDA devices, in the first process of a command."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("name", "first", "second"),
    [("auto", "cuda", "cuda:1"), ("cuda", "cuda", "cuda:1"), ("cuda:0", "cuda:0", "cuda:0"), ("cpu", "cpu", "cpu")],
)
def test_each_rank_of_a_run_has_a_device_of_its_own(
    monkeypatch: pytest.MonkeyPatch, name: str, first: str, second: str
) -> None:
    assert choose_device(name) == first
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device(name) == second
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert torch.device(choose_device(name)) == torch.device(first if first != "cuda" else "cuda:0")


@pytest.mark.usefixtures("two_gpus")
def test_a_rank_without_a_device_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match=r"process 3 of this run finds 2 CUDA devices; take trainer\.devices=2"):
        choose_device("cuda")


def test_the_clock_is_read_when_an_accelerator_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Any] = []
    monkeypatch.setattr("torch.cuda.synchronize", waited.append)
    monkeypatch.setattr("torch.mps.synchronize", lambda: waited.append("mps"))
    for name in ("cuda:1", "mps", "cpu"):
        synchronize(torch.device(name))
    assert waited == [torch.device("cuda:1"), "mps"]

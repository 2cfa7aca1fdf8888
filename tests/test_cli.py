"""The command line: it teaches, it is quick, and it says what is wrong in one line."""

from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig

from palp_lab import cli_help, doctor
from palp_lab.cli import main
from palp_lab.cli_errors import dotted, nearest
from palp_lab.composition import (
    cell_label,
    compose,
    conf_folder,
    constants,
    options_apart,
    say_changed,
    say_drawn,
    say_untuned,
)
from palp_lab.launch import keys_of_study, leave_status, stopped
from palp_lab.study.sweeps import Job, current, leave_cells
from palp_lab.sweeper import ChoiceLoader
from palp_lab.types import UserError
from palp_lab.verdict import failures


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed on stderr, which must be a single line of ours."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("palp-lab: ")
    return lines[0]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from palp_lab.cli import main; main([]); main(['run', '--help']);"
        "print(sorted({'torch', 'hydra', 'omegaconf', 'numpy', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_overview_names_every_verb_and_shows_three_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    bare = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == bare
    assert all(f"  {verb} " in bare for verb in cli_help.VERBS)
    assert bare.count("\n  palp-lab ") == 3


def test_help_of_a_verb_names_groups_choices_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    page = capsys.readouterr().out
    words = set(page.replace(",", " ").replace("*", " ").split())
    for group, choices in cli_help.groups(conf_folder()).items():
        if group not in {*cli_help.AUTOMATIC, "pretrain"}:
            assert {group, *choices} <= words
    assert "palp*" in page
    assert "seed=0" in page
    assert "'target=\"a sketch of {} in the snow\"'" in page
    assert max(len(line) for line in page.splitlines()) <= 120


def rows(page: str) -> dict[str, str]:
    """The keys of a help page, without their values, and what is said of each."""
    found: dict[str, str] = {}
    for line in page.partition("\nkeys\n")[2].partition("\nexamples\n")[0].splitlines():
        if match := re.match(r"  ([a-z][\w.]*)(?:=\S*|=\[.*?\]|=\".*?\")?(?:\s+(.*))?$", line):
            found[last := match.group(1)] = match.group(2) or ""
        elif line.strip() and not line.startswith("keys of"):
            found[last] += f" {line.strip()}"
    return found


def test_help_shows_the_keys_of_the_choices_its_line_makes(capsys: pytest.CaptureFixture[str]) -> None:
    """Keys of photos, wandb or SDXL are no keys of the defaults, and a user has to find them somewhere."""
    assert main(["run", "dataset=folder", "losses=[reconstruction,key_locking]", "seed=3", "--help"]) == 0
    page = capsys.readouterr().out
    assert "folder*" in page and "tiny*, tiny_flow" in page and "key_locking*" in page
    assert "dataset.most_pixels=100000000" in page and "dataset.places" not in page
    assert "losses.key_locking.weight=0.1" in page and "losses.reconstruction.weight=1.0" in page
    assert main(["run", "dataset=no_such", "--help"]) == 0
    assert "dataset.places" in capsys.readouterr().out


@pytest.mark.parametrize("verb", cli_help.VERBS)
def test_help_of_a_verb_lists_every_key_with_its_own_comment(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    page = capsys.readouterr().out
    listed = rows(page)
    for path in (conf_folder() / f"{verb}.yaml", conf_folder() / "base.yaml"):
        own = {key for key in dotted(yaml.safe_load(path.read_text(encoding="utf-8"))) if "=" not in key}
        silent = {key for key in own if key.split(".")[0] in cli_help.SILENT}
        bare = {key for key in own - silent if any(other.startswith(f"{key}.") for other in own)}
        assert own - silent - bare <= listed.keys()
    assert max(len(line) for line in page.splitlines()) <= 120
    if verb == "run":
        assert listed["labels"] == "what a result is filed under; null: the choice of that group"
        assert listed["log.gradients_every"].endswith("changes no weight")
        assert listed["captions"].endswith('section 4.4: "a photo of [V]"')
        assert listed["trainer.gradient_clip"].startswith("largest norm of the gradient; null: no clipping")
        assert {"generate.seeds", "augment.flip", "losses.reconstruction.weight", "dataset.shots"} <= listed.keys()


@pytest.mark.parametrize("line", [line for lines in cli_help.EXAMPLES.values() for line in lines])
def test_every_example_composes(line: str) -> None:
    """The examples of --help are promises: each must name keys and choices that exist."""
    program, verb, *rest = shlex.split(line)
    assert program == "palp-lab"
    for sweep in (word.split("=")[1].split(",") for word in rest if word.startswith("method=")):
        for choice in sweep:
            assert (conf_folder() / "method" / f"{choice}.yaml").is_file()
    words = [word for word in rest if not word.startswith("-") and word != "job"]
    compose(verb, *(word if "[" in word or '"' in word else word.split(",")[0] for word in words))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tran"], "did you mean train?"),
        (["run", "method=plap"], "method=plap: no such choice; did you mean palp?"),
        (["run", "metod=palp"], "metod: no such key; did you mean method?"),
        (["run", "losses=[reconstruction,prompt_aligment]"], "no such choice; did you mean prompt_alignment?"),
        (["run", "trainer.max_stps=3"], "did you mean trainer.max_steps?"),
        (["run", "max_steps=3"], "did you mean trainer.max_steps?"),
        (["run", "optimizer.leaning_rate=1"], "optimizer.leaning_rate: no such key"),
        (["run", "optimizer.scheduler=cosine"], "no such key; did you mean optimizer.lr_scheduler?"),
        (["run", "optimizer.warmup=10"], "no such key; there are: optimizer.betas, optimizer.eps, optimizer.lr,"),
        (["run", "-m", "method=palp,ti_bd"], "did you mean ti_db?"),
        (
            ["run", "-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_job=2"],
            "hydra.launcher.n_job: no such key; did you mean hydra.launcher.n_jobs?",
        ),
        (["run", "-m", "study=quickstrt"], "study=quickstrt: no such choice; did you mean quickstart?"),
        (["run", "debug=defalt"], "debug=defalt: no such choice; did you mean default?"),
        (["run", "tuning=nope"], "tuning=nope: no such choice"),
        (["doctor", "hydra.job.chdir=true"], "hydra.job.chdir=true: relative paths, the store's too, would change"),
        (["doctor", "-m", "seed=0,1", "hydra.job.chdir=true"], "hydra.job.chdir=true: relative paths"),
        (["run", "hydra.sweep.dirr=x"], "hydra.sweep.dirr: no such key; did you mean hydra.sweep.dir?"),
        (["doctor", "+trainer.max_stps=3"], "did you mean trainer.max_steps?"),
        (["doctor", "trainer.max_steps=many"], "trainer.max_steps='many': must be a whole number"),
        (["doctor", "trainer.max_steps=2.5"], "must be a whole number"),
        (["run", "seed=0,1"], "seed=0,1: several values: add -m to run each"),
        (["run", "-m", "seed=0,1", "hydra/launcher=ray"], "pip install 'palp-lab[ray]'"),
        (
            ["run", "method=ti_db", "losses.prompt_alignment.weight=1"],
            "this loss is not in use; add it: 'losses=[reconstruction,prompt_alignment]'",
        ),
        (
            ["run", "method=textual_inversion", "optimizer.lr=1", "dry_run=true"],
            "optimizer.lr=1: nothing trains with it: only words are trained here, at optimizer.token_lr=0.003; "
            "give optimizer.token_lr instead",
        ),
        (
            ["run", "method=dreambooth", "optimizer.token_lr=1", "dry_run=true"],
            "optimizer.token_lr=1: nothing trains with it: no words are trained here; give optimizer.lr instead",
        ),
        (["run", "losses.reconstruction.weight=much"], "losses.reconstruction.weight='much': must be a number"),
        (["run", "edits.rank=many"], "edits.rank='many': must be a whole number"),
        (["run", "losses.prompt_alignment.rescale=perhaps"], "must be true or false"),
        (["run", "target=a sketch of {} in Paris"], "'target=\"a sketch of {} in Paris\"'"),
        (["run", "target=a", "sketch", "of", "{}", "in", "Paris", "seed=1"], "'target=\"a sketch of {} in Paris\"'"),
        (["run", "just_a_word"], "write key=value"),
        (["report", "results=a,b"], "results=a,b: a list has brackets: results=[a,b]"),
        (["report", "compare=ti_db,palp"], "for one text, compare=[ti_db,palp] for a list"),
        (["report", "results=my study"], "results='my study': must be a list, e.g. 'results=[\"my study\"]'"),
        (["generate", 'prompt="a {} by night"'], "prompt: no such key; did you mean generate.prompts?"),
        (
            ["generate", 'prompts.groups={mine: ["a {}"]}'],
            "prompts.groups: there is no mine; add it: '+prompts.groups.mine=...'; draw sentences of your own with "
            "generate.prompts",
        ),
        (["run", "device=gpu", "dry_run=true"], "palp-lab: device=gpu: must be auto, cpu, cuda or mps"),
        (["run", "checkpoints=[0]", "dry_run=true"], "checkpoints: 0 is no step; they are counted from 1"),
        (["run", "-m", "--cfg", "job"], "-m runs, --cfg and --info only show"),
    ],
)
def test_a_mistake_names_itself_and_the_nearest_right_word(
    words: list[str], said: str, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in one_line(capsys)


def test_the_shown_quoting_is_accepted(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the error line proposes must work when it is pasted into a shell."""
    assert main(["run", "target=a {}, in [Paris]"]) == 2
    proposal = shlex.split(one_line(capsys).partition("quotes: ")[2])
    assert main(["run", *proposal, "--cfg", "job"]) == 0
    assert "target: a {}, in [Paris]" in capsys.readouterr().out


def test_an_exception_keeps_its_traceback_and_prints_one_line(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(config: object) -> None:
        raise ZeroDivisionError("seven\nby nought")

    monkeypatch.setattr(doctor, "doctor", explode)
    assert main(["doctor"]) == 1
    line = one_line(capsys)
    assert "ZeroDivisionError: seven (traceback: " in line
    kept = Path(line.partition("(traceback: ")[2].rstrip(")"))
    assert "in explode" in kept.read_text()
    assert kept.is_relative_to(output)


def test_a_user_error_is_one_line_and_status_two(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: object) -> None:
        raise UserError("photos/: empty; put one to six photos there")

    monkeypatch.setattr(doctor, "doctor", refuse)
    assert main(["doctor"]) == 2
    assert one_line(capsys) == "palp-lab: photos/: empty; put one to six photos there"


def test_a_sweep_outlives_a_failing_cell_names_it_and_fails(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def sometimes(config: object) -> None:
        ran.append(config.seed)  # type: ignore[attr-defined]
        if config.seed == 1:  # type: ignore[attr-defined]
            raise ValueError("odd")

    monkeypatch.setattr(doctor, "doctor", sometimes)
    assert main(["doctor", "seed=0,1,2", "-m"]) == 1
    assert ran == [0, 1, 2]
    said = capsys.readouterr().err
    assert "1 of 3 cells failed" in said
    assert "  seed=1: ValueError: odd" in said
    states = sorted(json.loads(p.read_text())["state"] for p in output.glob("logs/doctor/*/*/*/status.json"))
    assert states == ["done", "done", "failed"]


def test_what_an_earlier_sweep_left_in_the_folder_is_not_counted(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[list[str]] = []

    def sometimes(config: object) -> None:
        if config.seed == broken:  # type: ignore[attr-defined]
            raise ValueError("odd")
        leave_cells([{"run": f"seed {config.seed}"}])  # type: ignore[attr-defined]

    def close(config: object, cells: list[dict[str, str]], command: str) -> None:
        closed.append([cell["run"] for cell in cells])

    monkeypatch.setattr(doctor, "doctor", sometimes)
    monkeypatch.setattr(doctor, "end_sweep", close, raising=False)
    same = ["doctor", "-m", f"hydra.sweep.dir={output / 'sweep'}"]
    broken = 1
    assert main([*same, "seed=0,1,2"]) == 1
    assert "1 of 3 cells failed" in capsys.readouterr().err
    assert main([*same, "seed=3"]) == 0
    assert "failed" not in capsys.readouterr().err
    broken = 4
    assert main([*same, "seed=0,4"]) == 1, "the first of them lies where that of the first sweep did"
    assert "1 of 2 cells failed" in capsys.readouterr().err
    assert closed == [["seed 0", "seed 2"], ["seed 3"], ["seed 0"]]
    assert list(output.glob("sweep/*/cells.json")), "nothing of theirs is taken away"


def test_a_good_sweep_ends_with_zero(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "doctor", lambda config: (0.1, 0.2))
    assert main(["doctor", "-m", "seed=0,1"]) == 0


def test_a_flag_may_stand_between_overrides(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(doctor, "doctor", lambda config: seen.append((config.seed, config.threads)))
    assert main(["doctor", "seed=0,1", "-m", "threads=1"]) == 0
    assert seen == [(0, 1), (1, 1)]


@pytest.mark.parametrize(
    ("words", "options", "others"),
    [
        (["method=palp", "--cfg", "job", "seed=1"], ["--cfg", "job"], ["method=palp", "seed=1"]),
        (["a=1", "-m", "b=2", "--config-dir=x", "c=3"], ["-m", "--config-dir=x"], ["a=1", "b=2", "c=3"]),
        (["--info", "a=1"], ["--info=all"], ["a=1"]),
        (["a=1", "-i", "searchpath", "b=2"], ["--info=searchpath"], ["a=1", "b=2"]),
        (["a=1", "--config-dir"], [], ["a=1", "--config-dir"]),
        (["a=1", "--strange", "b=2"], [], ["a=1", "--strange", "b=2"]),
    ],
)
def test_options_are_told_from_overrides(words: list[str], options: list[str], others: list[str]) -> None:
    assert options_apart(words) == (options, others)


def test_an_option_may_stand_between_overrides(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path := tmp_path / "mine" / "prompts" / "own.yaml").parent.mkdir(parents=True)
    path.write_text("groups: {}\n")
    assert (
        main(
            [
                "doctor",
                "seed=7",
                "--config-dir",
                str(tmp_path / "mine"),
                "prompts=own",
                "--cfg",
                "job",
                "dtype=bfloat16",
            ]
        )
        == 0
    )
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["seed"], shown["prompts"], shown["dtype"]) == (7, {"groups": {}}, "bfloat16")
    assert main(["doctor", "--info", "seed=7"]) == 0


@pytest.mark.parametrize("word", ["study=choice(quickstart)", "study=glob(quickst*)"])
def test_an_optional_group_may_be_swept_in_words_of_hydra_s(
    output: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    seen = []
    monkeypatch.setattr("palp_lab.run.run", lambda config: seen.append(config.study_name))
    assert main(["run", "-m", word]) == 0
    assert seen == ["quickstart"]


def test_the_exit_status_of_a_verb_is_kept(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(config: object) -> None:
        raise SystemExit(7)

    monkeypatch.setattr(doctor, "doctor", leave)
    assert main(["doctor"]) == 7


def test_a_rate_is_refused_only_where_nothing_trains_with_it(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["method=textual_inversion", "optimizer.token_lr=1"],
        ["method=textual_inversion", "optimizer.lr=1", "optimizer.token_lr=null"],
        ["method=textual_inversion", "edits=lora", "optimizer.lr=1"],
        ["method=dreambooth", "optimizer.token_lr=null"],
        ["method=dreambooth", "tokens=learned", "optimizer.token_lr=1"],
        ["method=rare_adjective", "optimizer.lr=1", "optimizer.token_lr=1"],
    ):
        compose("run", *words)
    compose("report")
    for words in (
        ["method=p_plus", "++optimizer.lr=1"],
        ["method=ti_db", "stages=[{trains: tokens}]", "optimizer.lr=1"],
    ):
        with pytest.raises(UserError, match=r"give optimizer\.token_lr"):
            compose("run", *words)
    assert main(["run", "-m", "method=p_plus", "optimizer.lr=1,1e-4", "dry_run=true"]) == 1
    assert "2 of 2 cells failed" in capsys.readouterr().err


def test_a_rate_that_a_study_sweeps_goes_on_with_any_recipe(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine := tmp_path / "mine" / "study").mkdir(parents=True)
    (mine / "rates.yaml").write_text(
        "# @package _global_\nstudy_name: rates\nhydra:\n  sweeper:\n    params:\n"
        "      method: textual_inversion,ti_db\n      optimizer.lr: 0.1,0.2\n"
    )
    ran: list[float] = []
    monkeypatch.setattr("palp_lab.run.run", lambda config: ran.append(config.optimizer.lr) or (0.0, 0.0))
    for more in ([], ["dry_run=true"]):
        main(["run", "--config-dir", str(tmp_path / "mine"), "-m", "study=rates", *more])
        assert sorted(ran) == [0.1, 0.1, 0.2, 0.2]
        ran.clear()


def test_a_lost_job_counts_as_failed(tmp_path: Path) -> None:
    for name, state in (("0", "done"), ("1", "running")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(json.dumps({"state": state, "overrides": [f"seed={name}"]}))
    assert failures(tmp_path) == (["seed=1: lost: its process ended without a word"], 1, 2)


def test_a_file_of_ones_own_with_a_shipped_name_is_refused(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra takes the shipped one: another experiment would run, without a word."""
    (tmp_path / "mine" / "prompts").mkdir(parents=True)
    (path := tmp_path / "mine" / "prompts" / "standard.yaml").write_text("groups: {}\n")
    assert main(["doctor", "--config-dir", str(tmp_path / "mine")]) == 2
    assert f"{path}: a shipped file has this name" in one_line(capsys)
    with pytest.raises(UserError, match="a shipped file has this name"):
        compose("run", config_dir=tmp_path / "mine")
    path.rename(path.with_name("own.yaml"))
    assert dict(compose("run", "prompts=own", config_dir=tmp_path / "mine").prompts) == {"groups": {}}


@pytest.mark.parametrize(
    ("name", "text", "words", "said"),
    [
        ("losses/flat.yaml", "_target_: mine.Loss\nweight: 0.5\n", ["losses=[reconstruction,flat]"],
         "losses/flat.yaml: its keys lie at the top; put them below one with the loss's name, flat:"),
        ("tokens/vague.yaml", "phrase: my cat\n", ["method=ti_db", "tokens=vague"],
         "palp-lab: tokens: says no _target_"),
        ("prompts/odd.yaml", "groups:\n  mine: [a {} on a sofa]\n", ["prompts=odd"],
         "mine/prompts/odd.yaml:2: is no YAML (expected ',' or ']', but got '{'; while parsing a flow sequence); "
         "text with braces, brackets or a colon needs quotes"),
        ("prompts/odd.yaml", "groups:\n\tmine: []\n", ["prompts=odd"],
         "mine/prompts/odd.yaml:2: is no YAML (found character '\\t' that cannot start any token; while scanning for"),
        ("method/bare.yaml", "defaults:\n  - override /tokens: rare\n", ["method=bare"],
         "method=bare: its file must have the line '# @package _global_' above its keys"),
    ],
)  # fmt: skip
def test_the_first_mistakes_in_a_file_of_ones_own(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, words: list[str], said: str
) -> None:
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert main(["train", "--config-dir", str(tmp_path / "mine"), *words]) == 2
    assert said in one_line(capsys)


def test_a_method_without_values_for_this_model_is_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "mine"
    (folder / "tuning").mkdir(parents=True)
    config = compose("run", "labels.method=mine")
    with caplog.at_level("INFO", "palp_lab.composition"):
        say_untuned(config, [conf_folder(), folder])
        assert "there is no tuning/tiny_mine.yaml: the recipe's own values are used on model=tiny" in caplog.text
        caplog.clear()
        (folder / "tuning" / "tiny_mine.yaml").touch()
        say_untuned(config, [conf_folder(), folder])
        say_untuned(compose("run", "labels.method=mine", "model=sd15"), [conf_folder(), folder])
        assert not caplog.text, "Stable Diffusion has the recipe's own values by right"


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (["losses=[reconstruction]"], True),
        (["losses=[reconstruction]", "method=ti_db"], False),
        (["losses=[reconstruction]", "labels.method=mine"], False),
        (["losses.reconstruction.weight=2"], False),
        (["trainer.max_steps=3"], False),
    ],
)
def test_a_part_replaced_in_a_recipe_nobody_chose_is_said(
    words: list[str], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its alignment term the default recipe is not PALP, by whose name the result would go."""
    say_changed(compose("run", *words), words)
    assert ("method is not given: losses replaced in the default, method=palp" in caplog.text) is warned


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (["model=sd15"], True),
        (["model=sd15", "method=ti_db"], True),
        (["model=sd15", "dataset=tiny"], False),
        (["model=sd15", "dataset.superclass=robot"], False),
        (["model=tiny_small"], False),
        ([], False),
    ],
)
def test_a_drawn_subject_for_a_real_model_is_said(
    words: list[str], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    say_drawn(compose("run", *words), words)
    assert ("give dataset=folder dataset.path=... dataset.superclass=..., and" in caplog.text) is warned
    assert ("dataset is not given: model=sd15 gets a drawn cat of the tiny world" in caplog.text) is warned


@pytest.mark.parametrize("said", ["key", "environment"])
def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    (file := tmp_path / "file").write_text("")
    if said == "environment":
        monkeypatch.setenv("PALP_LAB_OUTPUT", str(file))
    assert main(["doctor", *([f"output={file}"] if said == "key" else [])]) == 2
    line = one_line(capsys)
    assert f"output={file}: cannot be written to (Not a directory" in line and "give output=<folder>" in line


@pytest.mark.parametrize(("place", "where"), [("", "outputs"), ("~/kept", "{home}/kept")])
def test_the_environment_names_a_folder_as_a_shell_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, where: str
) -> None:
    """Set but empty it is not set, where it once was the root of the disk; a tilde is the user's own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PALP_LAB_OUTPUT", place)
    seen: list[str] = []
    monkeypatch.setattr("palp_lab.doctor.doctor", lambda config: seen.append(config.output))
    assert main(["doctor"]) == 0
    assert seen == [where.format(home=tmp_path / "home")]
    assert not (tmp_path / "~").exists()


def test_no_threads_are_one_line(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "threads=0", "dry_run=true"]) == 2
    assert "threads=0: give 1 or more" in one_line(capsys)


@pytest.fixture
def home(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own folder; commands run elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("said", ["key", "environment", "file"])
@pytest.mark.parametrize("flags", [["seed=1"], ["-m", "seed=0,1"]])
def test_the_output_may_lie_in_the_user_s_own_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, flags: list[str]
) -> None:
    (path := tmp_path / "mine" / "study" / "own.yaml").parent.mkdir(parents=True)
    path.write_text("# @package _global_\noutput: ~/x\n")
    if said == "environment":
        monkeypatch.setenv("PALP_LAB_OUTPUT", "~/x")
    words = {"key": ['output="~/x"'], "file": ["--config-dir", str(tmp_path / "mine"), "study=own"]}
    seen: list[tuple[str, str]] = []
    ended: list[str] = []
    monkeypatch.setattr(doctor, "doctor", lambda config: seen.append((config.output, config.store)))
    monkeypatch.setattr(doctor, "end_sweep", lambda config, *_: ended.append(config.output), raising=False)
    monkeypatch.setattr("palp_lab.verdict.cells_of", lambda *_: [{"run": "1"}])
    assert main(["doctor", *words.get(said, []), *flags]) == 0
    assert set(seen) == {(str(home / "x"), str(home / "x" / "store"))}
    assert set(ended) <= {str(home / "x")}
    assert list((home / "x" / "logs" / "doctor").iterdir())
    assert not (tmp_path / "~").exists()


def test_paths_at_the_top_may_begin_in_the_user_s_own_folder(home: Path) -> None:
    config = compose("report", 'folder="~/a"', 'results=["~/b",c]', 'store="~/d"')
    assert (config.folder, config.results, config.store) == (f"{home}/a", [f"{home}/b", "c"], f"{home}/d")
    config = compose("export", 'output="~/a"')
    assert config.to == f"{home}/a/export"


@pytest.mark.parametrize(
    ("verb", "word", "shown"),
    [
        ("run", "output=~/x", "output: ~/x"),
        ("report", "results=[a,~/x y]", "results:\n- a\n- ~/x y\n"),
        ("report", "compare=[ti_db · lr 0.001,ti_db · lr 0.003]", "compare:\n- ti_db · lr 0.001\n- ti_db · lr 0.003\n"),
        ("generate", "generate.prompts=[{} by night,'a {}, here']", "prompts:\n  - '{} by night'\n  - a {}, here\n"),
    ],
)
def test_the_quoting_shown_for_folders_and_lists_is_accepted(
    home: Path, capsys: pytest.CaptureFixture[str], verb: str, word: str, shown: str
) -> None:
    assert main([verb, word]) == 2
    proposal = shlex.split(one_line(capsys).partition("quotes: ")[2])
    assert main([verb, *proposal, "--cfg", "job"]) == 0
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize("key", ["optimizer.lr", "generate.strength", "losses.prompt_alignment.weight"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_are_finite(output: Path, capsys: pytest.CaptureFixture[str], key: str, value: str) -> None:
    assert main(["run", f"{key}={value}", "dry_run=true"]) == 2
    assert f"{key}={value}: must be a finite number" in one_line(capsys)


def test_many_cells_that_failed_alike_are_one_line(tmp_path: Path) -> None:
    for name in range(6):
        (tmp_path / str(name)).mkdir()
        status = {"state": "failed", "overrides": [f"seed={name}"], "error": "no model" if name else "another reason"}
        (tmp_path / str(name) / "status.json").write_text(json.dumps(status))
    assert failures(tmp_path) == (
        ["seed=0: another reason", "5 cells, the first of them seed=1: no model"], 6, 6,
    )  # fmt: skip


def test_a_sweep_whose_launcher_died_is_still_closed(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra 1.3 does not call the callbacks at the end when a worker process is lost; what was finished is kept and
    what was lost is named."""

    def die(loader: ChoiceLoader, config: DictConfig, cell: list[str]) -> DictConfig:
        if cell != ["seed=1"]:
            return compose_cell(loader, config, cell)
        leave_status(Path(config.hydra.sweep.dir) / "1", "running", overrides=cell)
        raise RuntimeError("a worker was lost")

    compose_cell = ChoiceLoader.load_sweep_config
    monkeypatch.setattr(ChoiceLoader, "load_sweep_config", die)
    monkeypatch.setattr(doctor, "doctor", lambda config: None)
    assert main(["doctor", "-m", "seed=0,1"]) == 1
    said = capsys.readouterr().err
    assert "1 of 2 cells failed" in said
    assert "  seed=1: lost" in said


def test_a_cell_that_still_ran_when_a_sweep_was_stopped_is_not_lost(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(config: object) -> None:
        if config.seed == 1:  # type: ignore[attr-defined]
            raise ValueError("odd")
        if config.seed == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "doctor", stop)
    assert main(["doctor", "-m", "seed=0,1,2"]) in {130, 1}  # hydra 1.4 asks for the verdict itself
    said = capsys.readouterr().err
    assert "1 of 3 cells failed" in said
    assert "  seed=1: ValueError: odd" in said
    assert "lost" not in said


@pytest.mark.parametrize(
    ("words", "goes_on"),
    [
        (["run", "seed=1"], True), (["pretrain"], True), (["generate"], True), (["export", "to=x"], True),
        (["generate", "adapters=[x]"], False), (["export", "adapter=x"], False), (["score", "images=x"], False),
        (["report"], False), (["doctor"], False),
    ],
)  # fmt: skip
def test_what_is_said_of_a_stopped_command_is_so(words: list[str], goes_on: bool) -> None:
    verb, *rest = words
    more = "; the same command goes on from the last checkpoint" if goes_on else ""
    assert stopped(verb, rest) == f"stopped{more}"


def test_several_devices_cannot_be_swept(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every rank would run the whole sweep again."""
    assert main(["doctor", "-m", "seed=0,1", "trainer.devices=2"]) == 1
    assert "cannot be swept with -m" in capsys.readouterr().err


def test_a_model_that_cannot_be_had_is_one_line(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's library tells of every attempt and every retry; what is to be done is said once."""
    hub = logging.getLogger("huggingface_hub.utils._http")

    def download(*args: object, **kwargs: object) -> str:
        for attempt in range(5):
            hub.warning("Retrying in 1s [Retry %d/5].", attempt)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    before = hub.getEffectiveLevel()
    assert main(["run", "model=sd14", "dataset=tiny", "dry_run=true"]) == 2
    first, line = capsys.readouterr().err.strip().splitlines()
    assert "asking the hub" in first, "half a minute passes"
    assert "model.path=CompVis/stable-diffusion-v1-4 is not here and the hub cannot be reached" in line
    assert hub.getEffectiveLevel() == before, "quiet for as long as it takes"


def test_own_configuration_folder(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = output.parent / "mine"
    (mine / "method").mkdir(parents=True)
    (mine / "method" / "mine.yaml").write_text("# @package _global_\ntrainer:\n  max_steps: 7\n")
    assert main(["run", "--config-dir", str(mine), "method=mine", "--cfg", "job"]) == 0
    assert "max_steps: 7" in capsys.readouterr().out
    assert compose("run", "method=mine", config_dir=mine).trainer.max_steps == 7


@pytest.mark.parametrize("joined", [True, False])
def test_an_own_study_is_known_and_its_typo_named(
    output: Path, capsys: pytest.CaptureFixture[str], joined: bool
) -> None:
    mine = output.parent / "my own"
    (mine / "study").mkdir(parents=True)
    (mine / "study" / "mine.yaml").write_text("# @package _global_\nstudy_name: mine\n")
    where = [f"--config-dir={mine}"] if joined else ["--config-dir", str(mine)]
    assert main(["run", *where, "study=mine", "--cfg", "job"]) == 0
    assert "study_name: mine" in capsys.readouterr().out
    assert main(["run", *where, "study=min", "--cfg", "job"]) == 2
    assert "study=min: no such choice; did you mean mine?" in one_line(capsys)


def test_parts_of_an_own_folder_are_among_the_words_that_help_names(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = output.parent / "my own"
    for group in ("losses", "method"):
        (mine / group).mkdir(parents=True)
    (mine / "losses" / "sharpness.yaml").write_text("sharpness: {_target_: mine.Sharpness, amount: 1.0}\n")
    (mine / "method" / "sharp.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /losses: [reconstruction, sharpness]\n"
    )
    where = ["run", "--config-dir", str(mine)]
    assert main([*where, "--help"]) == 0
    page = capsys.readouterr().out
    assert {"sharpness", "sharp"} <= set(page.replace(",", " ").split())
    for words, said in (
        (["losses=[reconstruction,sharpnes]"], "losses=sharpnes: no such choice; did you mean sharpness?"),
        (["losses.sharpness.amount=2"], "losses.sharpness.amount: this loss is not in use; add it"),
        (["method=sharp", "losses.sharpness.amont=2"], "did you mean losses.sharpness.amount?"),
    ):
        assert main([*where, *words]) == 2
        assert said in one_line(capsys)
    with pytest.raises(UserError, match="did you mean sharpness"):
        compose("run", "losses=[reconstruction,sharpnes]", config_dir=mine)


def test_one_cell_of_a_study_is_said_to_be_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sweep that a study's file asks for is run by -m alone."""
    monkeypatch.setattr("palp_lab.run.run", lambda config: (0.0, 0.0))
    said = "study=quickstart: one of its cells; -m runs them all"
    assert main(["run", "study=quickstart", f"output={tmp_path}"]) == 0
    assert said in capsys.readouterr().err
    assert main(["run", "-m", "study=quickstart", "method=ti_db", f"output={tmp_path}"]) == 0
    assert main(["run", "debug=default", f"output={tmp_path}"]) == 0
    assert said not in capsys.readouterr().err


def test_a_typo_in_an_own_file_is_an_error(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Struct mode does not see it: a file may add keys. The schema does."""
    mine = output.parent / "mine"
    (mine / "method").mkdir(parents=True)
    (mine / "method" / "mine.yaml").write_text("# @package _global_\ntrainer:\n  max_stps: 7\n")
    assert main(["doctor", "--config-dir", str(mine), "method=mine"]) == 2
    assert "trainer.max_stps: no such key; did you mean trainer.max_steps?" in one_line(capsys)


def test_it_works_as_a_module_from_any_folder(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "palp_lab", "run", "seed=11", "--cfg", "job"],
        cwd=tmp_path,
        env={"PYTHONPATH": root, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "seed: 11" in done.stdout


def test_output_may_be_cut_off() -> None:
    """`palp-lab --help | head -1` is no reason for a traceback."""
    code = "from palp_lab.cli import main; import sys; sys.exit(main(['run', '--help']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


def test_nearest() -> None:
    keys = ["trainer.max_steps", "trainer.ema", "other.max_steps", "seed"]
    assert nearest("max_stps", keys) == "; did you mean other.max_steps?"
    assert nearest("trainr.max_steps", keys) == "; did you mean trainer.max_steps?"
    assert nearest("trainer.zzz", keys) == "; there are: trainer.ema, trainer.max_steps"
    assert nearest("trainer.zzz.qqq", keys) == "; there are: trainer.ema, trainer.max_steps"
    assert nearest("zzz.qqq", keys) == "; there are: other.max_steps, seed, trainer.ema, trainer.max_steps"
    assert nearest("seed.max_step", keys) == "; did you mean other.max_steps?", "another group's, where none is near"
    assert nearest("x", []) == ""


def test_cell_label_is_a_short_folder_name() -> None:
    assert cell_label(3, ["method=palp", "dataset.seed=12"]) == "3_palp_seed=12"
    label = cell_label(0, ['target="a sketch of {} in Paris/Rome"' * 5])
    assert len(label) <= 80
    assert not set(label) & set('/{}" ')


def test_cell_label_shows_each_value_that_differs() -> None:
    sentences = [f'target="a sketch of a {{}} in the snow, {place}, as seen by a bird"' for place in ("Paris", "Rome")]
    cells = [["method=palp", sentence, f"seed={seed}", "+a.b=c"] for sentence in sentences for seed in (0, 1)]
    assert constants(cells) == ["method", "a.b"]
    assert (
        cell_label(1, cells[1], constants(cells)) == "1_-a-sketch-of-a----in-the-snow--Paris--as-seen-by-a-bird-_seed=1"
    )
    label = cell_label(1, [*cells[1], sentences[1]])
    assert "seed=1" in label and label.count("sketch") == 2 and len(label) <= 80
    assert constants(cells[:1]) == constants([["seed=0"], ["seed=0"]]) == []


@pytest.mark.parametrize("sweeper", ["palp", "basic"])
def test_folders_of_a_sweep_say_what_differs(output: Path, monkeypatch: pytest.MonkeyPatch, sweeper: str) -> None:
    """Long values that all cells share left no room for those that tell them apart."""
    monkeypatch.setattr(doctor, "doctor", lambda config: None)
    long = [f"store={output / 'a_folder_with_a_long_name' / 'store'}", "study_name=another_rather_long_word"]
    words = [*long, "trainer.max_steps=5,7", f"hydra/sweeper={sweeper}"]
    assert main(["doctor", "-m", f"hydra.sweep.dir={output / 'sweep'}", *words]) == 0
    folders = sorted(path.name for path in (output / "sweep").iterdir() if path.is_dir() and path.name[0] in "01")
    assert len(folders) == 2 and all(f"max_steps={n}" in one for n, one in zip((5, 7), folders, strict=True))
    assert sweeper == "basic" or folders == ["0_max_steps=5", "1_max_steps=7"]


def test_the_example_of_the_package() -> None:
    """`from palp_lab import ...` as in a notebook."""
    import palp_lab

    config = palp_lab.compose("run", "method=palp", 'target="a sketch of {} in Paris"')
    assert config.target == "a sketch of {} in Paris"
    assert config.labels.method == "palp"
    with pytest.raises(palp_lab.UserError, match="did you mean palp"):
        palp_lab.compose("run", "method=plap")
    with pytest.raises(AttributeError, match="there are"):
        palp_lab.nothing_of_the_kind  # noqa: B018
    for name in palp_lab.__all__:
        assert getattr(palp_lab, name) is not None


@pytest.mark.parametrize("verb", ["train", "generate", "score", "report", "export", "pretrain"])
def test_a_plan_is_what_run_alone_has(verb: str, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that other verbs would pass over, and do the work."""
    assert main([verb, "dry_run=true"]) == 2
    assert f"dry_run=true: {verb} has no plan to show" in capsys.readouterr().err
    assert not list(output.rglob("*.safetensors"))


@pytest.mark.parametrize("verb", ["generate", "score", "export"])
def test_several_targets_are_not_passed_over(verb: str, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "targets_file=mine.txt"]) == 2
    assert f"targets_file=mine.txt: {verb} takes one target" in capsys.readouterr().err


def test_another_word_for_a_loss_leads_to_its_keys(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "losses=[reconstruction,sds]", "losses.sds.weight=0.5"]) == 2
    assert "write losses.prompt_alignment.weight" in capsys.readouterr().err


def test_what_a_study_sets_of_parts_is_what_its_cells_are_filed_under(tmp_path: Path) -> None:
    """Else cells of two studies, alike but for a line in their files, would be averaged under one name."""
    own = tmp_path / "study"
    own.mkdir()
    text = "losses: {prompt_alignment: {alpha: 5.0}}\noptimizer: {lr: 1.0}\ntrainer: {max_steps: 3}"
    (own / "mine.yaml").write_text(text)
    folders = ["", str(conf_folder()), str(tmp_path)]
    assert keys_of_study(folders, "mine") == ("losses.prompt_alignment.alpha", "optimizer.lr")
    assert keys_of_study(folders, "palp_vs_ti_db_e") == ("losses.prompt_alignment.alpha",)
    assert keys_of_study(folders, "nowhere") == keys_of_study(folders, None) == ()


def test_a_command_files_what_its_study_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Job | None] = []
    monkeypatch.setattr("palp_lab.run.run", lambda config: seen.append(current()) or (0.0, 0.0))
    assert main(["run", "study=palp_vs_ti_db_e", "method=palp", f"output={tmp_path}"]) == 0
    assert seen[0] is not None and seen[0].study == ("losses.prompt_alignment.alpha",)

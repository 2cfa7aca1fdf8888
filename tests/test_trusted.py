"""A file from somebody else runs nothing through Hydra's own node, which Hydra reads before our code is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from palp_lab import doctor
from palp_lab.cli import main
from palp_lab.trusted import trusted_hydra

CALLBACK = "hydra: {callbacks: {extra: {_target_: %s}}}"
HANDLER = "hydra: {job_logging: {handlers: {extra: %s}}}"


def command(folder: Path, text: str, *words: str, verb: str = "doctor") -> int:
    (folder / "study").mkdir(parents=True, exist_ok=True)
    (folder / "study" / "nice.yaml").write_text(f"# @package _global_\n{text}\n")
    return main([verb, "--config-dir", str(folder), "study=nice", *words])


@pytest.fixture(autouse=True)
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds the verb was called with; it does nothing."""
    seeds: list[int] = []
    monkeypatch.setattr(doctor, "doctor", lambda config: seeds.append(config.seed))
    return seeds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CALLBACK % "os.makedirs, name: made", "hydra.callbacks.extra._target_=os.makedirs: of Hydra's own only"),
        (CALLBACK % "palp_lab.export.export", "hydra.callbacks.extra._target_=palp_lab.export.export: is no class"),
        (CALLBACK % "hydra.utils.call", "hydra.callbacks.extra._target_=hydra.utils.call: of Hydra's own only"),
        (CALLBACK % "'${oc.env:HOME}'", "hydra.callbacks.extra._target_=${oc.env:HOME}: what Hydra runs must be"),
        ("mine: {extra: {_target_: os.makedirs, name: made}}\nhydra: {callbacks: '${mine}'}",
         "hydra.callbacks.extra._target_=os.makedirs"),
        ("hydra: {sweeper: {_target_: os.makedirs, name: made}}", "hydra.sweeper._target_=os.makedirs"),
        ("hydra: {callbacks: {verdict: {deep: [{_target_: os.makedirs, name: made}]}}}", "deep.0._target_=os.makedirs"),
        (HANDLER % "{(): os.makedirs, name: made}", "hydra.job_logging.handlers.extra.()=os.makedirs: of Hydra's own"),
        (HANDLER % "{class: logging.config.fileConfig, fname: made}", "extra.class=logging.config.fileConfig"),
        (HANDLER % "{class: logging.NullHandler, queue: 'ext://antigravity'}", "ext://antigravity"),
        (HANDLER % "'${mine.${hydra.job.num}}'", "handlers.extra=${mine.${hydra.job.num}}: what Hydra runs must be"),
        ("hydra: {hydra_logging: {formatters: {plain: {(): os.makedirs, name: made}}}}",
         "hydra.hydra_logging.formatters.plain.()=os.makedirs"),
        ("hydra: {job: {env_set: {PALP_LAB_TARGETS: os}}}", "hydra.job.env_set.PALP_LAB_TARGETS: a configuration"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("words", [(), ("-m", "seed=0,1"), ("dry_run=true",)], ids=["alone", "swept", "dry"])
def test_a_study_runs_nothing_through_hydra(
    output: Path, capsys: pytest.CaptureFixture[str], ran: list[int], text: str, said: str, words: tuple[str, ...]
) -> None:
    assert command(output / "mine", text, *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0], lines
    if "os.makedirs: of" in said:
        assert lines[0].endswith("set PALP_LAB_TARGETS=os")
    assert not list(output.parent.rglob("made")) and not ran


def test_a_part_of_one_cell_runs_nothing(output: Path, capsys: pytest.CaptureFixture[str], ran: list[int]) -> None:
    """What only some cells of a sweep choose, and the sweep's own configuration does not show."""
    (output / "mine" / "method").mkdir(parents=True)
    text = HANDLER % "{(): os.makedirs, name: made}"
    (output / "mine" / "method" / "own.yaml").write_text(f"# @package _global_\n{text}\n")
    words = ["doctor", "--config-dir", str(output / "mine"), "-m", "method=palp,own"]
    assert main(words) == 2 and main([*words, "hydra/sweeper=basic"]) != 0
    assert capsys.readouterr().err.count("hydra.job_logging.handlers.extra.()=os.makedirs: of Hydra's own") >= 2
    assert not list(output.parent.rglob("made"))


def test_what_the_environment_allows_is_run(
    output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = output.parent / "made"
    monkeypatch.setenv("PALP_LAB_TARGETS", "pathlib")
    assert command(output / "mine", CALLBACK % f"pathlib.Path, _args_: ['{made}']") == 0
    monkeypatch.delenv("PALP_LAB_TARGETS")
    assert command(output / "mine", CALLBACK % f"pathlib.Path, _args_: ['{made}']") == 2
    assert "set PALP_LAB_TARGETS=pathlib" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        HANDLER % "{class: logging.handlers.RotatingFileHandler, filename: '${hydra.runtime.output_dir}/more.log'}",
        HANDLER % "{class: logging.StreamHandler, level: '${oc.env:LEVEL,INFO}', stream: 'ext://sys.stdout'}",
        "hydra: {job: {env_set: {WHO: '${oc.env:HOME}'}}}",
        "hydra: {callbacks: {log: {_target_: hydra.experimental.callbacks.LogJobReturnCallback}}}",
    ],
)
def test_what_is_hydras_own_stays(output: Path, ran: list[int], text: str) -> None:
    assert command(output / "mine", text) == 0
    assert command(output / "mine", text, "-m", "seed=1,2") == 0
    assert ran == [0, 1, 2]


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "submitit_slurm"])
def test_the_launchers_of_the_extras_pass(launcher: str, capsys: pytest.CaptureFixture[str]) -> None:
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher")
    for sweeper in ("palp", "optuna", "basic"):
        words = [f"hydra/launcher={launcher}", f"hydra/sweeper={sweeper}", "hydra/job_logging=default"]
        assert main(["run", *words, "--cfg", "hydra"]) == 0
    assert "_target_" in capsys.readouterr().out


def test_a_command_composes_no_more_than_before(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check looks at what Hydra composes anyway: for its mode, and for the job."""
    from palp_lab import trusted

    checked, check = [], trusted.check_hydra
    monkeypatch.setattr(trusted, "check_hydra", lambda config: (checked.append(config), check(config)))
    assert main(["doctor"]) == 0
    assert len(checked) == 2
    with trusted_hydra():
        assert trusted.program.ConfigLoaderImpl is trusted.TrustedLoader  # type: ignore[attr-defined]
    assert trusted.program.ConfigLoaderImpl is not trusted.TrustedLoader  # type: ignore[attr-defined]

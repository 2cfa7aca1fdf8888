"""Stopping and going on: bit for bit, with whatever is configured."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment

from palp_lab.adapter import read_adapter
from palp_lab.edits.lora import LoraEdits
from palp_lab.engine import callbacks
from palp_lab.engine.fit import _devices, _environment
from palp_lab.engine.settings import TrainerSettings
from palp_lab.engine.signature import plain
from palp_lab.losses.prompt_alignment import PromptAlignment
from palp_lab.losses.reconstruction import Reconstruction
from palp_lab.tokens.learned import LearnedTokens
from palp_lab.tokens.per_layer import PerLayerTokens
from palp_lab.types import UserError
from tests.engine.test_personalizer import same


class Killed(Exception):
    """Stands for a process that ends between two steps."""


def losses() -> dict[str, Any]:
    return {"reconstruction": Reconstruction(), "prompt_alignment": PromptAlignment(weight=0.1, noise="fresh")}


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, place: str = "after StepLog") -> None:
    """Ends the run at a step, before or after one of its callbacks ("within Checkpoints": between its two files)."""
    when, name = place.split()
    owner = getattr(callbacks, name)
    what = "_save_checkpoint" if when == "within" else "on_train_batch_end"
    real = getattr(owner, what)

    def end(self: Any, trainer: Any, *rest: Any) -> None:
        if when == "after":
            real(self, trainer, *rest)
        if trainer.global_step == step:
            raise Killed
        if when != "after":
            real(self, trainer, *rest)

    monkeypatch.setattr(owner, what, end)


PLACES = ["before StepLog", "after StepLog", "within Checkpoints", "after Checkpoints"]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"accumulate": 2},
        {"ema": 0.9},
        {"given": {"stages": [{"trains": "tokens", "until": 3}, {"trains": "edits"}]}},
        {"variants": 0},
        {"optimizer": {"lr_scheduler": "cosine", "lr_warmup_steps": 2}, "accumulate": 2},
    ],
    ids=["plain", "accumulated", "averaged", "staged", "fresh encodings", "scheduled"],
)
@pytest.mark.parametrize(("step", "place"), [(3, "after StepLog"), *((4, place) for place in PLACES)])
def test_resumed_is_bit_for_bit_uninterrupted(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], step: int, place: str
) -> None:
    whole = train(losses(), max_steps=7, **how)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(step, patch, place)
        train(losses(), max_steps=7, folder=tmp_path / "cut", **how)
    resumed = train(losses(), max_steps=7, folder=tmp_path / "cut", **how)
    assert same(whole, resumed)
    with whole.log.open() as one, resumed.log.open() as two:
        assert list(csv.reader(one)) == list(csv.reader(two))


@pytest.mark.parametrize("half", ["5", "5,0.1", "5,0.1,", ""], ids=["step", "field", "comma", "nothing"])
@pytest.mark.parametrize("step", [3, 4])
def test_a_row_that_was_written_by_half_is_gone_from_the_log(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, half: str
) -> None:
    """Also where every whole row is kept."""
    whole = train(losses(), max_steps=7)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(step, patch, "after Checkpoints")
        train(losses(), max_steps=7, folder=tmp_path / "cut")
    log = tmp_path / "cut/log.csv"
    with log.open("a") as file:
        file.write(half)
    assert [row["step"] for row in callbacks.read_log(log)] == [str(n) for n in range(1, step + 1)]
    assert train(losses(), max_steps=7, folder=tmp_path / "cut").log.read_bytes() == whole.log.read_bytes()


@pytest.mark.parametrize("half", ["", "step,lo", "step,loss\r\n", "step,loss\r\n1,0."])
def test_a_log_without_a_whole_row_begins_anew(train: Any, tmp_path: Path, half: str) -> None:
    whole = train()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/log.csv").write_bytes(half.encode())
    assert train(folder=tmp_path / "cut").log.read_bytes() == whole.log.read_bytes()


def test_a_line_of_the_log_that_has_other_fields_is_no_row(tmp_path: Path) -> None:
    """Two rows in one line, a row that ends early, one without its end, and no number of a step."""
    log = tmp_path / "log.csv"
    log.write_bytes(b"step,loss\r\n1,0.5\r\n2,0.43,0.3\r\n4\r\nx,0.2\r\n5,0.1\r\n6,0.1")
    assert callbacks.read_log(log) == [{"step": "1", "loss": "0.5"}, {"step": "5", "loss": "0.1"}]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_is_that_of_the_weights_after_each_step(train: Any, accumulate: int) -> None:
    """The ramp (1 + n) / (10 + n) is that of diffusers' EMAModel."""
    steps = list(range(1, 7))
    plain_run, averaged = (
        train(losses(), accumulate=accumulate, given={"steps": steps}, **how) for how in ({}, {"ema": 0.9})
    )
    mean: dict[str, torch.Tensor] = {}
    for n in steps:
        now, shown = (read_adapter(run.adapters[n])[0] for run in (plain_run, averaged))
        decay = min(0.9, (1 + n) / (10 + n))
        mean = {name: mean[name] * decay + now[name] * (1 - decay) for name in now} if mean else now
        for name, tensor in shown.items():
            torch.testing.assert_close(tensor, mean[name], rtol=1e-5, atol=1e-7)
    assert not all(torch.equal(shown[name], now[name]) for name in now)


def test_gradients_are_clipped(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moments of AdamW almost hide it in the weights, so the gradients themselves are read."""
    norms: list[float] = []
    real = torch.optim.AdamW.step

    def step(self: Any, closure: Any = None) -> Any:
        value = closure() if closure is not None else None
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in grads]).norm()))
        real(self)
        return value

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    train(losses(), gradient_clip=1e-3)
    assert len(norms) == 6 and max(norms) <= 1e-3 * (1 + 1e-5)
    norms.clear()
    train(losses(), gradient_clip=0.0)
    assert max(norms) > 1e-2


def test_a_finished_run_is_not_trained_again(train: Any, tmp_path: Path) -> None:
    first = train(losses(), folder=tmp_path / "run")
    stamp = first.last.stat().st_mtime_ns
    again = train(losses(), folder=tmp_path / "run")
    assert again.last.stat().st_mtime_ns == stamp
    assert again.cost["trainable_parameters"] == first.cost["trainable_parameters"]


def test_a_run_may_grow(train: Any, tmp_path: Path) -> None:
    train(losses(), folder=tmp_path / "run", max_steps=4)
    assert same(train(losses(), folder=tmp_path / "run", max_steps=7), train(losses(), max_steps=7))


def test_a_run_whose_rate_falls_to_its_end_may_not(train: Any, tmp_path: Path) -> None:
    how = {"optimizer": {"lr_scheduler": "linear"}, "folder": tmp_path / "run"}
    train(losses(), max_steps=4, **how)
    with pytest.raises(UserError, match=r"last\.ckpt: belongs to a run with other settings"):
        train(losses(), max_steps=7, **how)
    warm = {"optimizer": {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 2}}
    train(losses(), max_steps=4, folder=tmp_path / "warm", **warm)
    grown = train(losses(), max_steps=7, folder=tmp_path / "warm", **warm)
    assert same(grown, train(losses(), max_steps=7, **warm))


def test_a_run_that_went_on_says_all_its_seconds(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**9, 100))
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: float(next(clock)))
    first = train(losses(), folder=tmp_path / "run", max_steps=4).cost["seconds"]
    whole = train(losses(), folder=tmp_path / "run", max_steps=6).cost["seconds"]
    assert first is not None and whole is not None and whole > first >= 100


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.02},
        {"batch_size": 8},
        {"given": {"seed": 5}},
        {"ema": 0.5},
        {"accumulate": 2},
        {"gradient_clip": 0.5},
        {"token_lr": 0.003},
        {"flip": 0.25},
        {"variants": 2},
        {"given": {"target": "an oil painting of {}"}},
        {"given": {"captions": ["a photo of {}"]}},
        {"given": {"stages": [{"trains": "tokens", "until": 3}, {"trains": "edits"}]}},
        {"optimizer": {"lr_scheduler": "linear"}},
    ],
)
def test_a_checkpoint_of_another_run_is_refused(train: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    train(losses(), folder=tmp_path / "run")
    with pytest.raises(UserError, match=r"last\.ckpt: belongs to a run with other settings"):
        train(losses(), folder=tmp_path / "run", **change)


def test_a_checkpoint_is_not_continued_under_another_weight_of_a_loss(train: Any, tmp_path: Path) -> None:
    train({"reconstruction": Reconstruction()}, folder=tmp_path / "run")
    with pytest.raises(UserError, match=r"last\.ckpt: belongs to a run with other settings"):
        train({"reconstruction": Reconstruction(weight=0.5)}, folder=tmp_path / "run")


def test_a_step_that_was_passed_without_keeping_its_adapter_is_named(train: Any, tmp_path: Path) -> None:
    train(folder=tmp_path / "run")
    with pytest.raises(UserError, match=r"run: this training has passed step 2 without keeping its adapter"):
        train(folder=tmp_path / "run", max_steps=8, given={"steps": [2, 7]})
    outcome = train(folder=tmp_path / "run", max_steps=8, given={"steps": [7]})
    assert all(path.is_file() for path in outcome.adapters.values())


def test_a_run_is_also_known_by_what_its_parts_were_told() -> None:
    assert plain(LoraEdits(alpha=2)) == plain(LoraEdits(alpha=2)) != plain(LoraEdits(alpha=4))
    assert plain(LearnedTokens()) != plain(LearnedTokens(phrase="{placeholder} {superclass}"))
    assert plain(LearnedTokens()) != plain(PerLayerTokens())
    assert plain(LoraEdits()) != plain(LoraEdits(alpha_pattern={"to_q": 4.0}))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half"])
def test_a_broken_checkpoint_is_named(train: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run/scratch").mkdir(parents=True)
    (tmp_path / "run/scratch/last.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"last\.ckpt: not a checkpoint that can be continued .*; delete it"):
        train(folder=tmp_path / "run")


def test_a_failing_disk_leaves_the_last_checkpoint(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lightning

    real = lightning.Trainer.save_checkpoint

    def full(self: Any, path: Path, *rest: Any) -> None:
        if self.global_step == 4:
            Path(path).write_bytes(b"half")
            raise OSError(28, os.strerror(28))
        real(self, path, *rest)

    monkeypatch.setattr(lightning.Trainer, "save_checkpoint", full)
    with pytest.raises(OSError, match="No space left"):
        train(losses(), folder=tmp_path / "run")
    assert torch.load(tmp_path / "run/scratch/last.ckpt", weights_only=True)["global_step"] == 2
    monkeypatch.undo()
    assert same(train(losses(), folder=tmp_path / "run"), train(losses()))


def test_processes_of_one_number_do_not_write_into_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two containers that share a store may both be process 7."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    path = tmp_path / "class_pictures"

    def slower(part: Path) -> None:
        part.write_text("half")
        callbacks.write_whole(path, lambda other: other.write_text("whole"))
        assert path.read_text() == "whole"
        part.write_text(part.read_text() + " and the rest")

    callbacks.write_whole(path, slower)
    assert path.read_text() == "half and the rest"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_kill_minus_nine(tmp_path: Path) -> None:
    """A process that is killed in the middle of a step, then the same command again."""
    script = tmp_path / "run.py"
    script.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from palp_lab.engine.settings import *\n"
        "from palp_lab.losses.reconstruction import Reconstruction\n"
        "from palp_lab.train import train_adapter\n"
        "from palp_lab.types import Kind\n"
        "from tests.losses.toy import *\n"
        "class Dying(Reconstruction):\n"
        "    def __call__(self, ctx):\n"
        "        if ctx.step == int(sys.argv[2]):\n"
        "            os.kill(os.getpid(), 9)\n"
        "        return super().__call__(ctx)\n"
        "train_adapter(ToyModel(Kind.V), ToyDataset(), ToyTokens(), ToyEdits(), {'reconstruction': Dying()},\n"
        "    captions=['a {}'], folder=Path(sys.argv[1]),\n"
        "    settings=RunSettings(TrainerSettings(max_steps=9, batch_size=2, save_every=2),\n"
        "    log=LogSettings(1, 0, False)))\n"
    )
    root = Path(__file__).parents[2]

    def run(folder: str, dies: int) -> int:
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, script, tmp_path / folder, str(dies)], env=environment, cwd=root
        ).returncode

    assert run("whole", -1) == 0
    assert run("killed", 5) == -9
    assert run("killed", 8) == -9
    assert run("killed", -1) == 0
    one = read_adapter(tmp_path / "whole/adapters/step_000009.safetensors")[0]
    two = read_adapter(tmp_path / "killed/adapters/step_000009.safetensors")[0]
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stages", [[], [{"trains": "tokens", "until": 3}, {"trains": "edits"}], [{"trains": "edits"}]], ids=len
)
def test_two_processes_are_one(train: Any, stages: list[dict[str, Any]]) -> None:
    """The batch is the step's, whoever holds its rows; a part may be frozen for a while, or always."""
    given = {"stages": stages}
    one = train(losses(), batch_size=8, given=given)
    two = train(losses(), batch_size=8, devices=2, accumulate=2, strategy="ddp_fork", given=given)
    a, b = read_adapter(one.last)[0], read_adapter(two.last)[0]
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-10)
    with one.log.open() as file, two.log.open() as other:
        mine, theirs = list(csv.DictReader(file)), list(csv.DictReader(other))
    assert [row["step"] for row in theirs] == ["1", "2", "3", "4", "5", "6"]
    for name in (
        "loss",
        "reconstruction/value",
        "prompt_alignment/value",
        "prompt_alignment/at_prediction",
        "gradient",
    ):
        assert [float(row[name]) for row in theirs] == pytest.approx([float(row[name]) for row in mine], rel=1e-6)


@pytest.mark.parametrize(
    ("device", "devices", "rank", "lightnings"),
    [
        ("cpu", 2, None, 2),
        ("cuda", 1, None, [0]),
        ("cuda:1", 1, None, [1]),
        ("cuda:0", 2, None, 2),
        ("cuda:0", 2, "0", 2),
        ("cuda:1", 2, "1", 2),
    ],
)
def test_lightning_trains_where_the_model_is(
    monkeypatch: pytest.MonkeyPatch, device: str, devices: int, rank: str | None, lightnings: int | list[int]
) -> None:
    """A number of devices is, in the process of rank r, the device r."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert _devices(torch.device(device), TrainerSettings(devices=devices)) == lightnings


def test_a_job_of_slurm_is_not_taken_for_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's own choice in a job of four tasks is to wait for three others."""
    for name, value in (("NTASKS", "4"), ("PROCID", "0"), ("LOCALID", "0"), ("JOB_ID", "7"), ("JOB_NAME", "mine")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert SLURMEnvironment.detect()
    [environment] = _environment()
    assert type(environment) is LightningEnvironment and environment.world_size() == 1
    for name in ("RANK", "GROUP_RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "0")
    assert _environment() == [], "torchrun's ranks are its own"


@pytest.mark.parametrize(
    ("device", "how", "said"),
    [
        ("cuda:1", {"devices": 2}, r"device=cuda:1: is one device, .* give device=cuda"),
        ("cuda:0", {"devices": 4}, r"trainer\.devices=4: torch sees 2 CUDA devices here; take trainer\.devices=2"),
        (
            "cuda:0",
            {"devices": 2, "strategy": "ddp_spawn"},
            r"trainer\.strategy=ddp_spawn: .* give trainer\.strategy=ddp",
        ),
    ],
)
def test_devices_that_would_not_agree_are_one_line(
    monkeypatch: pytest.MonkeyPatch, device: str, how: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(UserError, match=said) as error:
        _devices(torch.device(device), TrainerSettings(**how))
    assert "\n" not in str(error.value)

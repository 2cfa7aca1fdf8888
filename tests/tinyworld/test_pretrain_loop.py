"""The pretraining loop: resumes bit for bit, for one and for two ranks; saves whole; stops cleanly."""

from __future__ import annotations

import itertools
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palp_lab.tinyworld.pretrain_loop import (
    AbstractTask,
    Batch,
    LoopSettings,
    Plan,
    checkpoint_path,
    is_finished,
    load_averaged,
    load_checkpoint,
    step_generator,
    train,
)
from palp_lab.types import UserError

STEPS = 200


class Line(AbstractTask):
    """Fits a small network to noisy numbers; asks its own process to stop after ``stop_at`` draws."""

    def __init__(self, stop_at: int = 0, broken_at: int = 0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 1))
        self.draws, self.stop_at, self.broken_at = 0, stop_at, broken_at

    def draw(self, rng: torch.Generator) -> Batch:
        self.draws += 1
        if self.draws == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        x = torch.randn(8, 4, generator=rng)
        y = x.sum(1, keepdim=True) + 0.1 * torch.randn(8, 1, generator=rng)
        return {"x": x, "y": y * float("nan") if self.draws == self.broken_at else y}

    def forward(self, batch: Batch) -> Tensor:
        return (self.net(batch["x"]) - batch["y"]).square().mean()


def settings(folder: Path, **more: object) -> LoopSettings:
    return LoopSettings(folder=folder, **{"steps": STEPS, "warmup": 10, "log_seconds": 1e9, **more})  # type: ignore[arg-type]


def state(folder: Path) -> dict:
    found = load_checkpoint(folder)
    assert found is not None
    return found


def assert_same_weights(one: dict, other: dict) -> None:
    assert one["step"] == other["step"] == STEPS
    for name, value in one["model"].items():
        assert torch.equal(value, other["model"][name]), name
    assert all(torch.equal(a, b) for a, b in zip(one["ema"], other["ema"], strict=True))
    for key, row in one["optimizer"]["state"].items():
        assert all(torch.equal(value, other["optimizer"]["state"][key][name]) for name, value in row.items())


def resumed_equals_straight(folder: Path, ranks: int) -> None:
    straight, halves = folder / "straight", folder / "halves"
    assert train(Line, settings(straight, ranks=ranks))["finished"]
    half = train(partial(Line, 100), settings(halves, ranks=ranks))
    assert not half["finished"] and 100 <= half["step"] <= 108, "the signal stops the ranks together, soon after"
    whole = train(Line, settings(halves, ranks=ranks))
    assert whole["finished"]
    assert_same_weights(state(straight), state(halves))
    assert [(s["from"], s["to"]) for s in whole["segments"]] == [(0, half["step"]), (half["step"], STEPS)]


def test_one_rank_resumes_bit_for_bit(tmp_path: Path) -> None:
    resumed_equals_straight(tmp_path, ranks=1)


@pytest.mark.slow
def test_two_ranks_resume_bit_for_bit(tmp_path: Path) -> None:
    resumed_equals_straight(tmp_path, ranks=2)
    assert state(tmp_path / "straight")["segments"][0]["samples"] == STEPS * 8 * 2
    assert not list((tmp_path / "straight").glob(".rendezvous*")), "no file of the meeting is left behind"


def test_the_tiny_generator_resumes_bit_for_bit(tmp_path: Path) -> None:
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    six = partial(settings, steps=6)
    train(tiny_denoising, six(straight))
    train(partial(tiny_denoising, 3), six(halves))
    train(tiny_denoising, six(halves))
    one, other = state(straight), state(halves)
    assert one["step"] == other["step"] == 6
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())


def tiny_denoising(stop_at: int = 0) -> AbstractTask:
    """The real generator task over random arrays and a very small UNet."""
    from palp_lab.tinyworld.pretrain_generator import Denoising, UNetSize, build_unet
    from palp_lab.tinyworld.pretrain_text import build_text_encoder, build_tokenizer, encode_captions

    tokenizer = build_tokenizer()
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((32, 8, 16, 16)).astype(np.float16)
    captions = encode_captions(tokenizer, ["a photo of a red cat", "a sketch"] * 32).reshape(32, 2, -1)
    empty = encode_captions(tokenizer, [""])[0]
    unet = build_unet(UNetSize((16, 16, 16), (1, 1, 1)))
    task = Denoising(unet, build_text_encoder(tokenizer), latents, captions, empty, batch=4)
    if stop_at:
        draw, count = task.draw, [0]

        def counted(generator: torch.Generator) -> Batch:
            count[0] += 1
            if count[0] == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return draw(generator)

        task.draw = counted  # type: ignore[method-assign]
    return task


def test_the_noise_is_weighed_so_that_colours_count() -> None:
    """As an error of the clean estimate: min(SNR + 1, 5); 12 at most where there is next to nothing but noise."""
    from palp_lab.tinyworld.pretrain_generator import noise_weight

    snr = torch.tensor([1e-4, 0.1, 0.5, 3.0, 100.0], dtype=torch.float64)
    weight = noise_weight(snr / (1 + snr))
    torch.testing.assert_close(weight[1:] * snr[1:], torch.tensor([1.1, 1.5, 4.0, 5.0], dtype=torch.float64))
    assert float(weight[0]) == 12.0


def test_most_timesteps_are_those_that_decide_what_is_shown() -> None:
    from palp_lab.tinyworld.pretrain_generator import clock

    t = clock((torch.arange(10_000) + 0.5) / 10_000)
    assert t.diff().ge(0).all() and int(t[0]) == 0 and int(t[-1]) == 999
    assert float((t < 150).float().mean()) == pytest.approx(0.0375, abs=1e-3)
    assert float((t >= 575).float().mean()) == pytest.approx(0.9625 / 2, abs=2e-3)


def test_draws_depend_on_seed_step_and_rank_alone() -> None:
    seen = {
        tuple(torch.randint(0, 2**31, (2,), generator=step_generator(seed, step, rank)).tolist())
        for seed in range(2) for step in range(20) for rank in range(4)
    }  # fmt: skip
    assert len(seen) == 160
    one, two = (torch.randn(3, generator=step_generator(7, 5, 1)) for _ in range(2))
    assert torch.equal(one, two)


def test_a_nan_loss_stops_with_one_line_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    train(Line, settings(tmp_path, steps=10))
    before = checkpoint_path(tmp_path).read_bytes()
    with pytest.raises(UserError, match=r"loss is nan at step 14.*learning_rate"):
        train(partial(Line, 0, 5), settings(tmp_path, steps=10))
    assert checkpoint_path(tmp_path).read_bytes() == before


def test_a_new_sitting_plans_anew_after_a_finished_one_and_on_request(tmp_path: Path) -> None:
    assert train(Line, settings(tmp_path, steps=10))["step"] == 10
    assert train(Line, settings(tmp_path, steps=10))["step"] == 20
    train(partial(Line, 5), settings(tmp_path, steps=1000))
    stopped = state(tmp_path)["step"]
    assert train(Line, settings(tmp_path, steps=10, replan=True))["step"] == stopped + 10


def test_minutes_become_steps_by_measured_speed(tmp_path: Path) -> None:
    done = train(Line, settings(tmp_path, steps=0, minutes=0.01))
    assert done["finished"] and done["step"] > 12


def test_a_sitting_that_is_stopped_before_it_has_a_plan_is_not_finished(tmp_path: Path) -> None:
    """The first steps are timed before minutes become steps."""
    assert not is_finished(tmp_path)
    assert not train(partial(Line, 3), settings(tmp_path, steps=0, minutes=0.01))["finished"]
    assert not is_finished(tmp_path)
    assert train(Line, settings(tmp_path, steps=0, minutes=0.01))["finished"] and is_finished(tmp_path)


def test_the_plan_warms_up_holds_and_falls() -> None:
    plan = Plan(0, 100, 60)
    scales = [plan.scale(step, warmup=10, floor=0.1) for step in range(101)]
    assert scales[0] == pytest.approx(0.1) and scales[9] == scales[59] == 1.0
    assert scales[80] == pytest.approx(0.55) and scales[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(scales[60:]))


def test_the_average_is_what_later_stages_load(tmp_path: Path) -> None:
    train(Line, settings(tmp_path, steps=50))
    saved, task = state(tmp_path), Line()
    load_averaged(task, tmp_path)
    assert all(torch.equal(p, a) for p, a in zip(task.parameters(), saved["ema"], strict=True))
    assert any(not torch.equal(value, dict(task.named_parameters())[name]) for name, value in saved["model"].items())


def test_broken_and_foreign_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint here"):
        load_averaged(Line(), tmp_path)
    checkpoint_path(tmp_path).write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"checkpoint\.pt: not a readable checkpoint"):
        train(Line, settings(tmp_path))
    other = tmp_path / "other"
    train(tiny_denoising, settings(other, steps=1))
    with pytest.raises(UserError, match="another architecture"):
        train(Line, settings(other))

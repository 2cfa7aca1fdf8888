"""The training step: what leaves the weights alone, what accumulates, what is logged, what stops it."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from palp_lab.adapter import read_adapter
from palp_lab.engine.personalizer import PATIENCE, Personalizer
from palp_lab.engine.settings import LogSettings
from palp_lab.losses.base import AbstractLoss, StepContext
from palp_lab.losses.prior_preservation import PriorPreservation
from palp_lab.losses.prompt_alignment import PromptAlignment
from palp_lab.losses.reconstruction import Reconstruction
from palp_lab.train import TrainingOutcome
from palp_lab.types import UserError
from tests.losses.toy import CONCEPT, ToyDataset, ToyModel

PRIOR = torch.randint(0, 256, (5, 3, 2, 2), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def weights(outcome: TrainingOutcome) -> dict[str, Tensor]:
    return read_adapter(outcome.last)[0]


def same(a: TrainingOutcome, b: TrainingOutcome) -> bool:
    one, two = weights(a), weights(b)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def apart(a: TrainingOutcome, b: TrainingOutcome) -> float:
    one, two = weights(a), weights(b)
    return max((one[name] - two[name]).abs().max().item() for name in one)


def rows(outcome: TrainingOutcome) -> list[dict[str, str]]:
    with outcome.log.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_same_run_twice_is_the_same_and_another_seed_is_not(train: Any) -> None:
    first = train()
    assert same(first, train())
    assert not same(first, train(given={"seed": 1}))


@pytest.mark.parametrize(
    "extra",
    [
        {"prompt_alignment": PromptAlignment(weight=0.0, noise="fresh", align_t="independent")},
        {"prior_preservation": PriorPreservation(weight=0.0)},
    ],
    ids=["prompt_alignment", "prior_preservation"],
)
def test_a_loss_of_weight_0_leaves_the_weights_bit_identical(train: Any, extra: dict[str, AbstractLoss]) -> None:
    """ti_db is palp of weight 0, draw for draw."""
    plain = {"reconstruction": Reconstruction()}
    assert same(train(plain), train({**plain, **extra}, given={"prior": PRIOR}))
    assert same(train(plain), train({**extra, **plain}, given={"prior": PRIOR}))


def test_a_loss_with_weight_changes_them(train: Any) -> None:
    plain = {"reconstruction": Reconstruction()}
    assert not same(train(plain), train({**plain, "prompt_alignment": PromptAlignment(weight=0.1)}))


def test_micro_batches_are_the_batch(train: Any) -> None:
    """Accumulation draws what one batch draws: 4 rows at once, 2 x 2, 4 x 1."""
    losses = {"reconstruction": Reconstruction(), "prompt_alignment": PromptAlignment(weight=0.1, noise="fresh")}
    whole = train(losses, batch_size=4, gradients_every=1)
    told = ["loss", "reconstruction/value", "prompt_alignment/value", "prompt_alignment/at_prediction", "gradient"]
    told += ["reconstruction/gradient", "prompt_alignment/gradient", "cosine/reconstruction~prompt_alignment"]
    for micros in (2, 4):
        cut = train(losses, batch_size=4, accumulate=micros, gradients_every=1)
        assert apart(whole, cut) < 1e-9
        for name in told:
            wanted = [float(row[name]) for row in rows(whole)]
            assert [float(row[name]) for row in rows(cut)] == pytest.approx(wanted, rel=1e-6)


def test_encoding_afresh_and_variants_draw_the_same_noise_and_t(train: Any) -> None:
    """Without augmentation one variant and a fresh encoding are the same pictures."""
    assert apart(train(flip=0.0, variants=0), train(flip=0.0, variants=8)) < 1e-12


def test_the_prior_stream_leaves_the_subject_alone(train: Any) -> None:
    """The instance term's log is the same whatever the prior's batch; only its own term moves."""
    seen = []
    for batch in (1, 3):
        losses = {
            "reconstruction": Reconstruction(),
            "prior_preservation": PriorPreservation(weight=0.0, batch_size=batch),
        }
        seen.append(rows(train(losses, given={"prior": PRIOR})))
    assert [row["reconstruction/value"] for row in seen[0]] == [row["reconstruction/value"] for row in seen[1]]
    assert [row["prior_preservation/value"] for row in seen[0]] != [row["prior_preservation/value"] for row in seen[1]]


def test_class_pictures_train_under_the_class_word(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never under the subject's own words, which would teach the model that all of its class look like it."""
    told: list[str] = []
    real = ToyModel.encode_prompts

    def encode(self: ToyModel, prompts: Any) -> Any:
        told.extend(prompts)
        return real(self, prompts)

    monkeypatch.setattr(ToyModel, "encode_prompts", encode)
    losses = {"reconstruction": Reconstruction(), "prior_preservation": PriorPreservation()}
    train(losses, given={"prior": PRIOR})
    assert set(told) == {f"a {CONCEPT.superclass}"}


def test_the_log_says_what_each_loss_pulls(train: Any) -> None:
    losses = {"reconstruction": Reconstruction(), "prompt_alignment": PromptAlignment(weight=0.5)}
    logged = rows(train(losses, gradients_every=2))
    assert [int(row["step"]) for row in logged] == [1, 2, 3, 4, 5, 6]
    for row in logged:
        shares = float(row["reconstruction/share"]) + float(row["prompt_alignment/share"])
        assert float(row["loss"]) == pytest.approx(shares)
        assert float(row["prompt_alignment/share"]) == pytest.approx(0.5 * float(row["prompt_alignment/value"]))
        # The gradient of 0.5 mean(d^2) at the output is d / numel, and the residual is the root mean square of d.
        size = 4 * 2 * 2 * 2
        wanted = float(row["prompt_alignment/residual"]) / size**0.5
        assert float(row["prompt_alignment/at_prediction"]) == pytest.approx(wanted, rel=1e-5)
        assert float(row["gradient"]) > 0
    assert [bool(row["cosine/reconstruction~prompt_alignment"]) for row in logged] == [False, True] * 3
    assert all(abs(float(row["cosine/reconstruction~prompt_alignment"])) <= 1 + 1e-9 for row in logged[1::2])


@pytest.mark.parametrize("how", [{}, {"accumulate": 2}, {"gradient_clip": 1e-3}], ids=str)
def test_measuring_gradients_changes_no_weight(train: Any, how: dict[str, Any]) -> None:
    losses = {"reconstruction": Reconstruction(), "prompt_alignment": PromptAlignment(weight=0.5)}
    assert same(train(losses, **how), train(losses, gradients_every=1, **how))


def test_gradients_are_measured_by_default() -> None:
    assert LogSettings().gradients_every == 50


def test_rows_only_as_often_as_asked(train: Any) -> None:
    assert [int(row["step"]) for row in rows(train(log_every=3))] == [1, 3, 6]


def test_gradients_are_measured_whenever_they_are_due(train: Any) -> None:
    """Also at steps that would have no row of the log."""
    losses = {"reconstruction": Reconstruction(), "prompt_alignment": PromptAlignment(weight=0.5)}
    logged = rows(train(losses, gradients_every=2, log_every=3))
    assert [int(row["step"]) for row in logged] == [1, 2, 3, 4, 6]
    measured = [int(row["step"]) for row in logged if row["cosine/reconstruction~prompt_alignment"]]
    assert measured == [2, 4, 6]


@pytest.mark.parametrize(
    ("how", "factors"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 4}, [0, 0.25, 0.5, 0.75, 1, 1]),
        ({"lr_scheduler": "linear"}, [6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ({"lr_scheduler": "linear", "lr_warmup_steps": 2}, [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ({"lr_scheduler": "cosine"}, [(1 + math.cos(math.pi * n / 6)) / 2 for n in range(6)]),
    ],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_rates_move_as_asked(
    train: Any, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], factors: list[float], accumulate: int
) -> None:
    """Those the optimizer steps with, counted in optimizer steps; the log holds the same ones."""
    used: list[list[float]] = []
    real = torch.optim.AdamW.step

    def step(self: Any, **how: Any) -> Any:
        used.append([group["lr"] for group in self.param_groups])
        return real(self, **how)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    logged = rows(train(token_lr=0.5, lr=1e-3, accumulate=accumulate, optimizer=how))
    assert used == [pytest.approx([0.5 * factor, 1e-3 * factor]) for factor in factors]
    assert [[float(row["lr/tokens"]), float(row["lr/edits"])] for row in logged] == used


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"lr_scheduler": "cosinus"}, r"optimizer\.lr_scheduler=cosinus: must be one of constant, constant_"),
        ({"lr_warmup_steps": -1}, r"optimizer\.lr_warmup_steps=-1: must be at least 0"),
        ({"lr_warmup_steps": 3}, r"lr_warmup_steps=3: constant knows no warm-up; give optimizer\.lr_sch"),
        ({"lr_scheduler": "constant_with_warmup"}, r"constant_with_warmup: give optimizer\.lr_warmup_steps"),
        ({"lr_scheduler": "linear", "lr_warmup_steps": 6}, r"never be reached in trainer\.max_steps=6"),
    ],
)
def test_schedules_that_mean_nothing_are_refused(train: Any, how: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        train(optimizer=how)


def test_words_have_their_own_rate_and_never_decay(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.Optimizer] = []
    real = Personalizer.configure_optimizers

    def configure(self: Personalizer) -> torch.optim.Optimizer:
        made.append(real(self))
        return made[-1]

    monkeypatch.setattr(Personalizer, "configure_optimizers", configure)
    outcome = train(token_lr=0.5, lr=1e-3)
    assert {tuple(group["weight_decay"] for group in optimizer.param_groups) for optimizer in made} == {(0.0, 1e-2)}
    assert [line.split(":")[0] for line in outcome.report] == ["tokens", "edits"]
    assert "learning rate 0.5" in outcome.report[0]
    assert "learning rate 0.001" in outcome.report[1]
    assert "6 numbers in 1 tensors" in outcome.report[0]
    assert outcome.cost["trainable_parameters"] == 6 + 2 * 15 + 16 * 2


class Poison(AbstractLoss):
    """A loss that is not finite from a step on."""

    weight, source = 1.0, "test"

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, ctx: StepContext) -> Tensor:
        value = Reconstruction()(ctx)
        return value * float("nan") if ctx.step == self.at else value

    def logged(self, ctx: StepContext) -> dict[str, float]:
        return {}


def test_a_loss_that_is_nan_stops_in_one_line_and_keeps_the_last_checkpoint(train: Any, tmp_path: Path) -> None:
    folder = tmp_path / "nan"
    with pytest.raises(UserError, match=r"stopped at step 4: losses\.poison is nan") as caught:
        train({"poison": Poison(3)}, folder=folder)
    assert "\n" not in str(caught.value)
    saved = torch.load(folder / "scratch/last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in saved["state_dict"].values())


class Several(Poison):
    """A number per row."""

    def __call__(self, ctx: StepContext) -> Tensor:
        return Reconstruction()(ctx).expand(3)


def test_a_loss_that_is_no_single_number_is_named_with_its_shape(train: Any) -> None:
    with pytest.raises(
        UserError, match=r"losses\.rows: must return one number, not a tensor of shape \(3,\); take its"
    ):
        train({"rows": Several(0)})


class Explosion(Poison):
    """Finite itself, with a gradient that is not."""

    def __call__(self, ctx: StepContext) -> Tensor:
        value = Reconstruction()(ctx)
        return (value - value.detach()).abs().sqrt() if ctx.step == self.at else value


def test_a_gradient_that_is_nan_stops_before_it_is_used(train: Any) -> None:
    with pytest.raises(UserError, match="stopped at step 4: the gradient is"):
        train({"poison": Explosion(3)})


def test_a_part_that_gets_no_gradient_is_named(train: Any) -> None:
    with pytest.raises(UserError, match="tokens is trained but got no gradient"):
        train({"prior_preservation": PriorPreservation()}, given={"prior": PRIOR})


def test_a_text_encoder_that_no_loss_reaches_is_named_beside_a_denoiser_that_learns() -> None:
    reached, cut_off = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    reached.grad = torch.ones(2)
    parts = [("edits.mid.lora_B", reached), ("edits.text_encoder_2.layers.0.lora_B", cut_off)]
    module: Any = SimpleNamespace(
        adapter=SimpleNamespace(parts=lambda: parts), global_step=0, _seen=set(), _waited={},
        stages=SimpleNamespace(at=lambda _: SimpleNamespace(trains=("tokens", "edits"))),
    )  # fmt: skip
    module.networks = lambda: Personalizer.networks(module)
    assert list(module.networks()) == ["edits", "edits.text_encoder_2"]
    for _ in range(PATIENCE - 1):
        Personalizer._check_alive(module)
    with pytest.raises(UserError, match=r"edits\.text_encoder_2 is trained but got no gradient"):
        Personalizer._check_alive(module)
    cut_off.grad = torch.ones(2)
    Personalizer._check_alive(module)


def test_all_weights_0_is_an_error(train: Any) -> None:
    with pytest.raises(UserError, match="every weight is 0"):
        train({"reconstruction": Reconstruction(weight=0.0)})


def test_only_the_adapter_is_saved(train: Any, tmp_path: Path) -> None:
    outcome = train(folder=tmp_path / "run", given={"steps": [2, 4, 99]})
    assert sorted(outcome.adapters) == [2, 4, 6]
    assert all(path.is_file() for path in outcome.adapters.values())
    tensors, about = read_adapter(outcome.adapters[4])
    assert sorted(tensors) == ["edits.down", "edits.up", "tokens.vector"]
    assert (about["step"], about["superclass"], about["target"]) == (4, "cat", "a sketch of {} in Paris")
    assert sorted(torch.load(outcome.folder / "scratch/last.ckpt", weights_only=True)["state_dict"]) == sorted(tensors)
    assert not [path for path in outcome.folder.rglob("*") if path.name.startswith(".")]


def test_the_base_is_bitwise_what_it_was(tmp_path: Path) -> None:
    from palp_lab.engine.settings import LogSettings, RunSettings, TrainerSettings
    from palp_lab.train import train_adapter
    from palp_lab.types import Kind
    from tests.losses.toy import ToyEdits, ToyModel, ToyTokens

    model = ToyModel(Kind.EPS)
    before = {name: tensor.clone() for name, tensor in model.denoiser.state_dict().items()}
    settings = RunSettings(TrainerSettings(max_steps=2, batch_size=2), log=LogSettings(1, 0, False))
    losses = {"reconstruction": Reconstruction()}
    train_adapter(
        model, ToyDataset(), ToyTokens(), ToyEdits(), losses, captions=["a {}"], folder=tmp_path, settings=settings
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.denoiser.state_dict().items())
    assert model.denoiser.delta is None

"""`train_adapter` on a random pipeline, as a notebook would call it, and what it refuses."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from palp_lab.adapter import Adapter, read_adapter
from palp_lab.dataset.concept import Concept
from palp_lab.dataset.picture_file import PreparedPicture
from palp_lab.edits.base import AbstractEdits
from palp_lab.edits.full import FullEdits
from palp_lab.edits.key_value import KeyValueEdits
from palp_lab.edits.lora import LoraEdits
from palp_lab.edits.none import NoEdits
from palp_lab.engine import gallery, latents
from palp_lab.engine.settings import (
    Augmentation,
    GallerySettings,
    LogSettings,
    OptimizerSettings,
    RunSettings,
    TrainerSettings,
)
from palp_lab.losses.prior_preservation import PriorPreservation
from palp_lab.losses.prompt_alignment import PromptAlignment
from palp_lab.losses.reconstruction import Reconstruction
from palp_lab.model.sites import SiteAttention
from palp_lab.model.unet import UNetModel
from palp_lab.tokens.learned import LearnedTokens
from palp_lab.train import TrainingOutcome, train_adapter
from palp_lab.types import UserError
from tests.test_recipes import MicroDataset


class FewPictures(MicroDataset):
    """The micro subject, without pictures of its class."""

    def class_renders(self, seeds: Any) -> None:
        return None


def settings(gallery: int = 0, max_steps: int = 4, **trainer: Any) -> RunSettings:
    return RunSettings(
        TrainerSettings(max_steps=max_steps, batch_size=2, save_every=2, gallery=gallery, **trainer),
        OptimizerSettings(lr=1e-3),
        LogSettings(1, 0, False),
        Augmentation(2, 0.5, 0.8),
        GallerySettings(("a photo of {}", "a sketch of {}"), (0, 1, 2), steps=2),
    )


def go(
    model: UNetModel, folder: Path, losses: Any = None, how: RunSettings | None = None, **more: Any
) -> TrainingOutcome:
    given = {"captions": ["a photo of a {}"], "target": "a sketch of a {} in paris", **more}
    return train_adapter(
        model,
        given.pop("dataset", MicroDataset()),
        given.pop("tokens", LearnedTokens()),
        given.pop("edits", LoraEdits(rank=2)),
        losses or {"reconstruction": Reconstruction(), "prompt_alignment": PromptAlignment(weight=0.1)},
        folder=folder,
        settings=how or settings(),
        **given,
    )


def test_an_adapter_that_is_loaded_again_predicts_the_same(micro: UNetModel, tmp_path: Path) -> None:
    outcome = go(micro, tmp_path, steps=[2])
    assert sorted(outcome.adapters) == [2, 4]
    tensors, about = read_adapter(outcome.last)
    assert about["placeholder"] == "<v>"
    concept: Concept = MicroDataset().concept()
    x, t = torch.randn(1, *micro.latent_shape, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    base = micro.predict(x, t, micro.base_text(["a photo of a cat"])).raw
    adapter = Adapter(micro, LearnedTokens(), LoraEdits(rank=2), concept)
    with torch.no_grad():
        fresh = micro.predict(x, t, adapter.encode(["a photo of a {}"])).raw
        torch.testing.assert_close(fresh, base)
        adapter.load_tensors(tensors)
        trained = micro.predict(x, t, adapter.encode(["a photo of a {}"])).raw
    assert not torch.allclose(trained, base)
    assert outcome.cost["adapter_bytes"] == outcome.last.stat().st_size
    assert outcome.cost["peak_memory"] > 1e6
    assert outcome.cost["seconds"] > 0


@pytest.mark.parametrize("edits", [LoraEdits(rank=2, text_encoder=True), KeyValueEdits(), NoEdits()], ids=type)
def test_what_is_trained_is_told_in_a_file(micro: UNetModel, tmp_path: Path, edits: AbstractEdits) -> None:
    """A line for each tensor: its name in the adapter and its shape."""
    go(micro, tmp_path, {"reconstruction": Reconstruction()}, edits=edits, how=settings(max_steps=1))
    adapter = Adapter(micro, LearnedTokens(), edits, MicroDataset().concept())
    told = (tmp_path / "trainable.txt").read_text().splitlines()
    assert told == [f"{name} {list(parameter.shape)}" for name, parameter in adapter.parts()]
    kept = read_adapter(tmp_path / "adapters/step_000001.safetensors")[0]
    assert sorted(told) == sorted(f"{name} {list(tensor.shape)}" for name, tensor in kept.items())


def test_the_gallery_changes_nothing_that_trains(micro: UNetModel, tmp_path: Path) -> None:
    without = read_adapter(go(micro, tmp_path / "a").last)[0]
    shown = go(micro, tmp_path / "b", how=settings(gallery=2))
    assert sorted(path.name for path in (tmp_path / "b/gallery").iterdir()) == ["step_000002.png", "step_000004.png"]
    sheet = np.asarray(Image.open(tmp_path / "b/gallery/step_000004.png"))
    assert sheet.shape == (2 * 32, 3 * 32, 3)
    with_it = read_adapter(shown.last)[0]
    assert all(torch.equal(without[name], with_it[name]) for name in without)


@pytest.mark.parametrize("memory", [True, False])
def test_the_gallery_shows_the_average_that_is_saved(
    micro: UNetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: bool
) -> None:
    """And gives the weights back bit for bit, where memory runs out too."""
    only = {"reconstruction": Reconstruction()}
    go(micro, tmp_path / "a", only, how=settings(ema=0.9))
    shown: list[dict[str, torch.Tensor]] = []
    real = gallery.personal_text

    def seen(adapter: Adapter, sentences: list[str]) -> Any:
        shown.append({name: tensor.clone() for name, tensor in adapter.tensors().items()})
        if not memory:
            raise torch.OutOfMemoryError("none left")
        return real(adapter, sentences)

    monkeypatch.setattr(gallery, "personal_text", seen)
    outcome = go(micro, tmp_path / "b", only, how=settings(gallery=2, ema=0.9), steps=[2])
    for step, tensors in zip((2, 4), shown[::2], strict=False):
        saved = read_adapter(outcome.adapters[step])[0]
        assert all(torch.equal(saved[name], tensors[name]) for name in saved)
    without, with_it = (torch.load(tmp_path / x / "scratch/last.ckpt", weights_only=True)["state_dict"] for x in "ab")
    assert without and all(torch.equal(without[name], with_it[name]) for name in without)


def test_a_sheet_that_was_being_drawn_when_the_run_was_killed_is_drawn(
    micro: UNetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the last step too, after which nothing is left to train."""
    only, how = {"reconstruction": Reconstruction()}, settings(gallery=2)
    go(micro, tmp_path / "whole", only, how=how)
    real = gallery.Gallery._keep
    for step in (2, 4):

        def killed(self: Any, trainer: Any, sheet: Image.Image, at: int, step: int = step) -> None:
            if at == step:
                raise KeyError("killed")
            real(self, trainer, sheet, at)

        with monkeypatch.context() as patch, pytest.raises(KeyError, match="killed"):
            patch.setattr(gallery.Gallery, "_keep", killed)
            go(micro, tmp_path / "cut", only, how=how)
    go(micro, tmp_path / "cut", only, how=how)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / x / "gallery").iterdir()} for x in ("whole", "cut"))
    assert sorted(one) == ["step_000002.png", "step_000004.png"] and one == two


def test_the_gallery_is_no_part_of_the_trainings_time(
    micro: UNetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*given: Any) -> torch.Tensor:
        time.sleep(0.1)
        return torch.zeros(1, 3, 32, 32, dtype=torch.uint8)

    monkeypatch.setattr(gallery, "draw", slowly)
    began = time.perf_counter()
    outcome = go(micro, tmp_path, {"reconstruction": Reconstruction()}, how=settings(gallery=2))
    assert 0 < outcome.cost["seconds"] <= time.perf_counter() - began - 2 * 2 * 3 * 0.1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["accelerator", "cpu"],
)
def test_a_gallery_without_memory_is_left_out(
    micro: UNetModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: RuntimeError,
) -> None:
    def full(*given: Any) -> torch.Tensor:
        raise error

    monkeypatch.setattr(gallery, "draw", full)
    with caplog.at_level("WARNING", gallery.__name__):
        outcome = go(micro, tmp_path, {"reconstruction": Reconstruction()}, how=settings(gallery=1))
    assert outcome.last.is_file()
    assert not (tmp_path / "gallery").exists()
    assert len([record for record in caplog.records if record.name == gallery.__name__]) == 1


def test_what_else_goes_wrong_in_the_gallery_is_not_taken_for_memory(
    micro: UNetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> torch.Tensor:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(gallery, "draw", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        go(micro, tmp_path, {"reconstruction": Reconstruction()}, how=settings(gallery=1))


def test_class_pictures_are_drawn_once_by_the_untrained_model(
    micro: UNetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from palp_lab.engine import prior

    monkeypatch.setattr(prior, "STEPS", 2)
    drawn, noise = [], []
    real = prior.draw_class
    monkeypatch.setattr(
        prior, "draw_class", lambda *given: drawn.append(given[1]) or noise.append(given[2]) or real(*given)
    )
    losses = {"reconstruction": Reconstruction(), "prior_preservation": PriorPreservation(count=3, prompt="a {}")}
    go(micro, tmp_path / "a", losses, dataset=FewPictures(), cache=tmp_path / "shared")
    go(micro, tmp_path / "b", losses, dataset=FewPictures(), cache=tmp_path / "shared", seed=1)
    assert drawn == ["a cat"]
    assert min(noise[0]) > 10**6, "drift is measured against the base's pictures of the first seeds"
    [kept] = (tmp_path / "shared/class_pictures").iterdir()
    kept.write_bytes(kept.read_bytes()[:-8])
    go(micro, tmp_path / "e", losses, dataset=FewPictures(), cache=tmp_path / "shared")
    assert drawn == ["a cat"] * 2, "a damaged file is not taken for pictures"
    given = {**losses, "prior_preservation": PriorPreservation(pictures="given")}
    with pytest.raises(UserError, match=r"prior_preservation\.pictures=given: this dataset has no"):
        go(micro, tmp_path / "c", given, dataset=FewPictures())
    go(micro, tmp_path / "d", given)


def test_class_pictures_are_drawn_in_smaller_batches_where_memory_runs_out(
    micro: UNetModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from palp_lab.engine import prior

    monkeypatch.setattr(prior, "STEPS", 2)
    whole, decode, asked = prior.draw_class(micro, "a cat", range(5)), micro.decode_image, []

    def small(latents: torch.Tensor) -> torch.Tensor:
        asked.append(len(latents))
        if len(latents) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(latents)

    monkeypatch.setattr(micro, "decode_image", small)
    parts = prior.draw_class(micro, "a cat", range(5))
    assert asked == [5, 2, 2, 1]
    assert int((parts.int() - whole.int()).abs().max()) <= 1


def test_a_second_training_encodes_nothing(
    micro: UNetModel, micro_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another method on the same photos and seed reads what the first has left, and comes out as it would alone."""
    encoded: list[int] = []
    real = UNetModel.encode_image
    monkeypatch.setattr(UNetModel, "encode_image", lambda self, x: encoded.append(len(x)) or real(self, x))
    only = {"reconstruction": Reconstruction()}
    latents._kept.clear()
    alone = read_adapter(go(micro, tmp_path / "alone", only).last)[0]
    assert sum(encoded) == 2 * len(MicroDataset().concept().photos)
    go(micro, tmp_path / "first", cache=tmp_path / "shared")
    encoded.clear()
    latents._kept.clear()
    after = read_adapter(go(UNetModel.open(micro_path), tmp_path / "second", only, cache=tmp_path / "shared").last)[0]
    assert encoded == []
    assert all(torch.equal(alone[name], after[name]) for name in alone)


@pytest.mark.parametrize("edits", [LoraEdits, KeyValueEdits, FullEdits])
def test_gradient_checkpointing_acts_while_a_training_asks_for_it(
    micro: UNetModel, tmp_path: Path, edits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cross-attention runs once more per step, the weights are the same, and the shared model forgets it."""
    counted = Counter[str]()
    real = SiteAttention.__call__

    def count(self: SiteAttention, *given: Any, **named: Any) -> torch.Tensor:
        counted[place] += torch.is_grad_enabled()
        return real(self, *given, **named)

    monkeypatch.setattr(SiteAttention, "__call__", count)
    made = {}
    for place, on in (("off", False), ("on", True), ("off again", False)):
        how = settings(max_steps=2, gradient_checkpointing=on)
        losses = {"reconstruction": Reconstruction()}
        made[place] = read_adapter(go(micro, tmp_path / place, losses, edits=edits(), how=how).last)[0]
        assert not micro.base.is_gradient_checkpointing
    assert counted["off"] == counted["off again"] > 0
    assert counted["on"] == 2 * counted["off"]
    for name, tensor in made["off"].items():
        torch.testing.assert_close(made["on"][name], tensor, rtol=1e-4, atol=1e-6)
        assert torch.equal(made["off again"][name], tensor)


def test_measuring_gradients_goes_with_checkpointing(micro: UNetModel, tmp_path: Path) -> None:
    made = []
    for every in (0, 1):
        how = replace(settings(max_steps=2, gradient_checkpointing=True), log=LogSettings(1, every, False))
        made.append(read_adapter(go(micro, tmp_path / str(every), how=how).last)[0])
    assert all(torch.equal(made[0][name], tensor) for name, tensor in made[1].items())


def test_bf16_runs(micro_path: Path, tmp_path: Path) -> None:
    plain = read_adapter(go(UNetModel.open(micro_path), tmp_path / "a").last)[0]
    low = read_adapter(go(UNetModel.open(micro_path), tmp_path / "c", how=settings(precision="bf16")).last)[0]
    assert any(not torch.equal(plain[name], low[name]) for name in plain)
    assert all(torch.isfinite(tensor).all() for tensor in low.values())
    assert all(tensor.dtype == torch.float32 for tensor in low.values())


def test_other_words_are_bit_identical_afterwards(micro: UNetModel, tmp_path: Path) -> None:
    table = {name: tensor.clone() for name, tensor in micro.text.encoder.state_dict().items()}
    before = micro.encode_text(micro.tokenize(["a photo of a dog in the snow"])).tokens
    go(micro, tmp_path)
    assert all(torch.equal(table[name], tensor) for name, tensor in micro.text.encoder.state_dict().items())
    assert torch.equal(before, micro.encode_text(micro.tokenize(["a photo of a dog in the snow"])).tokens)


def test_every_vector_of_a_word_learns(micro: UNetModel, tmp_path: Path) -> None:
    start = micro.word_vectors("cat")[0]
    losses = {"reconstruction": Reconstruction()}
    outcome = go(micro, tmp_path, losses, tokens=LearnedTokens(num_vectors=3), edits=NoEdits())
    vectors = read_adapter(outcome.last)[0]["tokens.vectors.0"]
    assert vectors.shape[0] == 3
    assert ((vectors - start).abs().amax(1) > 0).all()
    assert not torch.equal(vectors[0], vectors[1])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"target": None}, r"target: losses\.prompt_alignment needs a target prompt; add 'target="),
        ({"target": "a sketch of a cat"}, r"target: .* needs exactly one \{\}"),
        ({"captions": ["a photo of a cat"]}, r"captions: .* needs exactly one \{\}"),
        ({"captions": []}, "captions: there are none"),
        ({"losses": {}}, "losses: there are none"),
        ({"tokens": LearnedTokens(phrase="sks"), "losses": {"reconstruction": Reconstruction()}}, "tokens"),
    ],
)
def test_what_the_user_can_mend_is_one_line(micro: UNetModel, tmp_path: Path, more: dict[str, Any], said: str) -> None:
    losses = more.get("losses", {"reconstruction": Reconstruction(), "prompt_alignment": PromptAlignment()})
    rest = {key: value for key, value in more.items() if key != "losses"}
    with pytest.raises(UserError, match=said) as caught:
        train_adapter(
            micro, MicroDataset(), rest.pop("tokens", LearnedTokens()), LoraEdits(rank=2), losses, folder=tmp_path,
            settings=settings(max_steps=8), **{"captions": ["a photo of a {}"], "target": "a sketch of a {}", **rest},
        )  # fmt: skip
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "adapters").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"batch_size": 3, "accumulate": 2}, r"trainer\.batch_size=3: cannot be split"),
        ({"max_steps": 0}, r"trainer\.max_steps=0"),
        ({"precision": "16"}, r"trainer\.precision=16: must be 32 or bf16"),
        ({"ema": 1.5}, r"trainer\.ema=1\.5"),
        ({"gradient_clip": -1.0}, r"trainer\.gradient_clip"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        TrainerSettings(**wrong)


@pytest.mark.parametrize(("less", "warned"), [(1, True), (0, False)])
def test_photos_that_are_scaled_up_are_said_to_be(
    micro: UNetModel, tmp_path: Path, caplog: pytest.LogCaptureFixture, less: int, warned: bool
) -> None:
    """The dataset has scaled them before the model sees them; held-out ones train nothing."""
    side = micro.resolution

    class Small(MicroDataset):
        def concept(self) -> Concept:
            photo = PreparedPicture("a.png", 2 * side, side - less, (0, 0, side - less, side - less), side)
            held_out = replace(photo, height=side - 2, role="held_out")
            given = super().concept()
            photos = torch.zeros(len(given.photos), 3, side, side, dtype=torch.uint8)
            return replace(given, photos=photos, masks=None, pictures=(photo, held_out))

    with caplog.at_level("WARNING", "palp_lab.train"):
        go(micro, tmp_path, {"reconstruction": Reconstruction()}, settings(max_steps=1), dataset=Small())
    assert (f"photos of {side - 1} pixels a side are scaled up, the model takes {side}" in caplog.text) is warned
    assert warned or "scaled up" not in caplog.text


def test_float16_is_not_trained_in(tmp_path: Path) -> None:
    model: Any = SimpleNamespace(dtype=torch.float16)
    with pytest.raises(UserError, match=r"dtype=float16: .* train in bfloat16 or float32"):
        train_adapter(model, None, None, None, {}, captions=["a {}"], folder=tmp_path)  # type: ignore[arg-type]

"""Pictures of prompts x seeds: each from its own noise, the same in any company."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from palp_lab.adapter import Adapter
from palp_lab.dataset.concept import Concept
from palp_lab.edits.lora import LoraEdits
from palp_lab.engine.pictures import check_finite, is_out_of_memory
from palp_lab.generate import (
    Sampling,
    base,
    clean,
    described,
    generate_pictures,
    personal,
    start,
    to_uint8,
    without_concept,
)
from palp_lab.model.unet import UNetModel
from palp_lab.pictures import Picture
from palp_lab.tokens.learned import LearnedTokens
from palp_lab.types import UserError

SENTENCES = ["a photo of a {} in the snow", "a sketch of a {}"]
FAST = Sampling("ddim", 3, 5.0)


def concept() -> Concept:
    photos = torch.zeros((1, 3, 32, 32), dtype=torch.uint8)
    return Concept("test", "cat", "<v>", photos, "digest", description="spotted red cat")


@pytest.fixture
def adapter(micro: UNetModel) -> Adapter:
    """An adapter that changes pictures: random updates instead of the zeros training starts from."""
    found = Adapter(micro, LearnedTokens(), LoraEdits(rank=2), concept())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in found.parts():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return found


def draw(model: UNetModel, prompting, seeds=(0, 1), sentences=SENTENCES, sampling=FAST, size=8) -> list[Picture]:  # type: ignore[no-untyped-def]
    return list(generate_pictures(model, prompting, sentences, seeds, sampling, size))


def differ(a: Picture, b: Picture) -> int:
    return int((a.image.int() - b.image.int()).abs().max())


@pytest.mark.parametrize("scheduler", ["ddim", "dpm++", "euler_a", "ddpm"])
def test_neither_batch_nor_order_nor_neighbours_change_a_picture(micro: UNetModel, scheduler: str) -> None:
    """Ancestral samplers draw further noise: from the picture's own generator too."""
    sampling, prompting = Sampling(scheduler, 4, 5.0), clean(micro, concept())
    many = draw(micro, prompting, (0, 1, 2), sampling=sampling, size=4)
    assert [(p.sentence, p.seed) for p in many] == [(s, seed) for s in SENTENCES for seed in (0, 1, 2)]
    few = {(p.sentence, p.seed): p for p in draw(micro, prompting, (2, 0), SENTENCES[::-1], sampling, 1)}
    both = [(p, few[p.sentence, p.seed]) for p in many if p.seed != 1]
    assert len(both) == 4
    assert all(differ(p, q) <= 1 for p, q in both), "up to the rounding of another matrix shape"
    assert differ(many[0], many[1]) > 10
    assert differ(many[0], many[3]) > 1


def test_the_same_call_gives_the_same_bytes(micro: UNetModel) -> None:
    one, two = (draw(micro, clean(micro, concept())) for _ in range(2))
    assert all(torch.equal(p.image, q.image) for p, q in zip(one, two, strict=True))


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_equals_the_stock_pipeline(micro_path: Path, micro: UNetModel, guidance: float) -> None:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(micro_path, local_files_only=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        "a photo of a cat in the snow", num_inference_steps=4, guidance_scale=guidance, output_type="np",
        generator=torch.Generator().manual_seed(7),
    ).images[0]  # fmt: skip
    (ours,) = draw(micro, clean(micro, concept()), [7], SENTENCES[:1], Sampling("ddim", 4, guidance))
    stock = torch.from_numpy((theirs * 255).round()).permute(2, 0, 1)
    assert float((ours.image.float() - stock).abs().max()) <= 1


def test_pictures_say_how_they_were_made(micro: UNetModel) -> None:
    (picture,) = generate_pictures(micro, described(micro, concept()), SENTENCES[:1], [5], FAST, 8, {"strength": 0.5})
    assert picture.prompt == "a photo of a spotted red cat in the snow"
    assert (picture.sentence, picture.seed) == (SENTENCES[0], 5)
    assert picture.knobs == {
        "scheduler": "ddim", "steps": 3, "guidance": 5.0, "negative": "", "strength": 0.5,
        "model": micro.fingerprint, "version": picture.knobs["version"],
    }  # fmt: skip
    assert picture.image.dtype == torch.uint8
    assert picture.image.shape == (3, 32, 32)


def test_personal_and_base_pictures_of_one_model(adapter: Adapter) -> None:
    model = adapter.model
    assert isinstance(model, UNetModel)
    mine = draw(model, personal(adapter))
    assert mine[0].prompt == "a photo of a <v> in the snow"
    bare = draw(model, without_concept(adapter), sentences=["a photo of a cat"])
    untouched = draw(model, base(model, str, adapter), sentences=["a photo of a cat"])
    switched_off = draw(model, clean(model, adapter.concept, adapter))
    adapter.edits.detach()
    assert all(
        torch.equal(p.image, q.image)
        for p, q in zip(draw(model, clean(model, adapter.concept)), switched_off, strict=True)
    )
    assert torch.equal(draw(model, base(model, str), sentences=["a photo of a cat"])[0].image, untouched[0].image)
    assert differ(bare[0], untouched[0]) > 1, "the edits show in prompts without the concept: that is drift"
    assert differ(mine[0], switched_off[0]) > 1


def test_guidance_and_negative_prompt_matter(micro: UNetModel) -> None:
    prompting = clean(micro, concept())
    plain, guided, negative = (
        draw(micro, prompting, [0], SENTENCES[:1], Sampling("ddim", 3, g, n))[0]
        for g, n in ((1.0, ""), (7.5, ""), (7.5, "a dark picture"))
    )
    assert differ(plain, guided) > 1
    assert differ(guided, negative) > 0


def test_out_of_memory_halves_the_batch_and_goes_on(micro: UNetModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw(micro, clean(micro, concept()), (0, 1, 2))
    rows = []
    predict = micro.predict

    def small(x_t, t, cond):  # type: ignore[no-untyped-def]
        rows.append(len(x_t))
        if len(x_t) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(x_t, t, cond)

    monkeypatch.setattr(micro, "predict", small)
    parts = draw(micro, clean(micro, concept()), (0, 1, 2), size=6)
    assert (rows[0], rows[1], max(rows[2:])) == (12, 6, 2)
    assert [(p.sentence, p.seed) for p in parts] == [(p.sentence, p.seed) for p in whole]
    assert all(differ(p, q) <= 1 for p, q in zip(parts, whole, strict=True))


def test_one_picture_that_does_not_fit_is_one_line(micro: UNetModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(micro, "predict", never)
    with pytest.raises(UserError, match="does not fit into memory"):
        draw(micro, clean(micro, concept()))


def test_other_errors_are_not_taken_for_memory(micro: UNetModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(micro, "predict", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        draw(micro, clean(micro, concept()))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_noise_is_the_seeds_own() -> None:
    one, _ = start(3, (4, 8, 8))
    assert torch.equal(one, torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(3))[0])
    assert not torch.equal(one, start(4, (4, 8, 8))[0])


def test_pixels_become_bytes_and_what_is_not_finite_is_black(caplog: pytest.LogCaptureFixture) -> None:
    pixels = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, float("nan"), float("inf"), -float("inf")])
    assert to_uint8(pixels).tolist() == [0, 0, 128, 255, 255, 0, 0, 0]
    assert "not finite" in caplog.text


@pytest.mark.parametrize(("dtype", "fix"), [(torch.float32, "optimizer.lr"), (torch.float16, "dtype=bfloat16")])
def test_a_picture_that_is_not_finite_is_an_error_that_names_it(dtype: torch.dtype, fix: str) -> None:
    pixels = torch.zeros(2, 3, 4, 4)
    assert check_finite(pixels, ["a", "b"], dtype) is pixels
    pixels[1, 2, 3, 0] = float("nan")
    with pytest.raises(UserError, match=f"the picture of b holds values that are not finite; .*{fix}"):
        check_finite(pixels, ["a", "b"], dtype)


def test_a_diverged_adapter_leaves_no_pictures(micro: UNetModel, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {1}
    decode = micro.decode_image

    def decoded(latents: torch.Tensor) -> torch.Tensor:
        pixels = decode(latents)
        rows = torch.tensor([i in broken for i in range(len(pixels))])
        return torch.where(rows[:, None, None, None], torch.nan, pixels)

    monkeypatch.setattr(micro, "decode_image", decoded)
    with pytest.raises(UserError, match=r"the picture of 'a photo of a cat in the snow', seed 1 holds values"):
        draw(micro, clean(micro, concept()))


def test_an_unknown_scheduler_or_no_steps_is_one_line(micro: UNetModel) -> None:
    with pytest.raises(UserError, match=r"generate\.scheduler"):
        draw(micro, clean(micro, concept()), sampling=Sampling("dpm", 3))
    with pytest.raises(UserError, match=r"generate\.steps"):
        Sampling(steps=0)

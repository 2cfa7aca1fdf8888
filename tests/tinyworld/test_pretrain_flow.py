"""The flow stage: what is drawn, what is learned, and that one token of zeros stands for all of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.models.attention_processor import JointAttnProcessor2_0

from palp_lab.tinyworld.pretrain_flow import (
    ABSENT,
    FlowMatching,
    Teacher,
    _adopt,
    build_flow_task,
    build_text_encoders,
    build_transformer,
    standardise,
)
from palp_lab.tinyworld.pretrain_flow_unet import SIZE, FlowUNet
from palp_lab.tinyworld.pretrain_generator import build_unet
from palp_lab.tinyworld.pretrain_text import build_text_encoder, build_tokenizer, encode_captions
from palp_lab.types import UserError

CAPTIONS = ["a photo of a cat", "a sketch of a red dog in the snow", "a watercolor of a car at night"]


@pytest.fixture
def task() -> FlowMatching:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = build_tokenizer()
        table = encode_captions(tokenizer, CAPTIONS)[:, None]
        latents = np.random.default_rng(0).normal(size=(3, 8, 16, 16)).astype(np.float16)
        empty = encode_captions(tokenizer, [""])[0]
        return FlowMatching(
            build_transformer(), build_text_encoders(tokenizer), latents, table, empty, batch=8, bf16=False
        )


def test_it_starts_with_nothing_to_say_and_a_step_teaches_it(task: FlowMatching) -> None:
    batch = task.draw(torch.Generator().manual_seed(0))
    before = task(batch)
    torch.testing.assert_close(before, (batch["noise"] - batch["x"]).square().mean())
    learned = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, 0.1)
    before.backward()
    optimizer.step()
    assert task(batch) < before
    assert all(parameter.grad is None for parameter in task.text.parameters()), "the first text encoder is frozen"


def test_a_teacher_that_knows_the_noise_gives_the_true_velocity(task: FlowMatching) -> None:
    batch = task.draw(torch.Generator().manual_seed(0))
    seen: dict[str, torch.Tensor] = {}

    class Knows(torch.nn.Module):
        def set_attn_processor(self, _: object) -> None: ...

        def forward(self, x: torch.Tensor, time: torch.Tensor, told: torch.Tensor) -> SimpleNamespace:
            seen.update(x=x, time=time)
            return SimpleNamespace(sample=batch["noise"])

    teacher = Teacher(Knows(), build_text_encoder(build_tokenizer()))  # type: ignore[arg-type]
    share = batch["sigma"].clone()
    share[-1] = 0.9999  # more noise than the generator's clock holds
    wide = share.view(-1, 1, 1, 1)
    true = batch["noise"] - batch["x"]
    mixed = (1 - wide) * batch["x"] + wide * batch["noise"]
    found = teacher.velocity(mixed, share, batch["ids"], torch.full_like(true, 7.0))
    torch.testing.assert_close(found[:-1], true[:-1], atol=2e-3, rtol=1e-3)
    assert (found[-1] == 7.0).all()
    # The generator is asked at the time whose share of noise is the nearest, about pictures of its own scale.
    alpha = teacher.alphas[seen["time"]].view(-1, 1, 1, 1)
    asked = alpha.sqrt() * batch["x"] + (1 - alpha).sqrt() * batch["noise"]
    torch.testing.assert_close(seen["x"][:-1], asked[:-1], atol=0.05, rtol=0.05)


def test_what_is_taught_is_what_is_learned(task: FlowMatching) -> None:
    class Says(Teacher):
        def __init__(self) -> None: ...

        def velocity(self, mixed, share, ids, given):  # type: ignore[no-untyped-def]
            return torch.full_like(mixed, 3.0)

    batch = task.draw(torch.Generator().manual_seed(0))
    task.teacher = (Says(),)
    torch.testing.assert_close(task(batch), torch.tensor(9.0))


def test_stable_diffusion_threes_layer_is_the_generators_last() -> None:
    tokenizer = build_tokenizer()
    text, (first, _) = build_text_encoder(tokenizer).eval(), build_text_encoders(tokenizer)
    first.eval()
    _adopt(first, text)
    ids = torch.from_numpy(encode_captions(tokenizer, CAPTIONS).astype(np.int64))
    with torch.no_grad():
        own, theirs = text(ids, output_hidden_states=True), first(ids, output_hidden_states=True)
    assert torch.equal(theirs.hidden_states[-2], own.hidden_states[-1])
    torch.testing.assert_close(theirs.text_embeds, own.pooler_output)


def test_shares_of_noise_are_stratified_and_the_same_for_the_same_generator(task: FlowMatching) -> None:
    one, other = (task.draw(torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    ranks = torch.special.ndtr(one["sigma"].logit())
    assert torch.equal((ranks * 8).long(), torch.arange(8)), "one from each eighth of the logit-normal"


@torch.no_grad()
def test_one_token_of_zeros_counts_as_the_stock_pipelines_many(task: FlowMatching) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in task.transformer.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    context, pooled = task.told(torch.from_numpy(task.captions[:2, 0].astype(np.int64)))
    x_t, t = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(2)), torch.tensor([300.0, 800.0])
    ours = task.transformer(x_t, context, pooled, t).sample
    task.transformer.set_attn_processor(JointAttnProcessor2_0())
    many = torch.cat([context[:, :-1], context[:, -1:].expand(-1, ABSENT, -1)], 1)
    torch.testing.assert_close(ours, task.transformer(x_t, many, pooled, t).sample, rtol=1e-4, atol=1e-4)
    assert (ours - task.transformer(x_t, context, pooled, t).sample).abs().max() > 0.1


@torch.no_grad()
def test_the_texts_entry_is_standardised(task: FlowMatching) -> None:
    ids = torch.from_numpy(task.captions[:, 0].astype(np.int64))
    end = build_tokenizer().eos_token_id
    weight = task.transformer.context_embedder.weight.clone()
    standardise(task, ids, end)
    said = task.told(ids)[0][:, :-1][:, 1:][ids[:, 1:] != end]
    expected = (said - said.mean(0)) / said.std(0) @ weight.T
    found = task.transformer.context_embedder(said)
    torch.testing.assert_close(found - found.mean(0), expected, rtol=1e-3, atol=1e-3)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stage=latents first"):
        build_flow_task(tmp_path, 4, False)


def test_the_shipped_one_opens_in_the_stock_pipeline_and_draws_our_picture() -> None:
    """Without a dtype, and with the stock pipeline's own 256 tokens for the T5 that is not there."""
    import palp_lab
    from palp_lab.generate import Sampling, base, generate_pictures
    from palp_lab.model import open_model

    folder = Path(palp_lab.__file__).parent / "tinyworld" / "weights" / "tiny_flow"
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    pipe.set_progress_bar_config(disable=True)
    prompt, seed = "a watercolor of a cat at night", 3
    theirs = pipe(
        prompt, num_inference_steps=4, guidance_scale=5.0, generator=torch.Generator().manual_seed(seed)
    ).images[0]
    model = open_model("tiny_flow")
    ours = next(iter(generate_pictures(model, base(model, str), [prompt], [seed], Sampling("ddim", 4, 5.0))))
    image = ours.image.permute(1, 2, 0).numpy().astype(int)
    assert image.shape == (64, 64, 3) and image.std() > 10
    assert np.abs(image - np.asarray(theirs).astype(int)).max() <= 1


def test_the_flow_unet_learns_what_it_is_taught() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = build_tokenizer()
        table = encode_captions(tokenizer, CAPTIONS)[:, None]
        latents = np.random.default_rng(0).normal(size=(3, 8, 16, 16)).astype(np.float16)
        unet, text = build_unet(SIZE), build_text_encoder(tokenizer)
        task = FlowUNet(unet, text, latents, table, encode_captions(tokenizer, [""])[0], batch=8, bf16=False)
    batch = task.draw(torch.Generator().manual_seed(0))
    before = task(batch)
    torch.testing.assert_close(before, (batch["noise"] - batch["x"]).square().mean())
    learned = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, 0.1)
    before.backward()
    optimizer.step()
    assert task(batch) < before
    assert all(parameter.grad is None for parameter in task.text.parameters()), "the text encoder is frozen"

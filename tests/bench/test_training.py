"""What a training step costs, as multiples of a simpler one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from palp_lab.adapter import Adapter
from palp_lab.edits.lora import LoraEdits
from palp_lab.engine.augmentation import to_pixels
from palp_lab.model.base import TextCond
from palp_lab.tokens.learned import LearnedTokens
from tests.bench.lab import TARGET, Lab
from tests.bench.measuring import SMALL, compare, report, stopwatch

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

BATCH, RANK, STEPS = (1, 2, 1) if SMALL else (4, 16, 5)
SAME = (f"trainer.batch_size={BATCH}", f"edits.rank={RANK}")


def bare_loop(lab: Lab, steps: int = STEPS) -> float:
    """The same encoding, forward pass, backward pass and AdamW step in plain torch, on latents encoded beforehand."""
    model, concept = lab.model, lab.dataset.concept()
    adapter = Adapter(model, LearnedTokens(), LoraEdits(RANK), concept)
    try:
        parameters = [parameter for _, parameter in adapter.parts()]
        optimizer = torch.optim.AdamW(parameters, lr=1e-3)
        x0 = model.encode_image(to_pixels(concept.photos[:BATCH], model.resolution)).mean

        def step() -> None:
            t, noise = torch.randint(model.path.steps, (BATCH,), device=model.device), torch.randn_like(x0)
            cond = adapter.encode(["a photo of a {}"])[torch.zeros(BATCH, dtype=torch.long, device=model.device)]
            pred = model.predict(model.path.add_noise(x0, noise, t), t, cond)
            loss = (pred.raw - pred.target(x0, noise)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

        step()
        return stopwatch(lambda: [step() for _ in range(steps)], model.device, steps)()
    finally:
        adapter.detach()


def test_methods(lab: Lab, tmp_path: Path) -> None:
    run = partial(lab.training, tmp_path, steps=STEPS)
    rows = compare(
        {
            "bare torch loop of ti_db": lambda: bare_loop(lab),
            "ti_db": lambda: run("method=ti_db", *SAME),
            "palp": lambda: run("method=palp", *SAME),
            "palp, beta 1": lambda: run("method=palp", "losses.prompt_alignment.beta=1", *SAME),
            "palp_sds": lambda: run("method=palp_sds", *SAME),
            "palp_nfsd": lambda: run("method=palp_nfsd", *SAME),
        },
        lab.model.device,
        warm=0,  # a run leaves out its own first steps
    )
    report("methods", "What does a step cost beside a bare loop?", "step", rows, lab.model.device, lab.about)
    by_name = {row.name: row for row in rows}
    print(
        f"  palp / ti_db: {by_name['palp'].seconds / by_name['ti_db'].seconds:.2f} (counting passes gives 2.3 to 3.0)"
    )


def test_edits(lab: Lab, tmp_path: Path) -> None:
    run, one = partial(lab.training, tmp_path, steps=STEPS), ("method=ti_db", f"trainer.batch_size={BATCH}")
    rows = compare(
        {
            "lora": lambda: run(*one, f"edits.rank={RANK}"),
            "key_value": lambda: run(*one, "edits=key_value"),
            "full": lambda: run(*one, "edits=full"),
            "words alone": lambda: run(*one, "edits=none"),
        },
        lab.model.device,
        warm=0,  # a run leaves out its own first steps
    )
    report("edits", "What does a step cost by what is trained?", "step", rows, lab.model.device, lab.about)


def test_cached_latents(lab: Lab, tmp_path: Path) -> None:
    run, one = partial(lab.training, tmp_path, steps=STEPS), ("method=ti_db", "augment.flip=0.5", *SAME)
    rows = compare(
        {
            "8 variants, encoded once": lambda: run(*one, "augment.variants=8"),
            "encoded at every step": lambda: run(*one, "augment.variants=0"),
        },
        lab.model.device,
        warm=0,  # a run leaves out its own first steps
    )
    report("latents", "What does caching latents save?", "step", rows, lab.model.device, lab.about)


def test_judging_passes(lab: Lab) -> None:
    """Both rows of guidance in one pass, as the losses do it, against two passes."""
    model, concept = lab.model, lab.dataset.concept()
    x_t = torch.randn(BATCH, *model.latent_shape, device=model.device)
    t = torch.full((BATCH,), 400, device=model.device)
    empty, given = (model.base_text([prompt] * BATCH) for prompt in ("", concept.clean(TARGET)))
    both = TextCond.cat([empty, given])

    @torch.no_grad()
    def batched() -> None:
        for _ in range(STEPS):
            model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), both)

    @torch.no_grad()
    def apart() -> None:
        for _ in range(STEPS):
            model.predict(x_t, t, empty)
            model.predict(x_t, t, given)

    variants = {name: stopwatch(work, model.device, STEPS) for name, work in (("batched", batched), ("apart", apart))}
    rows = compare(variants, model.device, rounds=5)
    report("judging", "What does batching the judging passes save?", "judgement", rows, model.device, lab.about)

"""Hard negatives of the tiny CLIP, and its loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palp_lab.tinyworld import describe, elements_of, labels, render, sample_scene
from palp_lab.tinyworld.oracle import LABELS
from palp_lab.tinyworld.pretrain_clip import FACTORS, Matching, changed, eight_captions
from palp_lab.tinyworld.pretrain_loop import step_generator
from palp_lab.tinyworld.pretrain_text import build_tokenizer
from palp_lab.tinyworld.sets import scene_of


def test_a_change_is_of_one_factor_and_shows_in_the_description() -> None:
    rng, seen = np.random.default_rng(0), set()
    for seed in range(150):
        scene = sample_scene(seed)
        for factor in FACTORS:
            other = changed(scene, factor, rng)
            if other is None:
                continue
            seen.add(factor)
            assert describe(other) != describe(scene), factor
            one, two = elements_of(scene), elements_of(other)
            fields = ("style", "place", "classes", "accessories", "colours", "pattern", "framing", "relation")
            assert sum(getattr(one, name) != getattr(two, name) for name in fields) == 1, factor
            assert (other.seed, len(other.subjects)) == (scene.seed, len(scene.subjects))
    assert seen == set(FACTORS)


def test_eight_captions_differ_and_begin_with_the_truth() -> None:
    for seed in range(40):
        scene = sample_scene(seed, "heldout")
        if scene.subjects and not scene.degradation:
            texts = eight_captions(scene, seed)
            assert len(set(texts)) == 8 and texts[0] == describe(scene)


@pytest.fixture(scope="module")
def task() -> Matching:
    scenes = [scene_of(3, index) for index in range(24)]
    images = np.stack([render(scene) for scene in scenes])
    rows = [labels(scene) for scene in scenes]
    table = {name: np.asarray([row[name] for row in rows], np.uint8) for name in LABELS}
    torch.manual_seed(0)
    return Matching(images, table, 3, build_tokenizer(), batch=8, bf16=False)


def test_a_picture_is_compared_with_its_own_negatives_and_others_true_captions_only(task: Matching) -> None:
    batch = task.draw(step_generator(0, 0, 0))
    loss = task(batch)
    loss.backward()
    assert torch.isfinite(loss)
    # A picture's own negatives move its loss, another picture's negatives do not.
    first, own = batch["first"], batch["own"]
    negatives = [i for i in range(len(own)) if i not in set(first.tolist())]
    assert negatives and all(int(own[i]) < 8 for i in negatives)
    assert (own[first] == torch.arange(8)).all()


def test_the_loss_falls_on_a_batch_it_has_seen(task: Matching) -> None:
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    batch = task.draw(step_generator(0, 1, 0))
    losses = []
    for _ in range(12):
        loss = task(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]

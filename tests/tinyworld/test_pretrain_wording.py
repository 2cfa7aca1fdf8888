"""The text encoder's start: what is said of each noun, and staying near the vectors a UNet knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from palp_lab.tinyworld.factors import CLASSES
from palp_lab.tinyworld.oracle import LABELS
from palp_lab.tinyworld.pretrain_text import build_text_encoder, build_tokenizer, encode_captions
from palp_lab.tinyworld.pretrain_wording import NO_NOUN, SAID, Nouns, Wording
from palp_lab.tinyworld.sets import captions_of, scene_of

TOKENIZER = build_tokenizer()
NOUNS = Nouns(TOKENIZER)


def said(text: str) -> list[tuple[str, str, str]]:
    """(colour, second, pattern) of every noun, in order."""
    ids = torch.from_numpy(encode_captions(TOKENIZER, [text]).astype(np.int64))
    found = NOUNS.said(ids)
    at = (found["said_colour"][0] != NO_NOUN).nonzero().flatten().tolist()
    return [tuple(words[int(found[name][0, i])] for name, words in SAID.items()) for i in at]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a photo of a cat", [("none", "none", "none")]),
        ("a photo of a red cat wearing a blue hat", [("red", "none", "none"), ("blue", "none", "none")]),
        ("my small two-tone red and teal dog with a hat", [("red", "teal", "two-tone"), ("none", "none", "none")]),
        (
            "a sketch of a striped bird next to a gray bear at night",
            [("none", "none", "striped"), ("gray", "none", "none")],
        ),
        ("a cat wearing pink sunglasses and a hat", [("none",) * 3, ("pink", "none", "none"), ("none",) * 3]),
        ("a sketch inspired by the red", []),
    ],
)
def test_what_is_said_of_every_noun(text: str, wanted: list) -> None:
    assert said(text) == wanted


def test_captions_say_the_colours_of_their_scenes() -> None:
    """Over many captions: a colour said of the first subject is its own."""
    checked = 0
    for index in range(150):
        scene = scene_of(5, index)
        if not scene.subjects or scene.artwork:
            continue
        first = scene.subjects[0]
        for text in captions_of(scene):
            colours = said(text)
            subject = [CLASSES.index(word) for word in text.replace(",", " ").split() if word in CLASSES]
            if subject and colours and CLASSES[subject[0]] == first.superclass and colours[0][0] != "none":
                assert colours[0][0] == first.colour, text
                assert colours[0][1] in ("none", first.second), text
                assert colours[0][2] in ("none", first.pattern), text
                checked += 1
    assert checked > 100


def wording(near: bool) -> tuple[Wording, Tensor]:
    torch.manual_seed(0)
    known, text = build_text_encoder(TOKENIZER).eval(), build_text_encoder(TOKENIZER).eval()
    text.load_state_dict(known.state_dict())
    texts = [captions_of(scene_of(5, index))[0] for index in range(32)]
    table = encode_captions(TOKENIZER, texts)[:, None]
    labels = {name: np.ones(32, np.uint8) for name in LABELS}
    task = Wording(text, table, labels, TOKENIZER, 8, known if near else None)
    ids = torch.from_numpy(table[:, 0].astype(np.int64))
    return task, known(ids).last_hidden_state.detach()


def moved(near: bool, steps: int = 12) -> float:
    """Mean square way from the known vectors after a few steps."""
    task, before = wording(near)
    optimizer = torch.optim.Adam([p for p in task.parameters() if p.requires_grad], 3e-3)
    batch = task.draw(torch.Generator().manual_seed(0))
    for _ in range(steps):
        optimizer.zero_grad()
        task(batch).backward()
        optimizer.step()
    ids = torch.from_numpy(task.captions[:, 0].astype(np.int64))
    with torch.no_grad():
        return float((task.text(ids).last_hidden_state - before).square().mean())


def test_a_known_text_encoder_is_left_by_less() -> None:
    assert 0 < moved(True) < 0.7 * moved(False)
    assert not any("known" in name for name in wording(True)[0].state_dict())


def test_nouns_learn_what_is_said_of_them() -> None:
    """The vectors of the nouns alone, with no help from the factors at the end of the text."""
    task, _ = wording(False)
    batch = task.draw(torch.Generator().manual_seed(0))
    at = batch["said_colour"] != NO_NOUN
    optimizer = torch.optim.Adam([p for p in task.parameters() if p.requires_grad], 3e-3)

    def right() -> float:
        with torch.no_grad():
            scores = task.heads["said_colour"](task.text(batch["ids"]).last_hidden_state)
        return float((scores.argmax(-1) == batch["said_colour"])[at].float().mean())

    before = right()
    for _ in range(40):
        optimizer.zero_grad()
        task(batch).backward()
        optimizer.step()
    assert before < 0.6 and right() > 0.9

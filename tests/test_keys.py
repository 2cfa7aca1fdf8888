"""What a stage is kept by: whatever decides what comes out is part of its key, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from palp_lab import keys
from palp_lab.composition import compose
from palp_lab.training import as_plain
from tests.losses.toy import CONCEPT

CONFIG: dict[str, Any] = {
    "seed": 0,
    "trainer": {"max_steps": 3, "save_every": 1},
    "generate": {"guidance": 5.0, "batch_size": 4},
    "device": "cpu",
    "output": "here",
}
PROTOCOL = {"name": "tiny", "version": "3", "hashes": {"clip": "a"}}
MEASURED = {"groups": {"a {}": "style"}, "drift": [["a cat", True]], "held_out": None}


def changed(node: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**node, **changes}


@pytest.mark.parametrize(
    "other",
    [
        {"digest": "b"},
        {"superclass": "dog"},
        {"placeholder": "<w>"},
        {"description": "red cat"},
        {"class_digest": "c"},
        {"captions": ("a {} at home",)},
    ],
    ids=str,
)
def test_a_training_is_told_apart_by_its_concept(other: dict[str, Any]) -> None:
    one, two = (keys.train_inputs(CONFIG, "model", c, None) for c in (CONCEPT, replace(CONCEPT, **other)))
    assert keys.digest(one) != keys.digest(two)


def test_a_training_is_told_apart_by_model_target_and_what_it_reads() -> None:
    def key(config: dict[str, Any] = CONFIG, model: str = "model", target: str | None = None) -> str:
        return keys.digest(keys.train_inputs(config, model, CONCEPT, target))

    trainer = CONFIG["trainer"]
    others = [
        key(model="another"),
        key(target="a sketch of {}"),
        key(changed(CONFIG, seed=1)),
        key(changed(CONFIG, trainer=changed(trainer, max_steps=4))),
    ]
    assert len({key(), *others}) == 5
    for same in (
        changed(CONFIG, generate={"guidance": 9.0}),
        changed(CONFIG, device="cuda"),
        changed(CONFIG, output="there"),
        changed(CONFIG, trainer=changed(trainer, save_every=2)),
    ):
        assert key(same) == key(), "where, how often kept, how drawn: the training is the same"


def test_a_later_key_that_changes_nothing_leaves_what_was_made_before_found() -> None:
    def key(**optimizer: Any) -> str:
        return keys.digest(keys.train_inputs(changed(CONFIG, optimizer={"lr": 0.1, **optimizer}), "m", CONCEPT, None))

    assert key() == key(lr_scheduler="constant", lr_warmup_steps=0)
    assert len({key(), key(lr_scheduler="linear"), key(lr_scheduler="linear", lr_warmup_steps=5)}) == 3


def test_what_generate_alone_reads_is_no_part_of_a_cell() -> None:
    run, generate = (keys.read_by("pictures", as_plain(compose(verb)))["generate"] for verb in ("run", "generate"))
    assert run == generate


def test_pictures_are_told_apart_by_who_draws_what_and_how() -> None:
    def key(config: dict[str, Any] = CONFIG, who: str = "a", sentence: str = "a {}", seed: int = 0) -> str:
        return keys.digest(keys.picture_inputs(config, {"training": who}, [sentence], [seed]))

    generate = CONFIG["generate"]
    more = key(changed(CONFIG, generate=changed(generate, guidance=9.0)))
    assert len({key(), more, key(who="b"), key(sentence="the {}"), key(seed=1)}) == 5
    assert key(changed(CONFIG, generate=changed(generate, batch_size=1))) == key()


def test_scores_are_told_apart_by_protocol_pictures_and_photos() -> None:
    def key(protocol: dict[str, Any] = PROTOCOL, pictures: str = "p", **concept: Any) -> str:
        return keys.digest(keys.score_inputs(protocol, [pictures], replace(CONCEPT, **concept)))

    others = [
        key(changed(PROTOCOL, version="4")),
        key(changed(PROTOCOL, hashes={"clip": "b"})),
        key(pictures="q"),
        key(digest="b"),
        key(superclass="dog"),
        key(held_out_digest="h"),
    ]
    assert len({key(), *others}) == len(others) + 1


def test_a_cell_is_told_apart_by_all_of_it() -> None:
    def key(
        config: dict[str, Any] = CONFIG, train: str = "t", protocol: dict[str, Any] = PROTOCOL, **measured: Any
    ) -> str:
        return keys.cell_hash(config, {"key": train}, protocol, changed(MEASURED, **measured))

    others = [
        key(train="u"),
        key(changed(CONFIG, generate={"guidance": 9.0})),
        key(protocol=changed(PROTOCOL, version="4")),
        key(groups={"the {}": "style"}),
        key(drift=[]),
        key(held_out="h"),
    ]
    assert len({key(), *others}) == len(others) + 1
    assert key(changed(CONFIG, device="cuda", output="there")) == key(), "on whatever machine"

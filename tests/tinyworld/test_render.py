"""Pictures: deterministic across processes, every factor visible, masks where the subject is."""

import hashlib
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from palp_lab.tinyworld import (
    ACCESSORIES,
    CLASSES,
    FRAMINGS,
    PLACES,
    STYLES,
    Scene,
    render,
    sample_identity,
    sample_scene,
    subject_mask,
)  # fmt: skip
from palp_lab.tinyworld.creatures import PROFILE, kit_for
from palp_lab.tinyworld.draw import Canvas
from palp_lab.tinyworld.render import detail_map
from palp_lab.tinyworld.styles import LOOKS

DIGEST = (
    "import hashlib; from palp_lab.tinyworld import render, sample_scene; "
    "print(hashlib.sha256(b''.join(render(sample_scene(i)).tobytes() for i in range(40))).hexdigest())"
)


def test_two_processes_render_the_same_bytes():
    own = hashlib.sha256(b"".join(render(sample_scene(i)).tobytes() for i in range(40))).hexdigest()
    other = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == own


def test_pictures_are_bytes_of_the_right_shape():
    for seed in range(60):
        picture = render(sample_scene(seed))
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        assert picture.std() > 2


@pytest.mark.parametrize("superclass", CLASSES)
def test_every_factor_changes_the_picture(superclass):
    base = Scene((sample_identity(superclass, 5),), seed=3)
    seen = {render(base).tobytes()}
    changed = [replace(base, style=s) for s in STYLES[1:]]
    changed += [replace(base, place=p) for p in PLACES[1:]]
    changed += [replace(base, accessories=((a, "red"),)) for a in ACCESSORIES]
    changed += [replace(base, framing=f) for f in FRAMINGS[1:]]
    changed += [replace(base, artwork="fire"), replace(base, degradation="blur"), replace(base, seed=4)]
    for scene in changed:
        seen.add(render(scene).tobytes())
    assert len(seen) == 1 + len(changed)


@pytest.mark.parametrize("superclass", CLASSES)
def test_a_two_tone_coat_has_the_body_colour_at_the_head_and_the_second_elsewhere(superclass):
    """Which of two colours comes first must be visible: a coat cut by chance says neither."""
    for seed in range(8):
        identity = replace(sample_identity(superclass, seed), colour="red", second="blue", pattern="two-tone")
        canvas = Canvas(LOOKS["photo"])
        canvas.subject_frame(32.0, 57.5, 46.5, 0.0, False, (1.0, 1.0))
        redness = kit_for(canvas, identity, 0.0).coat[..., 0]
        u, v = canvas.u, canvas.v
        head, rest = (u > 0.2, u < -0.2) if superclass in PROFILE else (v < -0.65, v > -0.12)
        middle = (np.abs(u) < 0.3) & (v < 0) & (v > -0.8)
        assert redness[head & middle].mean() > 0.7 and redness[rest & middle].mean() < 0.35, seed


def test_unnamed_factors_change_the_picture():
    identity = sample_identity("cat", 5)
    for i in range(8):
        hidden = list(identity.hidden)
        hidden[i] = (hidden[i] + 0.5) % 1.0
        other = replace(identity, hidden=tuple(hidden))
        assert (render(Scene((identity,), seed=1)) != render(Scene((other,), seed=1))).any()


@pytest.mark.parametrize("superclass", CLASSES)
def test_a_subject_fills_its_share_and_the_mask_holds_it(superclass):
    shares = []
    for seed in range(6):
        scene = Scene((sample_identity(superclass, seed),), seed=seed)
        mask = subject_mask(scene)
        rows = np.flatnonzero(mask.any(axis=1))
        shares.append((rows[-1] - rows[0] + 1) / 64)
        # Another coat, the same pose: only pixels on the subject (and its soft edge) differ.
        other = replace(scene.subjects[0], colour="red" if scene.subjects[0].colour != "red" else "blue")
        differs = (render(scene) != render(replace(scene, subjects=(other,)))).any(axis=-1)
        grown = np.pad(mask, 1)
        near = np.any([grown[1 + a : 65 + a, 1 + b : 65 + b] for a in (-1, 0, 1) for b in (-1, 0, 1)], axis=0)
        assert differs.any() and not (differs & ~near).any()
    assert 0.42 <= float(np.mean(shares)) <= 0.95


def test_masks_of_two_subjects_do_not_overlap():
    pair = (sample_identity("cat", 1), sample_identity("car", 2))
    for relation in ("next to", "in front of"):
        scene = Scene(pair, relation=relation, seed=5)
        first, second = subject_mask(scene, 0), subject_mask(scene, 1)
        assert first.any() and second.any() and not (first & second).any()
    with pytest.raises(IndexError, match="no subject 2"):
        subject_mask(Scene(pair, relation="next to"), 2)


def test_in_front_of_puts_the_first_subject_nearer():
    pair = (sample_identity("bear", 1), sample_identity("bear", 2))
    lower = 0
    for seed in range(10):
        scene = Scene(pair, relation="in front of", seed=seed)
        feet = [np.flatnonzero(subject_mask(scene, i).any(axis=1))[-1] for i in (0, 1)]
        lower += feet[0] > feet[1]
    assert lower == 10


@pytest.mark.slow
def test_a_hundred_pictures_a_second():
    """The best of five rounds, so that a busy machine does not decide."""
    scenes = [sample_scene(seed) for seed in range(60)]
    best = 1e9
    for _ in range(5):
        start = time.process_time()
        for scene in scenes:
            render(scene)
        best = min(best, time.process_time() - start)
    assert len(scenes) / best > 100


def test_the_detail_map_marks_what_is_worn_above_the_subject_and_both_above_the_place():
    bare = Scene((sample_identity("cat", 5),), place="beach", seed=3)
    plain, dressed = detail_map(bare), detail_map(replace(bare, accessories=(("balloon", "red"),)))
    inside = subject_mask(bare).reshape(16, 4, 16, 4).mean((1, 3))
    assert (plain[inside == 1] == 102).all() and (plain[inside == 0] == 0).all()
    assert dressed.max() == 255 and plain.max() == 102
    # The balloon hangs where no subject is.
    assert (dressed[(inside == 0)] > 128).sum() >= 4


def test_a_painting_without_a_subject_has_no_details():
    empty = next(scene for scene in map(sample_scene, range(200)) if not scene.subjects)
    assert detail_map(empty).max() == 0

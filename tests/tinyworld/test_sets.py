"""Sets on disk: the same whatever the number of workers, never taken for whole when cut short."""

import json

import numpy as np
import pytest

from palp_lab.tinyworld import LABELS, RenderSet, captions_of, elements_heldout, labels, render, render_set, scene_of
from palp_lab.types import UserError


def test_a_set_holds_what_its_scenes_say(tmp_path):
    stored = render_set(tmp_path / "set", 30, seed=3)
    assert len(stored) == 30 and isinstance(stored.images, np.memmap)
    for index in (0, 7, 29):
        scene = scene_of(3, index)
        assert np.array_equal(stored.images[index], render(scene))
        assert stored.captions(index) == captions_of(scene) and len(stored.captions(index)) == 5
        assert {name: int(stored.labels[name][index]) for name in LABELS} == labels(scene)


def test_workers_do_not_change_a_set(tmp_path):
    one, two = (render_set(tmp_path / str(n), 520, seed=4, workers=n) for n in (1, 2))
    assert np.array_equal(one.images, two.images)
    assert (tmp_path / "1/captions.jsonl").read_bytes() == (tmp_path / "2/captions.jsonl").read_bytes()


def test_groups_of_one_identity(tmp_path):
    stored = render_set(tmp_path, 24, seed=5, kind="identity", group=4)
    assert stored.identities.tolist() == [i // 4 for i in range(24)]
    for start in range(0, 24, 4):
        scenes = [scene_of(5, i, kind="identity", group=4) for i in range(start, start + 4)]
        assert len({s.subjects for s in scenes}) == 1 and len({s.seed for s in scenes}) == 4
        assert not any(elements_heldout(s) for s in scenes)
    assert len({scene_of(5, i, kind="identity", group=4).subjects for i in range(0, 24, 4)}) == 6


def test_sets_with_other_seeds_share_no_scene():
    assert not {scene_of(1, i) for i in range(100)} & {scene_of(2, i) for i in range(100)}


def test_an_unfinished_set_is_not_opened_and_is_rendered_again(tmp_path):
    render_set(tmp_path, 6, seed=1)
    before = (tmp_path / "images.npy").stat().st_mtime_ns
    render_set(tmp_path, 6, seed=1)
    assert (tmp_path / "images.npy").stat().st_mtime_ns == before
    (tmp_path / "tokens32.npy").write_bytes(b"of the captions before")
    (tmp_path / "meta.json").unlink()
    with pytest.raises(UserError, match="not finished"):
        RenderSet(tmp_path)
    render_set(tmp_path, 6, seed=1)
    assert json.loads((tmp_path / "meta.json").read_text())["count"] == 6
    assert not (tmp_path / "tokens32.npy").exists(), "made from what is no longer there"

"""Pictures on disk: names, descriptions, and what cannot be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from palp_lab.pictures import Picture, png_bytes, read_image, read_picture, read_pictures, write_picture, write_pictures
from palp_lab.types import UserError


@pytest.fixture
def picture() -> Picture:
    image = torch.randint(0, 256, (3, 40, 36), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Picture(
        "a photo of <v> «été»", "a photo of {} «été»", 3, image, {"guidance": 7.5, "adapter": None, "steps": 25}
    )


def test_a_picture_comes_back_with_all_that_was_said_of_it(tmp_path: Path, picture: Picture) -> None:
    path = write_picture(tmp_path, picture)
    back = read_picture(path)
    assert torch.equal(back.image, picture.image)
    assert back.about() == picture.about()
    with Image.open(path) as image:  # what other tools show
        assert image.text["Description"] == picture.prompt
        assert image.text["Software"] == "palp-lab"
    assert torch.equal(read_image(path), picture.image)


def test_names_are_the_same_every_time_and_never_shared(picture: Picture) -> None:
    others = [
        replace(picture, seed=4), replace(picture, prompt="a photo of sks cat"), replace(picture, sentence="a {}"),
        replace(picture, knobs={**picture.knobs, "guidance": 3.0}), replace(picture, sentence="a photo of {}, «été»"),
    ]  # fmt: skip
    names = [p.file_name() for p in (picture, *others)]
    assert len(set(names)) == len(names)
    assert picture.file_name() == replace(picture).file_name()
    assert picture.file_name().startswith("a-photo-of-t-seed0003-")
    assert len(replace(picture, sentence="word " * 100).file_name()) < 100


def test_bytes_are_the_same_every_time(picture: Picture) -> None:
    assert png_bytes(picture.image, picture.about()) == png_bytes(picture.image, picture.about())


def test_a_folder_comes_back_by_name(tmp_path: Path, picture: Picture) -> None:
    write_pictures(tmp_path, (replace(picture, seed=s) for s in (2, 0, 1)))
    assert [p.seed for p in read_pictures(tmp_path)] == [0, 1, 2]


def test_other_tools_pictures_say_nothing_and_that_is_said(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "a.png").write_bytes(png_bytes(picture.image))
    assert torch.equal(read_image(tmp_path / "a.png"), picture.image)
    with pytest.raises(UserError, match=r"a\.png: does not say how it was made"):
        read_picture(tmp_path / "a.png")


def test_a_cut_file_is_one_line(tmp_path: Path, picture: Picture) -> None:
    path = write_picture(tmp_path, picture)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError, match=path.name) as error:
        read_picture(path)
    assert "\n" not in str(error.value)

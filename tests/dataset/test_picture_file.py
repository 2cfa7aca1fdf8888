"""Pictures as people have them: converted and said so, or refused in a line."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from palp_lab.dataset.picture_file import cut, middle, picture_files, prepare, read_picture
from tests.dataset.pictures import photo, said


def test_the_middle_square_is_cut_and_said_in_numbers(tmp_path: Path) -> None:
    path = photo(tmp_path / "b.png", (64, 33))
    image, about = prepare(path, 33)
    whole = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    assert torch.equal(image, whole[:, :, 15:48])
    assert about.crop == middle(64, 33) == (15, 0, 48, 33)
    assert (about.width, about.height, about.side) == (64, 33, 33)
    assert about.words() == "64 x 33 cut to the middle 33 x 33 and scaled to 33 x 33"
    assert about.record()["crop"] == [15, 0, 48, 33]
    assert prepare(path, 48)[0].shape == (3, 48, 48)


def test_what_has_the_right_size_is_left_alone(tmp_path: Path) -> None:
    path = photo(tmp_path / "x.png", (48, 48))
    image, about = prepare(path, 48)
    assert about.words() == ""
    assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(np.array(Image.open(path))))
    assert cut(Image.open(path), 48).size == (48, 48)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_turns_a_photo(tmp_path: Path, orientation: int) -> None:
    """The mark is in the top left corner once the photo is upright, whatever the camera did."""
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:12, :12] = 255
    undo = {2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (1, False), 7: (3, True), 8: (3, False)}
    turns, mirrored = undo[orientation]
    stored = np.rot90(upright[:, ::-1] if mirrored else upright, turns)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("x.png", "x.tif"):
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / name, exif=exif)
        image, done = read_picture(tmp_path / name)
        assert image.size == (60, 40)
        assert np.array_equal(np.asarray(image), upright)
        assert done == ["turned upright"], name


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
@pytest.mark.parametrize("block", [b"Exif\0\0no TIFF header", b"Exif\0\0MM\0*\0"])
def test_exif_that_is_damaged_is_passed_over_and_said(tmp_path: Path, suffix: str, block: bytes) -> None:
    """It ends no run: what the picture shows is there."""
    Image.new("RGB", (40, 60), (10, 200, 10)).save(tmp_path / f"x.{suffix}", exif=block)
    image, done = read_picture(tmp_path / f"x.{suffix}")
    assert image.size == (40, 60) and np.asarray(image)[30, 20, 1] > 150
    assert done == ["EXIF cannot be read and is ignored"]
    _, about = prepare(tmp_path / f"x.{suffix}", 40)
    assert about.record()["done"] == done


@pytest.mark.parametrize("orientation", [0, 1, 9, 255])
def test_an_orientation_that_turns_nothing_is_not_said_to(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo(tmp_path / "x.png", exif=exif)
    image, done = read_picture(tmp_path / "x.png")
    assert done == []
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(tmp_path / "x.png").convert("RGB")))


def test_transparent_is_laid_on_white_or_black(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(tmp_path / "x.png")
    for ground, level in (("white", 255), ("black", 0)):
        image, done = read_picture(tmp_path / "x.png", ground=ground)
        assert np.asarray(image).min() == np.asarray(image).max() == level
        assert done == [f"laid on {ground}"]


def test_cmyk_grey_and_palette_become_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (40, 40), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    image, done = read_picture(tmp_path / "cmyk.jpg")
    red, green, blue = np.asarray(image).reshape(-1, 3).mean(0)
    assert red > 200 > 60 > max(green, blue)
    assert done == ["CMYK turned to RGB"]
    for mode, name in (("L", "grey.png"), ("P", "palette.png"), ("1", "bits.png")):
        image, done = read_picture(photo(tmp_path / name, mode=mode))
        assert (image.mode, done) == ("RGB", [])


def swapped_profile() -> bytes:
    """sRGB with red and green for each other, under another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    entries = {profile[at : at + 4]: at for at in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12)}
    red, green = entries[b"rXYZ"], entries[b"gXYZ"]
    made = bytearray(profile)
    made[red + 4 : red + 12], made[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(made).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def test_another_colour_profile_is_seen_as_a_viewer_shows_it(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (250, 10, 10)).save(tmp_path / "x.jpg", icc_profile=swapped_profile(), quality=95)
    image, done = read_picture(tmp_path / "x.jpg")
    red, green, _ = np.asarray(image).reshape(-1, 3).mean(0)
    assert green > 200 > 60 > red
    assert len(done) == 1
    assert done[0].startswith("colours turned from swap")
    half = Image.new("RGBA", (40, 40), (250, 10, 10, 0))
    half.paste((250, 10, 10, 255), (0, 0, 20, 40))
    half.save(tmp_path / "y.png", icc_profile=swapped_profile())
    image, done = read_picture(tmp_path / "y.png")
    assert np.asarray(image)[0, 0, 1] > 200 > np.asarray(image)[0, 0, 0], "turned"
    assert np.asarray(image)[0, 39].tolist() == [255, 255, 255], "and still transparent"
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, words in ((plain, []), (b"no profile", ["colour profile cannot be read and is ignored"])):
        photo(tmp_path / "z.png", icc_profile=profile)
        image, done = read_picture(tmp_path / "z.png")
        assert done == words
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(tmp_path / "z.png")))


def test_a_palette_with_a_profile_is_its_rgb_twin(tmp_path: Path) -> None:
    colours = Image.new("RGB", (40, 40), (250, 10, 10))
    colours.paste((20, 90, 240), (0, 0, 20, 40))
    colours.save(tmp_path / "rgb.png", icc_profile=swapped_profile())
    few = colours.quantize(4)
    few.save(tmp_path / "p.png", icc_profile=swapped_profile())
    twin, done = read_picture(tmp_path / "rgb.png")
    image, same = read_picture(tmp_path / "p.png")
    assert np.array_equal(np.asarray(image), np.asarray(twin)) and same == done
    assert same[0].startswith("colours turned from swap")
    few.save(tmp_path / "clear.png", icc_profile=swapped_profile(), transparency=few.getpixel((39, 0)))
    image, done = read_picture(tmp_path / "clear.png")
    assert np.asarray(image)[0, 39].tolist() == [255, 255, 255] and done[-1] == "laid on white"
    assert np.array_equal(np.asarray(image)[:, :20], np.asarray(twin)[:, :20])


def grey_profile(gamma: float) -> bytes:
    """A profile of one channel, as scanners and print shops attach it."""

    def numbers(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    name = b"Plain Grey\0"
    white = numbers(0.9642, 1.0, 0.8249)
    bodies = {
        b"desc": b"desc" + struct.pack(">II", 0, len(name)) + name + bytes(8 + 3 + 67),
        b"wtpt": b"XYZ " + bytes(4) + white,
        b"kTRC": b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)),
    }
    at, table, data = 128 + 4 + 12 * len(bodies), struct.pack(">I", len(bodies)), b""
    for tag, body in bodies.items():
        table += tag + struct.pack(">II", at + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(data), bytes(4), 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + white
    return head.ljust(128, b"\0") + table + data


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_picture_with_a_profile(tmp_path: Path, mode: str) -> None:
    """One whose numbers are proportional to light is darker in numbers than sRGB's of the same look."""
    level = Image.fromarray(np.full((40, 40), 55 * 257, np.uint16)) if mode == "I;16" else Image.new("L", (40, 40), 55)
    (level.convert("LA") if mode == "LA" else level).save(tmp_path / "x.png", icc_profile=grey_profile(1.0))
    image, done = read_picture(tmp_path / "x.png")
    assert abs(int(np.asarray(image)[0, 0, 0]) - 128) <= 2 and np.ptp(np.asarray(image)) == 0
    assert "colours turned from Plain Grey to sRGB" in done
    photo(tmp_path / "y.png", mode="L", icc_profile=swapped_profile())
    image, done = read_picture(tmp_path / "y.png")
    assert image.mode == "RGB" and done[0].startswith("colours turned from swap")


def sixteen_bit_rgb(path: Path, level: int, side: int = 40) -> Path:
    """PIL writes no such PNG. A `side` of more than 40 is a lie of the header."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + struct.pack(">120H", *[level] * 120) for _ in range(40))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("level", [200, 30000, 65535])
def test_sixteen_bits_keep_their_brightness(tmp_path: Path, level: int) -> None:
    """A dark one too: its values would all fit into 8 bits."""
    Image.fromarray(np.full((40, 40), level, np.uint16)).save(tmp_path / "grey.png")
    Image.fromarray(np.full((40, 40), level, np.uint16)).save(tmp_path / "grey.tif")
    sixteen_bit_rgb(tmp_path / "rgb.png", level)
    for name in ("grey.png", "grey.tif", "rgb.png"):
        image, done = read_picture(tmp_path / name)
        assert abs(int(np.asarray(image)[0, 0, 0]) - level / 257) <= 1, name
        assert done == ["16 bits reduced to 8"], name


def test_floats_from_zero_to_one(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(tmp_path / "x.tif")
    image, _ = read_picture(tmp_path / "x.tif")
    assert abs(int(np.asarray(image)[0, 0, 0]) - 128) <= 1


def test_a_phone_s_second_shot_is_no_animation(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 40), "blue")
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[second])
    image, _ = read_picture(tmp_path / "x.jpg")
    assert np.asarray(image)[0, 0, 0] > 200


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "x.png"

    def line(**how: int) -> str:
        return said(lambda: read_picture(bad, **how))

    bad.write_bytes(b"")
    assert line().startswith(f"{bad}: cannot be read as a picture")
    bad.write_bytes(b"not a picture at all")
    assert "x.png: cannot be read as a picture" in line()
    photo(bad)
    bad.write_bytes(bad.read_bytes()[:400])
    assert "x.png: cannot be read as a picture" in line()
    photo(bad, (60, 8))
    assert line() == f"{bad}: 60 x 8 pixels are too few; give at least 32 a side"
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "green", "blue")]
    frames[0].save(bad, save_all=True, append_images=frames[1:])
    assert "x.png: is animated or has pages (3 frames)" in line()


def test_a_tiff_whose_next_page_has_no_size_is_damaged(tmp_path: Path) -> None:
    path = photo(tmp_path / "x.tif")
    whole = path.read_bytes()
    first = int.from_bytes(whole[4:8], "little")
    link = first + 2 + 12 * int.from_bytes(whole[first : first + 2], "little")
    path.write_bytes(whole[:link] + len(whole).to_bytes(4, "little") + whole[link + 4 :] + bytes(6))
    assert "x.tif: cannot be read as a picture" in said(lambda: read_picture(path))


def test_the_limit_of_pixels_is_a_key_and_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = photo(tmp_path / "x.png", (60, 40))
    assert "60 x 40 pixels are too many (the limit is 2000)" in said(lambda: read_picture(path, 2000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # half of PIL's own limit refuses what has more than twice it
    assert read_picture(path, 2400)[0].size == (60, 40)
    assert Image.MAX_IMAGE_PIXELS == 1000
    sixteen_bit_rgb(path, 0, 20000)
    assert "20000 x 20000 pixels are too many" in said(lambda: read_picture(path))


def test_folders(tmp_path: Path) -> None:
    assert said(lambda: picture_files(tmp_path / "none", "key")) == f"key={tmp_path / 'none'}: no such folder"
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in said(lambda: picture_files(tmp_path / "empty", "key"))
    file = photo(tmp_path / "b.png")
    assert "is a file" in said(lambda: picture_files(file, "key"))
    photo(tmp_path / "a.JPG")
    photo(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in picture_files(tmp_path, "key")] == ["a.JPG", "b.png"]
    for name in ("c.jpe", "d.mpo"):
        photo(tmp_path / "c.jpg").rename(tmp_path / name)
    assert [path.name for path in picture_files(tmp_path, "key")] == ["a.JPG", "b.png", "c.jpe", "d.mpo"]
    (tmp_path / "e.jpg").symlink_to(tmp_path / "b.png")
    assert len(picture_files(tmp_path, "key")) == 5
    (tmp_path / "e.jpg").unlink()
    (tmp_path / "e.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert "e.jpg: is a link to a file that is not there" in said(lambda: picture_files(tmp_path, "key"))
    (tmp_path / "c.HEIC").write_bytes(b"")
    assert "c.HEIC: .HEIC is not read; save it as JPEG or PNG" in said(lambda: picture_files(tmp_path, "key"))

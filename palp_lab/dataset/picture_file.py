"""Reading a picture that anybody may have made: any mode, any orientation, one clear line where it cannot be used."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageCms, UnidentifiedImageError

from palp_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.types import Images

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
UNREAD_SUFFIXES = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".tga", ".psd", ".xcf", ".svg", ".exr", ".hdr"}
    | {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srw", ".raf", ".orf", ".rw2", ".pef", ".3fr"}
)
"""Pictures nobody here can read. Passing over them would lose photos silently, so they are refused."""
SMALLEST = 32
"""Shortest side in pixels that still shows a subject (ours)."""
LARGEST = 100_000_000
"""Most pixels: beyond this a decoded picture fills a third of a gigabyte (ours)."""
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its EXIF orientation; 1 is upright already, other values mean nothing."""


@dataclass(frozen=True)
class PreparedPicture:
    """What became of one file: its size as seen upright, the box [left, top, right, bottom] that was cut out, the side
    it was scaled to, what else was done, its caption and the share its mask covers. `role` is training or held_out."""

    file: str
    width: int
    height: int
    crop: tuple[int, int, int, int]
    side: int
    done: tuple[str, ...] = ()
    role: str = "training"
    caption: str | None = None
    masked_share: float | None = None

    def record(self) -> dict[str, Any]:
        """As plain data for a result."""
        return {**asdict(self), "crop": list(self.crop), "done": list(self.done)}

    def words(self) -> str:
        """The same for a person; empty where nothing was done."""
        cut = self.crop[2] - self.crop[0]
        scaled = f"{self.width} x {self.height} cut to the middle {cut} x {cut} and scaled to {self.side} x {self.side}"
        return "; ".join([*self.done, *([scaled] if (self.width, self.height) != (self.side, self.side) else [])])


def picture_files(folder: Path, key: str) -> list[Path]:
    """The pictures of a folder in the order of their names.

    Raises UserError for a missing or empty folder, for a picture of a kind that is not read, and for a broken link.
    """
    if not folder.exists():
        raise UserError(f"{key}={folder}: no such folder")
    if not folder.is_dir():
        raise UserError(f"{key}={folder}: is a file; give the folder that holds the pictures")
    try:
        inside = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise UserError(f"{key}={folder}: cannot be read ({error.strerror}); check its rights") from None
    if strange := [p for p in inside if p.suffix.lower() in UNREAD_SUFFIXES]:
        raise UserError(f"{strange[0]}: {strange[0].suffix} is not read; save it as JPEG or PNG, or take it away")
    pictures = [p for p in inside if p.suffix.lower() in SUFFIXES]
    if broken := [p for p in pictures if p.is_symlink() and not p.exists()]:
        raise UserError(f"{broken[0]}: is a link to a file that is not there; mend it, or take it away")
    files = [p for p in pictures if p.is_file()]
    if not files:
        raise UserError(f"{key}={folder}: holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return files


def read_picture(path: Path, most_pixels: int = LARGEST, ground: str = "white") -> tuple[Image.Image, list[str]]:
    """A picture as 8 bit RGB, upright as its EXIF says and on `ground` where it is transparent, and what was done.

    Raises UserError for what cannot be read, has more than one frame, is tiny, or has more than `most_pixels`.
    """
    try:
        with _our_limit():
            image: Image.Image = Image.open(path)
            if image.width * image.height > most_pixels:
                raise UserError(
                    f"{path}: {image.width} x {image.height} pixels are too many (the limit is {most_pixels}); "
                    "scale it down, or raise dataset.most_pixels"
                )
            # Phones save a depth map or a second shot behind the photo (MPO); that is no animation.
            if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
                raise UserError(f"{path}: is animated or has pages ({frames} frames); save one of them as a picture")
            deep = any(";16" in str(part[3]) for part in getattr(image, "tile", [])[:1])  # the decoder's raw mode
            turned = image.format == "TIFF" and image.getexif().get(ORIENTATION) in UPRIGHT  # by PIL, while it loads
            image.load()
    except UserError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, EOFError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as a picture ({reason}); save it again as PNG or JPEG") from error
    if min(image.size) < SMALLEST:
        raise UserError(f"{path}: {image.width} x {image.height} pixels are too few; give at least {SMALLEST} a side")
    image, done = _to_rgb(image, deep, ground)
    return image, ["turned upright", *done] if turned else done


@contextmanager
def _our_limit() -> Iterator[None]:
    """PIL's own limit, which no key reaches, gives way to ours; the size is known before anything is decoded."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _to_rgb(image: Image.Image, deep: bool, ground: str) -> tuple[Image.Image, list[str]]:
    image, done = _upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
        done.append("16 bits reduced to 8")
    elif deep:  # PIL has dropped the lower byte of each channel while reading
        done.append("16 bits reduced to 8")
    image, colours = _to_srgb(image)
    done += colours
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image.convert("RGBA"))
        done.append(f"laid on {ground}")
    if image.mode == "CMYK":
        done.append("CMYK turned to RGB")
    return image.convert("RGB"), done


def _upright(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """A picture as its EXIF says it was held; as it is where that cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            orientation = image.getexif().get(ORIENTATION, 1)
            Image.Exif().load(image.info.get("exif", b""))  # the reader of JPEG keeps to itself what is wrong here
    except Exception:  # PIL raises whatever a damaged block leads to
        return image, ["EXIF cannot be read and is ignored"]
    if orientation not in UPRIGHT:
        return image, []
    return image.transpose(UPRIGHT[orientation]), ["turned upright"]


def _to_srgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Colours of a picture whose profile is another than sRGB (wide-gamut phones, print), as a viewer shows them."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L", "LA", "P", "PA"):
        return image, []
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(own).strip()
        if name.lower().startswith("srgb"):
            return image, []
        plain = image if image.mode == "CMYK" else image.convert("RGBA").convert("RGB")
        if image.mode in ("L", "LA") and own.profile.xcolor_space == "GRAY":
            plain = image.convert("L")
        turned = ImageCms.profileToProfile(plain, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        turned = None
    if turned is None:
        return image, ["colour profile cannot be read and is ignored"]
    if image.has_transparency_data:
        turned.putalpha(image.convert("RGBA").getchannel("A"))
    return turned, [f"colours turned from {name} to sRGB"]


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Greys of 16 bits by their range; whole numbers of 32 bits and floats by the range their values fill."""
    values = np.nan_to_num(np.asarray(image, np.float64))
    most = values.max()
    if image.mode.startswith("I;16") or most > 255:
        top = 65535.0
    else:
        top = 1.0 if image.mode == "F" and most <= 1 else 255.0
    grey = Image.fromarray((values / top * 255).round().clip(0, 255).astype(np.uint8))
    if profile := image.info.get("icc_profile"):
        grey.info["icc_profile"] = profile
    return grey


def middle(width: int, height: int) -> tuple[int, int, int, int]:
    """The box [left, top, right, bottom] of the centred square."""
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    return left, top, left + short, top + short


def prepare(path: Path, side: int, most_pixels: int = LARGEST) -> tuple[Tensor, PreparedPicture]:
    """The centred square of a picture at `side` x `side` pixels [3 side side] (uint8), and what was done to it."""
    image, done = read_picture(path, most_pixels)
    about = PreparedPicture(path.name, *image.size, middle(*image.size), side, tuple(done))
    return to_tensor(cut(image, side)), about


def cut(image: Image.Image, side: int) -> Image.Image:
    """The centred square of a picture at `side` x `side` pixels."""
    if image.size == (side, side):
        return image
    return image.crop(middle(*image.size)).resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3)


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as [3 h w] (uint8)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def digest(images: Images) -> str:
    """Hash of the pixels of a batch and its shape."""
    return hashlib.sha256(str(tuple(images.shape)).encode() + images.contiguous().numpy().tobytes()).hexdigest()

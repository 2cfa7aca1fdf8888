"""Drawing into a photo: image to image, and inpainting where a mask says what is drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from palp_lab.dataset.picture_file import PreparedPicture, cut, digest, middle, read_picture, to_tensor
from palp_lab.diffusion.sampler import Source
from palp_lab.pictures import Scalar
from palp_lab.types import UserError

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8

    from palp_lab.model.base import AbstractModel, LatentDistribution
    from palp_lab.types import Images, Latents

NOISE_STRENGTH = {"image to image": 0.8, "inpainting": 1.0}
"""Where none is given: the defaults of diffusers' `strength` in its two stock pipelines."""
MASK_THRESHOLD = 0.5
"""Brightness from which a pixel of a mask is drawn anew, as in diffusers."""


@dataclass(frozen=True)
class Context:
    """A photo that is drawn into, at its own size.

    `noise_strength` (above 0, at most 1) is the share of the sampling steps that are run on it, what diffusers calls
    `strength`: small keeps the photo, 1 keeps its outline at most; None is 0.8, or 1 with a mask. `mask` is True where
    the photo is drawn anew. With `paste_back` the pixels outside the mask are those of the photo, exactly; without it
    they are what the autoencoder makes of them. Raises UserError for a mask that leaves nothing to draw or to keep.
    """

    photo: UInt8[Tensor, "3 h w"]
    mask: Bool[Tensor, "h w"] | None = None
    noise_strength: float | None = None
    paste_back: bool = True
    name: str = ""
    mask_name: str = ""
    done: tuple[str, ...] = ()
    """What reading the photo did to it."""

    def __post_init__(self) -> None:
        if self.photo.dtype is not torch.uint8 or self.photo.ndim != 3 or len(self.photo) != 3:
            raise UserError(
                f"Context: the photo must be [3 h w] of 8 bits, not {list(self.photo.shape)} {self.photo.dtype}"
            )
        if self.mask is not None and self.mask.dtype is not torch.bool:
            raise UserError(
                f"Context: the mask must be true or false, not {self.mask.dtype}; compare it, e.g. mask > 0.5"
            )
        strength = self.noise_strength
        if strength is not None and not (isinstance(strength, (int, float)) and 0 < strength <= 1):
            raise UserError(f"generate.noise_strength={strength}: must be above 0 and at most 1")
        if self.mask is None:
            return
        here = f"generate.mask={self.mask_name}"
        if self.mask.shape != self.photo.shape[1:]:
            theirs, ours = (f"{image.shape[-1]} x {image.shape[-2]}" for image in (self.mask, self.photo))
            raise UserError(f"{here}: is {theirs} pixels, the photo {ours}; draw it over the photo, at its size")
        _both_kinds(self.mask, here, "of the photo")

    @property
    def strength(self) -> float:
        """The noise strength that holds."""
        if self.noise_strength is not None:
            return float(self.noise_strength)
        return NOISE_STRENGTH["image to image" if self.mask is None else "inpainting"]

    def fit(self, side: int) -> Canvas:
        """Photo and mask at a model's size: their middle square, scaled. Raises UserError for a mask of which that
        square shows nothing."""
        image = Image.fromarray(self.photo.permute(1, 2, 0).numpy())
        fit = PreparedPicture(self.name, *image.size, middle(*image.size), side, self.done)
        knobs: dict[str, Scalar] = {
            "image": self.name,
            "image_hash": digest(self.photo[None])[:16],
            "image_fit": fit.words() or "as it is",
            "noise_strength": self.strength,
        }
        mask = None
        if self.mask is not None:
            drawn = Image.fromarray(self.mask.numpy()).convert("L")
            mask = to_tensor(cut(drawn, side).convert("RGB"))[0] >= 255 * MASK_THRESHOLD
            _both_kinds(mask, f"generate.mask={self.mask_name}", "of the middle square that is drawn")
            knobs |= {
                "mask": self.mask_name,
                "mask_hash": digest(self.mask[None])[:16],
                "mask_threshold": MASK_THRESHOLD,
                "paste_back": self.paste_back,
            }
        return Canvas(to_tensor(cut(image, side)), mask, self.strength, self.paste_back, knobs)


@dataclass(frozen=True)
class Canvas:
    """A context at a model's own size, and what pictures say of it: `image`, `image_hash`, `image_fit`,
    `noise_strength`, and with a mask `mask`, `mask_hash`, `mask_threshold`, `paste_back`."""

    photo: UInt8[Tensor, "3 s s"]
    mask: Bool[Tensor, "s s"] | None
    strength: float
    paste_back: bool
    knobs: dict[str, Scalar]

    def check(self, steps: int) -> None:
        """Raises UserError where the noise strength leaves no step to run."""
        if int(steps * self.strength) < 1:
            raise UserError(
                f"generate.noise_strength={self.strength}: of {steps} steps none is left; raise it or generate.steps"
            )

    def encode(self, model: AbstractModel) -> LatentDistribution:
        """The photo's latents. Raises UserError for a denoiser that wants more than latents."""
        posterior = model.encode_image(self.photo[None].float() / 255 * 2 - 1)
        found, wanted = posterior.mean.shape[1], model.latent_shape[0]
        if found != wanted:
            raise UserError(
                f"model.path: the denoiser takes {wanted} channels and the autoencoder gives {found}; inpainting needs "
                "no channels for the mask here: give an ordinary text-to-image model"
            )
        return posterior

    def begin(self, posterior: LatentDistribution, generators: Sequence[torch.Generator]) -> tuple[Latents, Source]:
        """Each picture's own noise [b c h w], and the latents it is laid over. Draws from the generators in the order
        of the stock pipelines: latents, noise, and with a mask the latents of the masked photo, which only UNets with
        channels for them read; that draw is dropped."""
        shape = posterior.mean.shape
        latents, noise = [], []
        for generator in generators:
            latents.append(posterior.sample(generator))
            noise.append(torch.randn(shape, generator=generator))
            if self.mask is not None:
                torch.randn(shape, generator=generator)
        device = posterior.mean.device
        mask = None
        if self.mask is not None:
            grid = torch.nn.functional.interpolate(self.mask[None, None].float(), shape[-2:])  # nearest, as diffusers
            if not grid.any():
                pixels = self.mask.shape[-1] // shape[-1]
                here = f"generate.mask={self.knobs['mask']}"
                raise UserError(f"{here}: is finer than the {pixels} pixels of one latent; draw it thicker")
            mask = grid.to(device)
        return torch.cat(noise).to(device), Source(torch.cat(latents), self.strength, mask)

    def paste(self, images: Images) -> Images:
        """The photo's own pixels outside the mask, if asked for."""
        if self.mask is None or not self.paste_back:
            return images
        return torch.where(self.mask, images, self.photo)


def read_context(
    image: Path | str,
    mask: Path | str | None = None,
    noise_strength: float | None = None,
    paste_back: bool = True,
) -> Context:
    """A context from files: any picture, and a mask of the same size, white (from half brightness on) where the photo
    is drawn anew, black or transparent where it stays. Raises UserError in one line that names key and file."""
    photo, done = read_picture(_there(image, "image"))
    drawn = None
    if mask is not None:
        grey = read_picture(_there(mask, "mask"), ground="black")[0].convert("L")
        levels = to_tensor(grey.convert("RGB"))[0]
        if 0 < int(levels.max()) < 255 * MASK_THRESHOLD:
            raise UserError(
                f"generate.mask={mask}: its brightest pixel is {int(levels.max())} of 255; white is what is drawn anew"
            )
        drawn = levels >= 255 * MASK_THRESHOLD
    names = (Path(image).name, Path(mask).name if mask is not None else "")
    return Context(to_tensor(photo), drawn, noise_strength, paste_back, *names, tuple(done))


def _there(path: Path | str, key: str) -> Path:
    found = Path(path).expanduser()
    if not found.is_file():
        what = "is a folder, give one picture" if found.is_dir() else "no such file"
        raise UserError(f"generate.{key}={path}: {what}")
    return found


def _both_kinds(mask: Tensor, here: str, of_what: str) -> None:
    if not mask.any():
        raise UserError(f"{here}: marks nothing {of_what}; it must be white where something is drawn anew")
    if mask.all():
        raise UserError(f"{here}: marks all {of_what}; leave it out to draw the whole picture anew")

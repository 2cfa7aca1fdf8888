"""A data stream: pictures encoded once, drawn at every step from the step's own random streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from palp_lab.engine.augmentation import augment
from palp_lab.engine.latents import posterior
from palp_lab.engine.settings import Augmentation
from palp_lab.losses.passes import Share, stream
from palp_lab.model.base import AbstractModel
from palp_lab.types import Role, UserError

if TYPE_CHECKING:
    from palp_lab.types import Images, Latents, Masks

HELD_AT_ONCE = 8
"""Augmented pictures that are in memory at once; changes nothing else (ours)."""


@dataclass(frozen=True)
class Draw:
    """The rows of one stream in one micro-batch, before the denoiser has seen them."""

    x0: Latents
    noise: Latents
    t: Tensor
    sentences: tuple[str, ...]
    mask: Tensor | None
    share: Share


class Feed:
    """The subject's photos or the class's pictures, with their captions. Final.

    Posterior mean and standard deviation of `augment.variants` versions of each picture are encoded once, or read from
    `cache` (see `palp_lab.engine.latents`); a draw is a pure function of (seed, step, role, row). `own` captions,
    one per picture, take the place of `sentences`, of which each row draws one.
    """

    def __init__(
        self,
        role: Role,
        model: AbstractModel,
        pictures: Images,
        sentences: Sequence[str],
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        masks: Masks | None = None,
        cache: Path | None = None,
        own: Sequence[str] | None = None,
    ) -> None:
        if len(pictures) == 0:
            raise UserError(f"{role}: there are no pictures to train on")
        if not sentences:
            raise UserError("captions: there are none; give at least one sentence with one {}")
        self.role = role
        self.model = model
        self.pictures = pictures
        self.masks = masks
        self.sentences = tuple(sentences)
        self.own = own
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.variants = 1 if augmentation.changes_nothing else augmentation.variants
        if self.variants:
            self.mean, self.std, self.cover = self._encode_all(seed, cache)

    def draw(self, seed: int, step: int, micro: int, micros: int) -> Draw:
        """Micro-batch `micro` of `micros` of an optimizer step. Everything is drawn for the whole batch and cut."""
        if self.batch_size % micros:
            raise UserError(
                f"{self.role}: {self.batch_size} rows per step cannot be split among {micros} micro-batches; "
                f"make it a multiple of {micros} (trainer.batch_size, or batch_size of the loss that reads the stream)"
            )
        count = self.batch_size // micros
        share = Share(micro * count, count, self.batch_size)
        which = share.of(self._photos(seed, step))
        if self.variants:
            variant = torch.randint(self.variants, (self.batch_size,), generator=self._stream(seed, step, "variant"))
            at = which * self.variants + share.of(variant)
            mean, std, mask = self.mean[at], self.std[at], None if self.cover is None else self.cover[at]
        else:
            rows = range(share.first, share.first + share.count)
            mean, std, mask = self._encode(
                [
                    (int(photo), self._stream(seed, step, f"augment/{row}"))
                    for photo, row in zip(which, rows, strict=True)
                ]
            )
        device, shape = self.model.device, (self.batch_size, *mean.shape[1:])
        inner = torch.randn(shape, generator=self._stream(seed, step, "latents"))
        noise = torch.randn(shape, generator=self._stream(seed, step, "noise"))
        t = self.model.path.draw_t(self.batch_size, self._stream(seed, step, "t"))
        caption = share.of(
            torch.randint(len(self.sentences), (self.batch_size,), generator=self._stream(seed, step, "caption"))
        )
        return Draw(
            x0=(mean + std * share.of(inner)).to(device),
            noise=share.of(noise).to(device),
            t=share.of(t).to(device),
            sentences=tuple(
                self.own[int(i)] if self.own else self.sentences[int(j)] for i, j in zip(which, caption, strict=True)
            ),
            mask=None if mask is None else mask.to(device),
            share=share,
        )

    def _photos(self, seed: int, step: int) -> Tensor:
        """Which picture each row of the step holds: shuffled rounds through all of them, so that every picture is
        seen equally often."""
        n, first = len(self.pictures), step * self.batch_size
        rounds = range(first // n, (first + self.batch_size - 1) // n + 1)
        order = torch.cat([torch.randperm(n, generator=self._stream(seed, number, "round")) for number in rounds])
        return order[first - rounds[0] * n :][: self.batch_size]

    def _stream(self, seed: int, step: int, name: str) -> torch.Generator:
        return stream(seed, step, f"{self.role}/{name}")

    def _encode_all(self, seed: int, cache: Path | None) -> tuple[Tensor, Tensor, Tensor | None]:
        wanted = [
            (photo, self._stream(seed, 0, f"augment/{photo}/{variant}"))
            for photo in range(len(self.pictures))
            for variant in range(self.variants)
        ]
        means, stds, covers = [], [], []
        for i in range(0, len(wanted), HELD_AT_ONCE):
            pixels, cover = self._augmented(wanted[i : i + HELD_AT_ONCE])
            mean, std = posterior(self.model, pixels, cache)
            means.append(mean)
            stds.append(std)
            covers += [] if cover is None else [cover]
        return torch.cat(means), torch.cat(stds), torch.cat(covers) if covers else None

    def _encode(self, wanted: Sequence[tuple[int, torch.Generator]]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Posterior mean and std [b c h w] and how much of each latent cell the mask covers [b 1 h w], on the CPU."""
        pixels, cover = self._augmented(wanted)
        encoded = self.model.encode_image(pixels.to(self.model.device))
        return encoded.mean.float().cpu(), encoded.std.float().cpu(), cover

    def _augmented(self, wanted: Sequence[tuple[int, torch.Generator]]) -> tuple[Tensor, Tensor | None]:
        """Augmented pictures [b 3 r r] and their masks' share of each latent cell."""
        made = [
            augment(
                self.pictures[i],
                None if self.masks is None else self.masks[i],
                self.augmentation,
                g,
                self.model.resolution,
            )
            for i, g in wanted
        ]
        covers = [cover for _, cover in made if cover is not None]
        cover = functional.adaptive_avg_pool2d(torch.stack(covers), self.model.latent_shape[1:]) if covers else None
        return torch.stack([pixels for pixels, _ in made]), cover

"""Pictures from a model, whatever its words and edits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from palp_lab.diffusion.sampler import sample
from palp_lab.model.base import AbstractModel, TextCond
from palp_lab.types import UserError

if TYPE_CHECKING:
    from palp_lab.types import Images, Latents, Pixels

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


def in_batches(
    wanted: Sequence[Item], size: int, make: Callable[[Sequence[Item]], Images], resolution: int
) -> Iterator[tuple[Sequence[Item], Images]]:
    """What `make` draws of `size` wanted pictures at a time, with what was wanted. When memory runs out the batch is
    halved and the work goes on. Raises UserError where one picture alone does not fit."""
    done, size = 0, max(1, size)
    while done < len(wanted):
        part = wanted[done : done + size]
        try:
            images = make(part)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise UserError(
                    f"one picture at {resolution} px does not fit into memory; give dtype=bfloat16 or another device"
                ) from error
            size = max(1, len(part) // 2)
        else:
            done += len(part)
            yield part, images
            continue
        # Outside the except block: the traceback there keeps the failed pass's tensors alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.warning("out of memory: drawing %d pictures at once from here on", size)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an accelerator or the CPU allocator gave up."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@torch.no_grad()
def draw(
    model: AbstractModel,
    cond: TextCond,
    seeds: Sequence[int],
    scheduler: str,
    steps: int,
    guidance: float,
    names: Sequence[str] = (),
) -> Images:
    """One 8 bit picture per row of `cond`, each from its own seed, with whatever edits are attached and enabled. With
    `names` one that is not finite is an error that names it, else it is black."""
    noise, generators = zip(*(start(seed, model.latent_shape) for seed in seeds), strict=True)
    negative = None if guidance == 1 else model.unconditional(len(cond))
    at = torch.stack(noise).to(model.device)
    pixels = model.decode_image(denoise(model, cond, negative, at, generators, scheduler, steps, guidance))
    return to_uint8(check_finite(pixels, names, model.dtype) if names else pixels)


def start(seed: int, shape: Sequence[int]) -> tuple[Tensor, torch.Generator]:
    """A picture's own noise [c h w] and the generator that goes on from it (ancestral schedulers draw from it). The
    stock pipeline with `generator=torch.Generator().manual_seed(seed)` starts from the same noise."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator), generator


def denoise(
    model: AbstractModel,
    cond: TextCond,
    negative: TextCond | None,
    noise: Latents,
    generators: Sequence[torch.Generator],
    scheduler: str,
    steps: int,
    guidance: float,
    source: Any = None,
) -> Latents:
    """Latents of one picture per row of `cond`, away from `negative` (as many rows, in the same pass; None: no
    guidance). diffusers takes one generator per row wherever it takes one; `source` is a photo to begin from."""
    both = cond if negative is None else TextCond.cat([negative, cond])

    def predict(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        if negative is None:
            return model.predict(x_t, t, both).raw, None
        unconditional, conditional = model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), both).raw.chunk(2)
        return conditional, unconditional

    return sample(predict, model.scheduler(scheduler), noise, steps, guidance, list(generators), source)


def check_finite(pixels: Pixels, names: Sequence[str], dtype: torch.dtype) -> Pixels:
    """The pictures [b 3 h w], one of `names` each. Raises UserError, naming the first that holds values that are not
    finite: drawn black it would be measured like any other."""
    for pixel, name in zip(pixels, names, strict=True):
        if not bool(torch.isfinite(pixel).all()):
            fix = (
                "float16 cannot hold what this model computes: give dtype=bfloat16 or float32"
                if dtype == torch.float16
                else "the adapter has diverged: take an earlier step, or train with a smaller optimizer.lr"
            )
            raise UserError(f"the picture of {name} holds values that are not finite; {fix}")
    return pixels


def to_uint8(pixels: Pixels) -> Images:
    """Pictures in [-1, 1] as 8 bit RGB on the CPU, rounded as the stock pipeline does; non-finite is black."""
    if not bool(torch.isfinite(pixels).all()):
        logger.warning("some pictures hold values that are not finite: drawn black")
    return ((pixels.float() / 2 + 0.5).nan_to_num(0.0, 0.0, 0.0).clamp(0, 1) * 255).round().to(torch.uint8).cpu()

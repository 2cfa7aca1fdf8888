"""DreamBooth's class-prior term, on a data stream of its own."""

from __future__ import annotations

from torch import Tensor

from palp_lab.dataset.concept import check_sentence
from palp_lab.losses.base import AbstractLoss, StepContext
from palp_lab.losses.reconstruction import denoising_error
from palp_lab.types import Role, UserError

SOURCES = ("generated", "given")


class PriorPreservation(AbstractLoss):
    """How well pictures of the class are still denoised under the class's own prompt. Final.

    Source: arXiv 2208.12242 (DreamBooth), Eq. 2, the second term. Its stream has its own pictures, noise and t; rows
    are told apart by their role, never by their place in a batch. Plain mean of squares.

    `pictures` is where they come from: generated (drawn by the untrained model under `prompt`, before training) or
    given (the dataset's own pictures of the class); `count` how many; `prompt` a sentence whose slot takes the class
    word; `batch_size` rows per step (None: as many as the subject's).
    """

    version = 1
    source = "arXiv 2208.12242, Eq. 2"
    reads = frozenset({Role.PRIOR})

    def __init__(
        self,
        weight: float = 1.0,
        pictures: str = "generated",
        count: int = 200,
        prompt: str = "a {}",
        batch_size: int | None = None,
    ) -> None:
        if pictures not in SOURCES:
            raise UserError(f"losses.prior_preservation.pictures={pictures}: must be {' or '.join(SOURCES)}")
        if count < 1:
            raise UserError(f"losses.prior_preservation.count={count}: needs at least one picture of the class")
        check_sentence(prompt, "losses.prior_preservation.prompt")
        self.weight = weight
        self.pictures = pictures
        self.count = count
        self.prompt = prompt
        self.batch_size = batch_size

    def __call__(self, ctx: StepContext) -> Tensor:
        return denoising_error(ctx.passes[Role.PRIOR])

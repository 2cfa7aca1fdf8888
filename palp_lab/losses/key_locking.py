"""Keeps the concept's keys near the superclass's: where the network looks is not to change, only what it finds."""

from __future__ import annotations

import torch
from torch import Tensor

from palp_lab.losses.base import AbstractLoss, StepContext, base_text
from palp_lab.types import Capability, Role, UserError


class KeyLocking(AbstractLoss):
    """Mean over rows and cross-attention sites of |K(concept) - K0(superclass)|^2 / |K0(superclass)|^2. Final.

    K is the personalized model's key at the concept's last position in the caption, K0 the base model's at the last
    piece of the class word in the caption's clean twin (of its last occurrence, should the caption name it twice).
    Usable with learned words and with edits of the keys (lora, key_value, full).

    Source: ours, a soft form of the key locking of Perfusion, arXiv 2305.01644, section 4.1.
    Differs from the paper: there the keys are replaced, here they are drawn near.
    """

    version = 1
    source = "arXiv 2305.01644, section 4.1 (soft form, ours)"
    requires = frozenset({Capability.CROSS_ATTENTION})

    def __init__(self, weight: float = 0.1) -> None:
        self.weight = weight

    def __call__(self, ctx: StepContext) -> Tensor:
        data = ctx.passes[Role.SUBJECT]
        sentences = list(dict.fromkeys(data.sentences))
        rows = torch.tensor([data.sentences.index(sentence) for sentence in sentences], device=data.cond.tokens.device)
        cond = data.cond[rows]
        if bool((cond.concept_at < 0).any()):
            raise UserError("losses.key_locking: the captions hold no learned word; choose tokens=learned or per_layer")
        clean = [ctx.concept.clean(sentence) for sentence in sentences]
        places = ctx.model.locate(clean, ctx.concept.superclass)
        if lost := [sentence for sentence, place in zip(clean, places.tolist(), strict=True) if place < 0]:
            raise UserError(
                f"losses.key_locking: {lost[0]!r} does not hold the class word {ctx.concept.superclass!r} as a word of "
                "its own; change the captions, or dataset.superclass"
            )
        with torch.no_grad(), ctx.adapter.off():
            base = at(ctx.model.keys(base_text(ctx.model, clean)), places)
        own = at(ctx.model.keys(cond), cond.concept_at)
        apart = [(k - k0).square().sum(-1) / k0.square().sum(-1) for k, k0 in zip(own, base, strict=True)]
        each = torch.tensor([sentences.index(sentence) for sentence in data.sentences], device=rows.device)
        return torch.stack(apart)[:, each].mean()  # over rows, not over distinct captions: micro-batches are the batch


def at(keys: tuple[Tensor, ...], position: Tensor) -> list[Tensor]:
    """The keys [b c] of one position per row, at every site."""
    rows = torch.arange(len(position), device=position.device)
    return [k[rows, position].float() if k.dtype != torch.float64 else k[rows, position] for k in keys]

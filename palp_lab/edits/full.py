"""Full fine-tuning: a copy of the denoiser, and of the text encoders, is trained; the base stays beside it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from palp_lab.edits.base import AbstractEdits, text_encoders
from palp_lab.model.base import AbstractModel
from palp_lab.types import Capability, UserError


class FullEdits(AbstractEdits):
    """All weights of the denoiser, or those whose path holds one of `targets`. Final.

    `text_encoder` adds all weights of every text encoder but the vocabulary, whose rows stay as they are (a new word is
    the tokens' business; a decaying optimizer would move every row); they are saved as `text_encoder.<path>`
    (`text_encoder_2.` for a second one), and `merged_text` gives them by part. Judges and remembered prompts keep to
    the base's text.

    Source: DreamBooth, arXiv 2208.12242, section 3; the text encoder as the option of diffusers' script
    train_dreambooth.py.
    Differs from the paper: base and copy are both in memory, so that the base can judge; there (Imagen) the text
    encoder is frozen. Differs from the script: the vocabulary is frozen.
    """

    version = 1
    requires = frozenset({Capability.TRAINABLE_COPY})

    def __init__(self, targets: Sequence[str] | None = None, text_encoder: bool = False) -> None:
        super().__init__()
        self.targets = None if targets is None else tuple(targets)
        self.text_encoder = text_encoder
        if text_encoder:
            self.requires = self.requires | {Capability.TRAINABLE_TEXT}

    def attach(self, model: AbstractModel) -> None:
        self.model = model
        self._base = [model.denoiser]  # in a list: the base is no part of this module
        self._texts = dict(text_encoders(model)) if self.text_encoder else {}
        self._base_encoders = {name: text.encoder for name, text in self._texts.items()}
        self.trained: Any = _copy(model.denoiser, model.dtype)
        self.encoders: Any = {name: _copy(base, model.dtype) for name, base in self._base_encoders.items()}
        for name, parameter in self.trained.named_parameters():
            parameter.requires_grad_(self.targets is None or any(part in name for part in self.targets))
        for encoder in self.encoders.values():
            encoder.requires_grad_(True).get_input_embeddings().requires_grad_(False)
        # By name, not by requires_grad: a stage that freezes the edits takes nothing out of what is saved.
        self._names = {
            part: {name for name, parameter in network.named_parameters() if parameter.requires_grad}
            for part, network in [("", self.trained), *self.encoders.items()]
        }
        if not self._names[""]:
            self.detach()
            raise UserError(f"edits.targets={list(self.targets or ())}: no weight of the denoiser has such a path")
        model.denoiser = self.trained
        self._set(self.encoders)
        if self.text_encoder:
            model.edited_text = self.disabled

    def detach(self) -> None:
        self.model.denoiser = self._base[0]
        self._set(self._base_encoders)
        if self.text_encoder:
            self.model.edited_text = None
        self.trained, self.encoders = None, {}

    def _set(self, encoders: Mapping[str, Any]) -> None:
        for name, text in self._texts.items():
            text.encoder = encoders[name]

    @contextmanager
    def disabled(self) -> Iterator[None]:
        before = {name: text.encoder for name, text in self._texts.items()}
        with ExitStack() as blocks:
            blocks.enter_context(self.model.using(self._base[0]))
            if self.text_encoder:
                blocks.enter_context(self.model.text_of_base())
                blocks.callback(self._set, before)
                self._set(self._base_encoders)
            yield

    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        yield from self._trained(self.trained, "")
        for part, encoder in self.encoders.items():
            for name, weight in self._trained(encoder, part):
                yield f"{part}.{name}", weight

    def merged(self) -> Mapping[str, Tensor]:
        return {name: weight.detach() for name, weight in self._trained(self.trained, "")}

    def merged_text(self) -> Mapping[str, Mapping[str, Tensor]]:
        return {
            part: {name: weight.detach() for name, weight in self._trained(encoder, part)}
            for part, encoder in self.encoders.items()
        }

    def _trained(self, network: Any, part: str) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, weight) for name, weight in network.named_parameters() if name in self._names[part])


def _copy(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    # torch's own `to`: that of diffusers warns of a list of modules, which is empty.
    return nn.Module.to(copy.deepcopy(network), torch.promote_types(dtype, torch.float32))

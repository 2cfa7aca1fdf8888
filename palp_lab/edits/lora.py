"""Low-rank updates of the denoiser's projections, and of the text encoders', by peft."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from palp_lab.edits.base import AbstractEdits, text_encoders
from palp_lab.edits.low_rank import NAME, STARTS, LowRankLayers
from palp_lab.model.base import AbstractModel
from palp_lab.types import Capability, UserError

TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
"""The layers of a text encoder that diffusers' DreamBooth-LoRA script adapts."""


class LoraEdits(AbstractEdits):
    """W + (strength * alpha / rank) B A on every layer whose path ends in one of `targets`. Final.

    The default targets are the model's attention projections (self- and cross-attention; of text and picture where
    they are joint); `ff.net.0.proj`, `ff.net.2`, `conv1`, `conv2`,
    `proj_in` and `proj_out` are wider choices. A is drawn from `seed` and the layer's name alone, as `init` says:
    uniform (peft's own start) or gaussian with standard deviation 1 / rank; B is 0.
    `rank_pattern` and `alpha_pattern` are other values for some layers, by the end of their path, as peft reads them.

    `text_encoder` adds updates of the same rank and alpha to the `text_targets` of every text encoder, saved as
    `text_encoder.<path>.lora_A.weight` (`text_encoder_2.` for a second one), as diffusers' LoRA files call them;
    `text_lora` gives them by part. Judges and remembered prompts keep to the base's text.

    Source: arXiv 2106.09685, Eq. 3; rank and places as in PALP, arXiv 2401.06105, section 4.2 and appendix C; the
    gaussian start and the layers of the text encoder as in diffusers' script train_dreambooth_lora.py.
    Differs from the paper: alpha = rank unless given (PALP is silent; ours).
    """

    version = 1
    requires = frozenset({Capability.LINEAR_LAYERS})
    adapter_name = NAME

    def __init__(
        self,
        rank: int = 32,
        alpha: float | None = None,
        targets: Sequence[str] | None = None,
        seed: int = 0,
        rank_pattern: Mapping[str, int] | None = None,
        alpha_pattern: Mapping[str, float] | None = None,
        init: str = "uniform",
        text_encoder: bool = False,
        text_targets: Sequence[str] = TEXT_ATTENTION,
    ) -> None:
        super().__init__()
        if init not in STARTS:
            raise UserError(f"edits.init={init}: must be {' or '.join(STARTS)}")
        if rank < 1:
            raise UserError(f"edits.rank={rank}: must be at least 1")
        self.rank = rank
        self.alpha = float(rank if alpha is None else alpha)
        self.targets = None if targets is None else tuple(targets)
        self.seed = seed
        self.init = init
        self.text_encoder = text_encoder
        self.text_targets = tuple(text_targets)
        self.patterns: dict[str, Any] = {
            "rank_pattern": dict(rank_pattern or {}),
            "alpha_pattern": dict(alpha_pattern or {}),
        }
        if text_encoder:
            self.requires = self.requires | {Capability.TRAINABLE_TEXT}
        self._networks: dict[str, LowRankLayers] = {}
        """By the beginning of saved names: the denoiser has none."""

    def attach(self, model: AbstractModel) -> None:
        alpha: Any = int(self.alpha) if self.alpha.is_integer() else self.alpha
        config = {"r": self.rank, "lora_alpha": alpha, **self.patterns}
        self._model = [model]  # in a list: the base is no part of this module
        targets = model.projections if self.targets is None else self.targets
        denoiser = LowRankLayers(model.denoiser, "the denoiser", "edits.targets", targets, config)
        self._networks = {"": denoiser}
        try:
            for name, text in text_encoders(model) if self.text_encoder else ():
                own = config | self._patterns_in(text.encoder)
                found = LowRankLayers(text.encoder, name, "edits.text_targets", self.text_targets, own)
                self._networks[f"{name}."] = found
        except UserError:
            self.detach()
            raise
        for prefix, layers in self._networks.items():
            layers.start(model.device, self.init, f"{self.seed}/{prefix}")
        if self.text_encoder:
            model.edited_text = self.disabled

    def _patterns_in(self, network: nn.Module) -> dict[str, dict[str, Any]]:
        """The patterns of layers that are there, as peft looks for them: it warns of each that is not, and files of
        other tools name the denoiser's one by one."""
        names = [name for name, _ in network.named_modules()]
        return {
            kind: {end: value for end, value in some.items() if any(re.fullmatch(rf"(.*\.)?({end})", n) for n in names)}
            for kind, some in self.patterns.items()
        }

    def detach(self) -> None:
        for layers in self._networks.values():
            layers.detach()
        self._networks = {}
        if self.text_encoder:
            self._model[0].edited_text = None

    @contextmanager
    def disabled(self) -> Iterator[None]:
        with ExitStack() as blocks:
            if self.text_encoder:
                blocks.enter_context(self._model[0].text_of_base())
            for layers in self._networks.values():
                blocks.enter_context(layers.disabled())
            yield

    def set_strength(self, strength: float) -> None:
        for layers in self._networks.values():
            layers.set_strength(strength)

    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        for prefix, layers in self._networks.items():
            for name, parameter in layers.parts():
                yield prefix + name, parameter

    @torch.no_grad()
    def merged(self) -> Mapping[str, Tensor]:
        return self._networks[""].merged()

    def merged_text(self) -> Mapping[str, Mapping[str, Tensor]]:
        return {prefix[:-1]: layers.merged() for prefix, layers in self._networks.items() if prefix}

    def lora(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return self._networks[""].saved()

    def text_lora(self) -> Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, Any]]]:
        return {prefix[:-1]: layers.saved() for prefix, layers in self._networks.items() if prefix}

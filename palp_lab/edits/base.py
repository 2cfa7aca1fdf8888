"""What all edits share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from palp_lab.model.base import AbstractModel
from palp_lab.model.pipeline import TEXT_ENCODERS
from palp_lab.types import Capability, UserError


class AbstractEdits(nn.Module):
    """A change of the denoiser that can be attached, switched off exactly, saved and loaded."""

    requires: frozenset[Capability]
    starts_at_base: bool = True
    """Whether an untrained edit leaves every output as it was."""
    shares_base_pass: bool = False
    """Whether the model under this edit is the base itself, so that rows of the personalized and of the base model may
    share a pass. False where weights differ: one pass applies one set of weights to all its rows. (peft can choose a
    LoRA per row, but in evaluation mode only, and then calls the layers of every group of rows one by one.)"""

    @abstractmethod
    def attach(self, model: AbstractModel) -> None:
        """Creates the parameters on the model's device (float32) and puts the edit in place, enabled."""

    @abstractmethod
    def detach(self) -> None:
        """Takes the edit out again; the model is bitwise what it was before `attach`."""

    @abstractmethod
    def disabled(self) -> AbstractContextManager[None]:
        """A block in which `predict` is bitwise the base model. Does not touch requires_grad, so a graph built outside
        can be differentiated after it."""

    @abstractmethod
    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The trainable parameters with the names they are saved under."""

    @abstractmethod
    def merged(self) -> Mapping[str, Tensor]:
        """Weights of the denoiser, by the names of diffusers, with the edit worked in; only those that differ."""

    def merged_text(self) -> Mapping[str, Mapping[str, Tensor]]:
        """The same of the text encoders, by the pipeline's part (text_encoder, text_encoder_2) and name; empty where
        they are the base's."""
        return {}

    def lora(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        """Weights and configuration as LoRA files hold them; None where the edit is no LoRA."""
        return None

    def text_lora(self) -> Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, Any]]]:
        """The same of the text encoders, by the pipeline's part; empty where they carry no LoRA."""
        return {}

    def set_strength(self, strength: float) -> None:
        """The inference-time knob (LoRA scale); only 1 where a method has none."""
        if strength != 1:
            raise UserError(f"generate.strength={strength}: {type(self).__name__} has no strength; leave it at 1")


def text_encoders(model: AbstractModel) -> list[tuple[str, Any]]:
    """The text sides an edit can train, by the pipeline's name of their encoder."""
    return list(zip(TEXT_ENCODERS, model.texts, strict=False))

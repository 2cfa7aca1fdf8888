"""A model handed back to diffusers: stock pipelines and the files its loaders read."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.model.unet import UNetModel


def stock_pipeline(model: UNetModel, weights: Mapping[str, Tensor] | None = None) -> Any:
    """A StableDiffusionPipeline of the model's own parts, with `weights` of the denoiser replaced (a copy then).

    The base must carry no edit.
    """
    diffusers = _diffusers()
    from diffusers.models.attention_processor import AttnProcessor2_0

    unet = copy.deepcopy(model.base)
    unet.set_attn_processor(AttnProcessor2_0())
    state = unet.state_dict()
    if unknown := (weights or {}).keys() - state.keys():
        raise ValueError(f"the denoiser has no weight {min(unknown)}")
    unet.load_state_dict({**state, **(weights or {})})
    scheduler = getattr(diffusers, model.scheduler_config["_class_name"]).from_config(model.scheduler_config)
    return diffusers.StableDiffusionPipeline(
        vae=model.autoencoder,
        text_encoder=model.text.encoder,
        tokenizer=model.text.tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )


def save_lora(folder: Path, layers: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
    """Writes a LoRA that `load_lora_weights` reads. Without the metadata the loader would take alpha for the rank."""
    _diffusers().StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=dict(layers), unet_lora_adapter_metadata=dict(metadata)
    )
    return folder / "pytorch_lora_weights.safetensors"


def _diffusers() -> Any:
    """diffusers, without the warnings of transformers about image processors that need torchvision: none is used."""
    import diffusers
    from transformers.utils import logging

    logging.set_verbosity_error()
    return diffusers

"""A model handed back to diffusers: stock pipelines, and the layers that files of other tools name."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from palp_lab.model.base import AbstractModel

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
"""What stock pipelines call the CLIP text encoders, in the order of a model's own."""


def stock_pipeline(
    model: AbstractModel,
    weights: Mapping[str, Tensor] | None = None,
    words: Mapping[str, Sequence[Tensor]] | None = None,
    text_weights: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Any:
    """The stock pipeline of the model's own parts, with `weights` of the denoiser replaced (a copy then), `words` added
    to its vocabularies (vectors [k d] per text encoder), and `text_weights` of text encoders replaced, by part.

    The base must carry no edit.
    """
    diffusers = _diffusers()
    parts = dict(model.pipeline_parts())
    for name in TEXT_ENCODERS if words or text_weights else ():
        if name in parts:
            tokenizer = name.replace("text_encoder", "tokenizer")
            parts[name], parts[tokenizer] = copy.deepcopy(parts[name]), copy.deepcopy(parts[tokenizer])
    for name, some in (text_weights or {}).items():
        _replace(parts[name], some)
    parts[model.denoiser_part] = stock_denoiser(model, weights)
    config = model.scheduler_config
    parts["scheduler"] = getattr(diffusers, config["_class_name"]).from_config(config)
    pipeline = getattr(diffusers, model.pipeline)(**parts)
    for word, vectors in (words or {}).items():
        for name, own in zip(TEXT_ENCODERS, vectors, strict=False):
            encoder, tokenizer = parts[name], parts[name.replace("text_encoder", "tokenizer")]
            own = own.to(encoder.dtype)
            pipeline.load_textual_inversion(own, token=word, text_encoder=encoder, tokenizer=tokenizer)
            _pool_at_end(encoder, tokenizer)
    return pipeline


def _pool_at_end(encoder: Any, tokenizer: Any) -> None:
    """Old configurations pool at the highest id, which a new word has: from here on at the end of the prompt."""
    encoder.config.eos_token_id = tokenizer.eos_token_id
    for module in encoder.modules():
        if "eos_token_id" in vars(module):
            module.eos_token_id = tokenizer.eos_token_id


def stock_denoiser(model: AbstractModel, weights: Mapping[str, Tensor] | None = None) -> Any:
    """A copy of the frozen denoiser with the processors of diffusers, and with `weights` replaced."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    denoiser: Any = copy.deepcopy(model.base)
    for site in model.sites:
        attention: Any = denoiser.get_submodule(site.path)
        attention.set_processor(AttnProcessor2_0())
    _replace(denoiser, weights or {})
    return denoiser


def _replace(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    state = module.state_dict()
    if unknown := weights.keys() - state.keys():
        raise ValueError(f"the model has no weight {min(unknown)}")
    module.load_state_dict({**state, **weights})


def adaptable_layers(model: AbstractModel) -> dict[str, dict[str, nn.Module]]:
    """Linear layers and convolutions by part (denoiser, text_encoder, text_encoder_2) and path: what LoRAs lie on."""
    from torch import nn

    parts: dict[str, Any] = {"denoiser": model.base}
    parts |= {name: part for name, part in model.pipeline_parts().items() if name in TEXT_ENCODERS}
    return {
        part: {path: layer for path, layer in module.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}
        for part, module in parts.items()
    }


def attention_paths(model: AbstractModel) -> list[str]:
    """All attentions of the denoiser by path, whether they read the text or not."""
    denoiser: Any = model.base
    return [name.removesuffix(".processor") for name in denoiser.attn_processors]


def peft_defaults() -> dict[str, Any]:
    """What peft's configuration of a LoRA says of everything a LoRA file leaves open, as plain data."""
    from peft import LoraConfig

    config = LoraConfig().to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}


def save_peft_config(folder: Path, words: Mapping[str, Any], base: str) -> None:
    """Writes the adapter_config.json of a peft folder."""
    from peft import LoraConfig

    config = LoraConfig(**words, inference_mode=True, base_model_name_or_path=base)
    config.save_pretrained(str(folder))


def _diffusers() -> Any:
    """diffusers, without the warnings of transformers about image processors that need torchvision: none is used."""
    import diffusers
    from transformers.utils import logging

    logging.set_verbosity_error()
    return diffusers

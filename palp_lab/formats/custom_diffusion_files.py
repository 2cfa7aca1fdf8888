"""Weights of Custom Diffusion: the file of diffusers' training script, and the authors' delta.bin."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

FILE = "pytorch_custom_diffusion_weights.safetensors"
KEY = re.compile(r"(?P<at>.+\.attn2)\.processor\.(?P<name>to_[kvq]|to_out)_custom_diffusion\.(?:0\.)?(?P<kind>\w+)")
ALWAYS, WITH_CROSSATTN = ("to_k.weight", "to_v.weight"), ("to_q.weight", "to_out.0.weight", "to_out.0.bias")
"""What the method trains at every cross-attention, and what its option `crossattn` adds."""


def trained(names: Iterable[str], sites: Sequence[str]) -> tuple[str, ...]:
    """What of every cross-attention a set of weights holds, where it is just what Custom Diffusion trains; else ()."""
    names = set(names)
    for kinds in (ALWAYS, ALWAYS + WITH_CROSSATTN):
        if names and names == {f"{site}.{kind}" for site in sites for kind in kinds}:
            return kinds
    return ()


def to_custom_diffusion(merged: Mapping[str, Tensor], attentions: Sequence[str], dtype: Any) -> dict[str, Tensor]:
    """Tensors of a file that `load_attn_procs` reads. `attentions` are all of the denoiser's: diffusers wants a
    processor for each, and an empty tensor stands for one that keeps its weights."""
    import torch

    tensors = {}
    for name, weight in merged.items():
        at, _, rest = name.partition(".attn2.")
        kind, _, end = rest.partition(".")
        tensors[f"{at}.attn2.processor.{kind}_custom_diffusion.{end}"] = (
            weight.detach().to("cpu", dtype, copy=True).contiguous()
        )
    edited = {name.partition(".processor.")[0] for name in tensors}
    return tensors | {f"{path}.processor": torch.zeros(0) for path in attentions if path not in edited}


def is_custom_diffusion(data: Mapping[str, Any]) -> bool:
    """Whether the content of a file is Custom Diffusion's."""
    return any("_custom_diffusion." in key for key in data) or {"unet", "modifier_token"} <= data.keys()


def read_custom_diffusion(
    where: str, data: Mapping[str, Any], layers: Mapping[str, Any], sites: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights by the denoiser's own names, and word vectors by word where the file has them.

    Args:
        where: the file in error lines.
        data: its content.
        layers: the denoiser's layers by path.
        sites: paths of its cross-attentions.

    Raises:
        UserError: for weights of another shape, of other layers, or compressed ones.
    """
    words: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    if "modifier_token" in data:
        if "text_encoder" in data:
            raise UserError(
                f"{where}: text_encoder was trained as well, which is not read here; give a delta without it"
            )
        words = dict(data["modifier_token"])
        weights = {key.replace(".processor.", "."): value for key, value in data["unet"].items()}
    else:
        for key, value in data.items():
            if found := KEY.fullmatch(key):
                name = "to_out.0" if found["name"] == "to_out" else found["name"]
                weights[f"{found['at']}.{name}.{found['kind']}"] = value
            elif len(value):
                raise UserError(f"{where}: {key} is no weight of Custom Diffusion; give a file that holds nothing else")
    for name, value in weights.items():
        path, _, kind = name.rpartition(".")
        own = getattr(layers.get(path), kind, None)
        if isinstance(value, Mapping):
            raise UserError(f"{where}: {name} is compressed, which is not read here; give the delta before compression")
        if own is None or own.shape != value.shape:
            here = "has no such layer" if own is None else f"has {tuple(own.shape)} there"
            raise UserError(
                f"{where}: {name} is {tuple(value.shape)} and the model {here}; "
                "choose the model it was trained on with model="
            )
    if not trained(weights, sites):
        raise UserError(
            f"{where}: the weights are not those of every cross-attention of the model; "
            "choose the model it was trained on with model="
        )
    return weights, words

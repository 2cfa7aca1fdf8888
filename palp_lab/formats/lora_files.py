"""LoRAs of diffusers, peft and kohya, recognised by their keys and fitted to a model's layers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from palp_lab.formats.low_rank import (
    KOHYA,
    METADATA,
    LowRank,
    Updates,
    peft_alpha,
    refuse_altered_base,
    refuse_strangers,
)
from palp_lab.formats.names import flat, ldm_paths
from palp_lab.layouts import with_text_model, without_text_model
from palp_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

ENDING = re.compile(
    r"(?P<layer>.+?)(?:"
    r"\.lora_(?P<peft>[AB])(?:\.\w+)?\.weight"  # peft, with or without the adapter's name
    r"|[._]lora(?:_linear_layer)?\.(?P<diffusers>down|up)\.weight"  # diffusers: new, text encoder, old processors
    r"|\.lora_(?P<kohya>down|up)\.weight"
    r")"
)
OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
"""What diffusers 0.1x called the projections of a text encoder."""
FAMILIES = {
    768: "Stable Diffusion 1.x (model=sd14 or sd15)",
    1024: "Stable Diffusion 2.x (model=sd21)",
    2048: "SDXL (model=sdxl)",
}
"""Bases by the width of the text their cross-attention reads."""


@dataclass
class Layers:
    """The layers of a model a LoRA can lie on: per part, torch modules by path. `name` is the model's in error lines;
    `blocks` is the UNet's layers_per_block, None where the denoiser is none."""

    name: str
    parts: Mapping[str, Mapping[str, nn.Module]]
    blocks: int | None = None
    words: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Spells every layer as kohya would."""
        for part, layers in self.parts.items():
            for path in layers:
                prefixes = {"text_encoder": ("lora_te", "lora_te1")}.get(part, (KOHYA[part],))
                for spelling in _spellings(path, part == "denoiser"):
                    self.words |= {flat(prefix, spelling): (part, path) for prefix in prefixes}
        if self.blocks is not None:
            for path, other in ldm_paths(self.parts["denoiser"], self.blocks).items():
                self.words.setdefault(flat(KOHYA["denoiser"], other), ("denoiser", path))

    def find(self, layer: str) -> tuple[str, str] | None:
        """Part and path of a layer as any of the tools spells it; None where the model has no such layer."""
        if layer in self.words:
            return self.words[layer]
        plain = layer.removeprefix("base_model.model.").replace(".processor.", ".")
        head, _, rest = plain.partition(".")
        if head in ("unet", "transformer"):
            wanted = {"denoiser": rest}
        elif head in ("text_encoder", "text_encoder_2"):
            wanted = {head: rest}
        else:
            wanted = dict.fromkeys(self.parts, plain)
        for part, path in wanted.items():
            for spelling in _spellings(path, part == "denoiser"):
                if spelling in self.parts.get(part, {}):
                    return part, spelling
        return None


def _spellings(path: str, denoiser: bool) -> list[str]:
    """A path and its older forms: `to_out` for `to_out.0`, with and without `text_model.`, `to_q` for `q_proj`."""
    if denoiser:
        return [path, f"{path}.0"] if path.endswith("to_out") else [path]
    stem, _, last = path.rpartition(".")
    path = f"{stem}.{OLD_TEXT.get(last, last)}"
    return [path, with_text_model(path), without_text_model(path)]


def is_lora(names: Mapping[str, Any]) -> bool:
    """Whether keys are a LoRA's."""
    return any(ENDING.fullmatch(name) for name in names)


def read_lora(
    where: str, tensors: Mapping[str, Tensor], header: Mapping[str, str], layers: Layers, peft: Mapping[str, Any] | None
) -> Updates:
    """The updates a file holds, checked against the model.

    Args:
        where: the file in error lines.
        tensors: its content.
        header: its metadata; alpha is looked for in diffusers' entry.
        layers: the model's.
        peft: the adapter_config.json beside it, if any.

    Raises:
        UserError: for another kind of update, half a pair, a layer given twice, or a base of another shape or with
            weights of its own; names file, key and base.
    """
    refuse_strangers(where, list(tensors))
    with suppress(ValueError, AttributeError):  # complained of where an alpha is looked for
        refuse_altered_base(where, peft or json.loads(header.get(METADATA, "{}")))
    halves: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    keys: dict[str, str] = {}
    for name, tensor in tensors.items():
        if found := ENDING.fullmatch(name):
            pair = halves.setdefault(found["layer"], {})
            if _side(found) in pair:
                raise _twice(where, keys[found["layer"]], name)
            pair[_side(found)] = tensor
            keys[found["layer"]] = name
        elif name.endswith(".alpha") and tensor.numel() == 1:
            alphas[name.removesuffix(".alpha")] = float(tensor)
        else:
            raise UserError(f"{where}: {name} is no part of a LoRA; give a file that holds nothing else")
    if fused := next((name for name in tensors if "joint_blocks" in name), None):
        raise UserError(
            f"{where}: {fused} is of kohya's and ComfyUI's layout for Stable Diffusion 3, whose fused layers are not "
            "read; convert the file to diffusers' keys (transformer.transformer_blocks...)"
        )
    made_for = guess_base(tensors)
    updates: dict[str, dict[str, LowRank]] = {}
    read_from: dict[tuple[str, str], str] = {}
    for layer, pair in halves.items():
        if len(pair) < 2:
            raise UserError(f"{where}: {keys[layer]} has no other half; the file is incomplete, copy it again")
        if (place := layers.find(layer)) is None:
            raise UserError(f"{where}: {layers.name} has no layer for {keys[layer]}; {made_for}")
        if place in read_from:
            raise _twice(where, read_from[place], keys[layer])
        read_from[place] = keys[layer]
        part, path = place
        down, up = _fitted(where, keys[layer], pair, layers.parts[part][path], layers.name, made_for)
        told = alphas.get(layer)
        if told is None:
            try:
                told = _told_alpha(header, peft, part, path, len(down))
            except (ValueError, TypeError, AttributeError, re.error) as error:
                raise UserError(f"{where}: what is said of its alpha cannot be read ({error}); copy it again") from None
        updates.setdefault(part, {})[path] = LowRank(down, up, told)
    if stray := sorted(alphas.keys() - halves.keys()):
        raise UserError(f"{where}: {stray[0]}.alpha has no factors beside it; the file is incomplete, copy it again")
    return updates


def _twice(where: str, one: str, other: str) -> UserError:
    """What is said of a second update of a layer: neither the sum nor one of the two is surely what is meant."""
    return UserError(f"{where}: {one} and {other} give one layer twice; keep one LoRA, in one spelling")


def _side(found: re.Match[str]) -> str:
    """Which factor a key names."""
    return "down" if (found["peft"] or found["diffusers"] or found["kohya"]) in ("A", "down") else "up"


def _told_alpha(header: Mapping[str, str], peft: Mapping[str, Any] | None, part: str, path: str, rank: int) -> float:
    """Alpha from the configurations that came with a file; where nothing is said, diffusers takes the rank."""
    config: dict[str, Any] = dict(peft or {})
    if not config and METADATA in header:
        prefixes = ("unet.", "transformer.") if part == "denoiser" else (f"{part}.",)
        for key, value in json.loads(header[METADATA]).items():
            for prefix in prefixes:
                if key.startswith(prefix):
                    config[key.removeprefix(prefix)] = value
    if "lora_alpha" not in config:
        return float(rank)
    return peft_alpha(config, _spellings(path, part == "denoiser"), rank)


def _fitted(
    where: str, key: str, pair: Mapping[str, Tensor], module: Any, model: str, made_for: str
) -> tuple[Tensor, Tensor]:
    """Both factors in the shape of the layer: 1 x 1 convolutions are linear layers in some versions of a model."""
    down, up = pair["down"].float(), pair["up"].float()
    weight = module.weight
    if weight.ndim == 2 and down.ndim == 4 and down.shape[2:] == (1, 1):
        down, up = down[..., 0, 0], up[..., 0, 0]
    elif weight.ndim == 4 and down.ndim == 2:
        down, up = down[..., None, None], up[..., None, None]
    fits = (
        down.ndim == up.ndim == weight.ndim
        and down.shape[0] == up.shape[1]
        and down.shape[1:] == weight.shape[1:]
        and up.shape[0] == weight.shape[0]
    )
    if not fits:
        shape = tuple(pair["down"].shape)
        raise UserError(
            f"{where}: {key} belongs to an update {tuple(up.shape)} x {shape}, and that layer of {model} is "
            f"{tuple(weight.shape)}; {made_for}"
        )
    return down.contiguous(), up.contiguous()


def guess_base(tensors: Mapping[str, Tensor]) -> str:
    """What a file seems made for, from the width of the text its cross-attention reads, or from its first words."""
    for name, tensor in tensors.items():
        found = ENDING.fullmatch(name)
        if (
            found
            and tensor.ndim > 1
            and _side(found) == "down"
            and re.search(r"attn2[._](?:processor\.)?to_[kv]$", found["layer"])
        ):
            width = tensor.shape[1]
            base = FAMILIES.get(width, "a model that reads text")
            return f"it seems made for {base}, text of width {width}"
    names = " ".join(tensors)
    if "double_blocks" in names or "transformer." in names or "single_transformer_blocks" in names:
        return "it seems made for a transformer such as FLUX or Stable Diffusion 3"
    if "lora_te2" in names or "text_encoder_2" in names:
        return f"it seems made for {FAMILIES[2048]}"
    return "choose the model it was trained on"

"""Low-rank updates whatever file they come from, and the spellings they are written in."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from palp_lab.formats.names import flat
from palp_lab.layouts import with_text_model
from palp_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

KOHYA = {"denoiser": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}
"""First words of kohya's keys by part of the model; with two text encoders the first is lora_te1."""
SD1, SD2, SDXL = "sd_v1", "sd_v2", "sdxl_base_v1-0"
"""What kohya's tools call the families of base models."""
METADATA = "lora_adapter_metadata"
"""Header key under which diffusers keeps the configurations of peft."""


@dataclass(frozen=True)
class LowRank:
    """The update (alpha / r) up down of one layer's weight: `down` [r in ...], `up` [out r ...]."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return len(self.down)


def with_rank(update: LowRank, rank: int, alpha: float) -> LowRank:
    """The same update with a rank that is not smaller, filled up with zeros, and with another alpha."""
    import torch

    missing = rank - update.rank
    down = torch.cat([update.down, update.down.new_zeros(missing, *update.down.shape[1:])])
    up = torch.cat([update.up, update.up.new_zeros(len(update.up), missing, *update.up.shape[2:])], 1)
    return LowRank(down, up * ((update.alpha / update.rank) / (alpha / rank)), alpha)


Updates = Mapping[str, Mapping[str, LowRank]]
"""Updates by part (denoiser, text_encoder, text_encoder_2) and by the layer's path inside it, as diffusers names it."""


def from_peft(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, LowRank]:
    """Updates of one part from peft's names (`<path>.lora_A.weight`) and configuration."""
    found = {}
    for name, down in weights.items():
        path, ending, _ = name.partition(".lora_A.")
        if ending:
            up = weights[name.replace(".lora_A.", ".lora_B.")]
            found[path] = LowRank(down, up, peft_alpha(config, [path], len(down)))
    return found


def peft_alpha(config: Mapping[str, Any], spellings: Sequence[str], rank: int) -> float:
    """The alpha a peft configuration gives a layer, such that alpha / rank is its scale. A pattern is a regular
    expression for the end of a path; `spellings` are the layer's paths by one version of the libraries or another."""
    patterns = config.get("alpha_pattern") or {}
    fitting = (
        float(value)
        for key, value in patterns.items()
        if any(re.fullmatch(rf"(.*\.)?({key})", path) for path in spellings)
    )
    alpha = next(fitting, float(config["lora_alpha"]))
    return alpha * rank**0.5 if config.get("use_rslora") else alpha


def to_peft(updates: Mapping[str, LowRank]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of one part under peft's names, and what its configuration must say of them."""
    weights = {}
    for path, update in updates.items():
        weights[f"{path}.lora_A.weight"], weights[f"{path}.lora_B.weight"] = update.down, update.up
    return weights, peft_words(updates)


def peft_words(updates: Mapping[str, LowRank]) -> dict[str, Any]:
    """Rank, alpha and places in the words of peft: what most layers have, and patterns for the others."""
    rank = Counter(update.rank for update in updates.values()).most_common(1)[0][0]
    alpha = Counter(update.alpha for update in updates.values()).most_common(1)[0][0]
    return {
        "r": rank,
        "lora_alpha": _plain(alpha),
        "target_modules": sorted(updates),
        "rank_pattern": {path: u.rank for path, u in sorted(updates.items()) if u.rank != rank},
        "alpha_pattern": {path: _plain(u.alpha) for path, u in sorted(updates.items()) if u.alpha != alpha},
    }


def _plain(alpha: float) -> float | int:
    """peft and diffusers write whole alphas as whole numbers."""
    return int(alpha) if float(alpha).is_integer() else alpha


def to_diffusers(
    updates: Updates, denoiser: str, config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a file that `load_lora_weights` reads. Without the metadata the loader would take alpha for
    the rank. Keys of text encoders have the level `text_model.`, which older readers need and diffusers accepts.

    `denoiser` is what the pipeline calls it (unet, transformer); `config` holds peft's defaults.
    """
    tensors: dict[str, Tensor] = {}
    told: dict[str, Any] = {}
    for part, layers in updates.items():
        prefix = denoiser if part == "denoiser" else part
        weights, words = to_peft(layers)
        for name, weight in weights.items():
            tensors[f"{prefix}.{name if part == 'denoiser' else with_text_model(name)}"] = weight
        told |= {f"{prefix}.{key}": value for key, value in {**config, **words}.items()}
    return tensors, {"format": "pt", METADATA: json.dumps(told, indent=2, sort_keys=True)}


def to_kohya(
    updates: Updates, names: Mapping[str, str], concept: str, family: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a file that kohya's tools, ComfyUI and A1111 read: one word per layer, alpha as a tensor.

    `names` gives the layers of the denoiser another name where those tools have one (`ldm_paths`). `family` is what
    they call the base model (sd_v1, sd_v2, sdxl_base_v1-0): A1111 takes a file that does not say it for one of SD 1.x,
    and hides it from the list beside any other model.
    """
    import torch

    tensors: dict[str, Tensor] = {}
    for part, layers in updates.items():
        prefix = KOHYA[part] if part != "text_encoder" or "text_encoder_2" not in updates else "lora_te1"
        for path, update in layers.items():
            word = flat(prefix, names.get(path, path) if part == "denoiser" else with_text_model(path))
            tensors[f"{word}.lora_down.weight"], tensors[f"{word}.lora_up.weight"] = update.down, update.up
            tensors[f"{word}.alpha"] = torch.tensor(float(update.alpha), dtype=update.down.dtype)
    most = peft_words(next(iter(updates.values())))
    header = {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(most["r"]),
        "ss_network_alpha": str(most["lora_alpha"]),
        "ss_output_name": concept,
    }
    if family is not None:
        header |= {"ss_base_model_version": family, "ss_v2": str(family == SD2)}
    return tensors, header


def cast(updates: Updates, dtype: Any) -> Updates:
    """The same in another floating-point type, on the CPU, every tensor with memory of its own."""
    return {
        part: {
            path: LowRank(_own(u.down, dtype), _own(u.up, dtype), u.alpha) for path, u in layers.items()
        }
        for part, layers in updates.items()
    }  # fmt: skip


def _own(tensor: Tensor, dtype: Any) -> Tensor:
    return tensor.detach().to("cpu", dtype, copy=True).contiguous()


REFUSED = {
    "lora_magnitude_vector": "DoRA",
    "dora_scale": "DoRA",
    "hada_w1": "LoHa",
    "lokr_w": "LoKr",
    "lora_mid": "LoCon with a middle factor",
    "oft_": "OFT",
    "boft_": "BOFT",
    "lora_embedding": "LoRA of an embedding table",
    "lora_A.bias": "LoRA with a bias",
    "lora_B.bias": "LoRA with a bias",
    "bundle_emb": "LoRA with embeddings bundled in",
    ".diff": "LyCORIS with full differences",
}
"""Parts of keys that mean another kind of update than ours, and its name."""


ALTERED = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of peft's `init_lora_weights` that move a part of the base's own weights into the factors."""


def refuse_altered_base(where: str, config: Mapping[str, Any]) -> None:
    """Raises UserError for factors that belong to a changed base: on the untouched one they are another subject.

    `config` is a configuration of peft, or what diffusers keeps of several, by part.
    """
    for key, kind in config.items():
        if key.rpartition(".")[2] == "init_lora_weights" and str(kind).lower().startswith(ALTERED):
            raise UserError(
                f"{where}: {key}={kind} changed the base's own weights, which this file lacks; save it with peft's "
                "path_initial_model_for_weight_conversion, or merge it into a pipeline and give that as model.path"
            )


def refuse_strangers(where: str, names: list[str]) -> None:
    """Raises UserError for an update that is no plain LoRA: half of it would be half a subject."""
    for name in names:
        for part, kind in REFUSED.items():
            if part in name:
                raise UserError(
                    f"{where}: {name} belongs to a {kind}, which is not read here; "
                    "merge it into a pipeline with its own tool and give that as model.path"
                )

"""Every part that has a file in conf/, built as a run builds it: a new part joins the suites by its YAML alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from palp_lab.adapter import Adapter
from palp_lab.build import build
from palp_lab.dataset.concept import Concept
from palp_lab.model.unet import UNetModel

CONF = Path(__file__).resolve().parents[2] / "conf"


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def make(group: str, name: str, **changes: Any) -> Any:
    """A part by its file's name; "full+text_encoder" is that of full.yaml with text_encoder=true."""
    name, *switched = name.split("+")
    changes |= dict.fromkeys(switched, True)
    root = OmegaConf.create({"seed": 0, group: OmegaConf.load(CONF / group / f"{name}.yaml")})
    root[group].update(changes)
    return build(root[group], group)


def concept(placeholder: str = "<v>", superclass: str = "cat") -> Concept:
    photos = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    return Concept("mia", superclass, placeholder, photos, digest="0")


def adapter(model: UNetModel, tokens: str = "learned", edits: str = "lora", **changes: Any) -> Adapter:
    return Adapter(model, make("tokens", tokens), make("edits", edits, **changes), concept())


def train_a_little(adapter: Adapter, seed: int = 0, size: float = 0.05) -> None:
    """Moves every trainable parameter at random, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in adapter.parts():
            step = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter += size * step


def scene(model: UNetModel, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x_t = torch.randn(batch, *model.latent_shape, generator=torch.Generator().manual_seed(7), dtype=model.dtype)
    return x_t, torch.arange(batch) * 400 + 20

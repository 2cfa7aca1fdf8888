"""The one-step-estimate strip: what a model sees in pure noise under the test prompt, over the training.

An overfitted model sees the training photo's background and colours there before the first sampling step is over.
Source: PALP, arXiv 2401.06105, Fig. 5.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from palp_lab.diffusion.guidance import guide
from palp_lab.generate import Prompting, start, to_uint8
from palp_lab.model.base import AbstractModel
from palp_lab.pictures import png_bytes
from palp_lab.study.fields import parse, read_text
from palp_lab.study.writing import write_bytes, write_text

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.types import Images

SCHEMA = "palp_lab.strip/1"
CLAMP = 4.0
"""Bound of the estimate in latent units: at the end of the clock an error of the denoiser is divided by alpha, 0.07 in
Stable Diffusion. Latents have unit variance, so 4 cuts next to nothing of a real one (ours)."""


@torch.no_grad()
def strip_images(
    model: AbstractModel,
    prompting: Prompting,
    sentence: str,
    seeds: Sequence[int] = (0,),
    guidance: float = 1.0,
    clamp: float | None = CLAMP,
) -> Images:
    """One-step estimates x0hat [n 3 h w] from each seed's pure noise at the last timestep, under one sentence.

    The noise depends on the seed alone, so pictures of different models and steps can be laid side by side. Without
    guidance (1), as the paper's Eq. 2 has it.
    """
    noise = torch.stack([start(seed, model.latent_shape)[0] for seed in seeds]).to(model.device)
    t = torch.full((len(seeds),), model.path.steps - 1, device=model.device)
    with prompting.block():
        prediction = model.predict(noise, t, prompting.encode([sentence]).repeat(len(seeds)))
        if guidance != 1:
            empty = model.predict(noise, t, model.base_text([""]).repeat(len(seeds)))
            prediction = prediction.with_raw(guide(empty.raw, prediction.raw, guidance))
    x0: Tensor = prediction.x0
    return to_uint8(model.decode_image(x0 if clamp is None else x0.clamp(-clamp, clamp)))


@dataclass(frozen=True)
class Strip:
    """Rows of estimates: for every name ("base", "ti_db", "palp") a picture per training step."""

    sentence: str
    seed: int
    rows: Mapping[str, Mapping[int, Path]]


def write_strip(folder: Path, sentence: str, seed: int, rows: Mapping[str, Mapping[int, Tensor]], **about: Any) -> Path:
    """Writes one PNG per row and step and `strip.json`, which names them; returns the latter's path."""
    named: dict[str, dict[str, str]] = {}
    for name, images in rows.items():
        named[name] = {}
        for step, image in sorted(images.items()):
            file = f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}-step{step:06d}.png"
            write_bytes(
                folder / file, png_bytes(image, {"sentence": sentence, "seed": seed, "row": name, "step": step})
            )
            named[name][str(step)] = file
    text = {"schema": SCHEMA, "sentence": sentence, "seed": seed, "rows": named, "about": about}
    return write_text(folder / "strip.json", json.dumps(text, indent=1) + "\n")


def read_strip(path: Path) -> Strip:
    """Reads strip.json. Raises UserError where it is not one."""
    fields = parse(read_text(path), str(path))
    if fields.text("schema") != SCHEMA:
        fields.fail("schema", f"is '{fields.values['schema']}', this version reads {SCHEMA}")
    rows = fields.child("rows")
    read = {
        name: {int(step): path.parent / rows.child(name).text(step) for step in rows.child(name).values}
        for name in rows.values
    }
    return Strip(fields.text("sentence"), fields.whole("seed"), read)

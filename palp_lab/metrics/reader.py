"""The element reader: a small residual network that names every factor of a picture of the tiny world."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import ResNetConfig, ResNetModel

from palp_lab.types import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from palp_lab.types import Images

SIDE = 96
"""Pictures are enlarged to this side: the network's stem divides by four, and sunglasses are six pixels wide. Ours."""

ROWS = 256
"""Pictures read at once; does not change a reading (ours)."""


class ElementReader(nn.Module):
    """Reads ``labels`` (the words of every factor) off pictures, with a stock ResNetModel of transformers."""

    def __init__(self, labels: Mapping[str, Sequence[str]], config: ResNetConfig) -> None:
        super().__init__()
        self.labels = {name: list(words) for name, words in labels.items()}
        self.backbone = ResNetModel(config)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(config.hidden_sizes[-1], len(w)) for name, w in self.labels.items()}
        )
        self.fingerprint = ""

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """Logits per factor of pictures in [-1, 1]."""
        pixels = functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=False)
        seen = self.backbone(pixels).pooler_output.flatten(1)
        return {name: head(seen) for name, head in self.heads.items()}

    @torch.no_grad()
    def probabilities(self, images: Images) -> dict[str, Float[Tensor, "n k"]]:
        """Per factor the probability of each of its words, for uint8 pictures."""
        if images.dtype != torch.uint8:
            raise TypeError(f"pictures are uint8, not {images.dtype}")
        device = next(self.parameters()).device
        parts = [self(part.to(device).float() / 127.5 - 1.0) for part in images.split(ROWS)]
        return {name: torch.cat([part[name].softmax(-1).cpu() for part in parts]) for name in self.labels}

    def read(self, images: Images) -> dict[str, Int[Tensor, " n"]]:
        """Per factor the index of the likeliest word of ``labels``."""
        return {name: values.argmax(-1) for name, values in self.probabilities(images).items()}

    def words(self, images: Images) -> dict[str, list[str]]:
        """Per factor the likeliest word."""
        return {name: [self.labels[name][i] for i in found.tolist()] for name, found in self.read(images).items()}

    def save(self, folder: Path) -> None:
        """Writes ``config.json`` and ``model.safetensors``."""
        folder.mkdir(parents=True, exist_ok=True)
        described = {"reader": 1, "labels": self.labels, "backbone": self.backbone.config.to_diff_dict()}
        (folder / "config.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / "model.safetensors")

    @classmethod
    def from_folder(cls, path: str | Path, device: str | torch.device = "cpu") -> ElementReader:
        """Opens a folder written by :meth:`save`, frozen. Raises UserError where it is none."""
        folder = Path(path)
        try:
            described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            reader = cls(described["labels"], ResNetConfig(**described["backbone"]))
            weights = folder / "model.safetensors"
            reader.load_state_dict(
                {k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()}
            )
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename}: missing; give the folder of an element reader, as weights/reader"
            ) from None
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{folder}: not an element reader of this version ({reason})") from error
        reader.fingerprint = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
        return reader.to(device).eval().requires_grad_(False)

"""True architectures without weights: the published configurations, in true size on the meta device or narrow with
random weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from palp_lab.dataset.concept import Concept
from palp_lab.model.text import ClipText
from palp_lab.model.unet import UNetModel

NARROW = {
    "sd14": {"unet": {"attention_head_dim": 4}, "heads": 4},
    "sd21": {"unet": {"attention_head_dim": [1, 2, 4, 4]}, "heads": 4},
}
"""Heads of the narrow copies: a number for 1.x, one per level for 2.x, as the true ones have them."""
WIDTH = 64
"""Width of the narrow text encoders."""


@dataclass(frozen=True)
class Skeleton:
    """A diffusers folder with every configuration and the tokenizer, and no weights."""

    name: str
    folder: Path

    def config(self, part: str) -> dict[str, Any]:
        file = "scheduler_config.json" if part == "scheduler" else "config.json"
        return json.loads((self.folder / part / file).read_text(encoding="utf-8"))

    def tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        return CLIPTokenizer.from_pretrained(self.folder / "tokenizer")

    def parts(self, unet: dict[str, Any], vae: dict[str, Any], text: dict[str, Any]) -> tuple[Any, Any, Any]:
        """UNet, autoencoder and text encoder of the stock classes, with some keys of their configurations changed."""
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        return (
            UNet2DConditionModel.from_config({**self.config("unet"), **unet}),
            AutoencoderKL.from_config({**self.config("vae"), **vae}),
            CLIPTextModel(CLIPTextConfig(**{**self.config("text_encoder"), "torch_dtype": None, **text})),
        )

    def true_size(self, device: str = "meta") -> UNetModel:
        """The model as published: parameters without values on the meta device, else random ones."""
        with torch.device(device):
            unet, vae, text = self.parts({}, {}, {})
        return UNetModel(unet, vae, ClipText(self.tokenizer(), text), self.config("scheduler"), path_name=self.name)

    def narrow(self, to: Path, seed: int = 0) -> Path:
        """Writes a narrow copy with random weights as an ordinary pipeline folder: every block, level and switch of the
        published configuration, fewer channels, two text layers, pictures of 128 px."""
        from diffusers import DDIMScheduler, StableDiffusionPipeline

        how = NARROW[self.name]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet, vae, text = self.parts(
                {
                    "block_out_channels": (32, 64, 128, 128), "cross_attention_dim": WIDTH, "sample_size": 16,
                    **how["unet"],
                },
                {"block_out_channels": (32, 32, 64, 64), "sample_size": 128},
                {
                    "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 2,
                    "num_attention_heads": how["heads"], "projection_dim": WIDTH,
                },
            )  # fmt: skip
            # Random attention hardly looks at the text; larger weights make a prompt matter.
            with torch.no_grad():
                for name, weight in unet.named_parameters():
                    if "attn2" in name and name.endswith("weight"):
                        weight.mul_(3)
        pipeline = StableDiffusionPipeline(
            vae=vae, text_encoder=text, tokenizer=self.tokenizer(), unet=unet,
            scheduler=DDIMScheduler.from_config(self.config("scheduler")),
            safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False,
        )  # fmt: skip
        pipeline.save_pretrained(to)
        return to


def concept(placeholder: str = "<v>", side: int = 64) -> Concept:
    """Four smooth random photos of a "cat"."""
    coarse = torch.rand((4, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    photos = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear").mul(255).to(torch.uint8)
    return Concept("mia", "cat", placeholder, photos, digest="0")

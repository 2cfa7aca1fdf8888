"""The tiny flow UNet: the smaller generator's network turned to straight paths, taught by the larger generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from diffusers import UNet2DConditionModel, UniPCMultistepScheduler
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModel

from palp_lab.tinyworld.pretrain_flow import AbstractFlowMatching, Teacher, trained_generator
from palp_lab.tinyworld.pretrain_generator import SIZES, STEPS, build_unet
from palp_lab.tinyworld.pretrain_stages import detail_table, load_shipped, shipped_segments, token_table
from palp_lab.tinyworld.pretrain_text import build_text_encoder, build_tokenizer, encode_captions
from palp_lab.types import UserError

STAGE = "flow_unet"

SIZE = SIZES["generator_small"]


def build_flow_unet_scheduler() -> UniPCMultistepScheduler:
    """Straight paths without shift, by a sampler that the stock StableDiffusionPipeline can hold: that of Stable
    Diffusion 3 has no scale for the first noise."""
    return UniPCMultistepScheduler(
        num_train_timesteps=STEPS,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=1.0,
        steps_offset=1,
    )


class FlowUNet(AbstractFlowMatching):
    """Trains a UNet over a frozen text encoder. Arguments as of :class:`AbstractFlowMatching`. Final."""

    def __init__(
        self, unet: UNet2DConditionModel, text: CLIPTextModel, latents: np.ndarray, captions: np.ndarray,
        empty: np.ndarray, batch: int = 16, bf16: bool = True, teacher: Teacher | None = None,
        details: np.ndarray | None = None, focus: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(latents, captions, empty, batch, bf16, teacher, details, focus)
        self.unet, self.text = unet, text.requires_grad_(False).eval()
        self.unet.set_attn_processor(AttnProcessor())

    def velocity(self, mixed: Tensor, share: Tensor, ids: Tensor) -> Tensor:
        return self.unet(mixed, share * STEPS, self.text(ids).last_hidden_state).sample


def build_flow_unet_task(
    folder: Path, batch: int, bf16: bool, shipped: Path | None = None, focus: float = 0.0, taught: bool = False
) -> FlowUNet:
    """The flow UNet over the cached latents. With `shipped`, the folder of all shipped weights, it starts from
    `tiny_flow_unet` there, else from `tiny_small`, with the text encoder of `tiny`; without, from random weights and
    the text encoder of the stage "generator" in `folder`. With `taught`, that generator is its teacher."""
    path = folder / "latents.npy"
    if not path.exists():
        raise UserError(f"{path}: no latents yet; run palp-lab pretrain stage=latents first")
    tokenizer = build_tokenizer()
    captions = token_table(folder, "generator", tokenizer)
    latents = np.load(path, mmap_mode="r")
    captions = captions[: len(latents)]
    begins = not (folder / STAGE / "checkpoint.pt").exists()
    unet, text, teacher = build_unet(SIZE), build_text_encoder(tokenizer), None
    if taught or begins:
        teaching, text = trained_generator(folder, shipped and shipped / "tiny")
        teacher = Teacher(teaching, text) if taught else None
    earlier: list[dict] = []
    if begins and shipped is not None:
        own = shipped / "tiny_flow_unet"
        earlier = shipped_segments(own)
        load_shipped(own if own.exists() else shipped / "tiny_small", "unet/diffusion_pytorch_model.safetensors", unet)
    details = detail_table(folder, "generator")[: len(latents)] if focus > 0 else None
    empty = encode_captions(tokenizer, [""])[0]
    task = FlowUNet(unet, text, latents, captions, empty, batch, bf16, teacher, details, focus)
    task.earlier = earlier
    return task

"""Where words are in a picture: CLIPSeg of transformers, which makes masks of subjects from their class word."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from palp_lab.metrics.embedders import folder_fingerprint, network_folder, once
from palp_lab.metrics.preprocessing import read_preprocessing
from palp_lab.types import UserError

if TYPE_CHECKING:
    from jaxtyping import Float

    from palp_lab.types import Images


class TextSegmenter:
    """A `CLIPSegForImageSegmentation` with its tokenizer and preprocessing, in a folder or on the hub. Final.

    Source: arXiv 2112.10003 (CLIPSeg); CIDAS/clipseg-rd64-refined is its usual checkpoint.
    `fingerprint` is the hash of the folder's files; `key` names the configuration key in errors.
    """

    def __init__(self, path: str | Path, key: str) -> None:
        try:
            folder = network_folder(path)
        except UserError as error:
            raise UserError(f"{key}={path}: {str(error).removeprefix(f'{path}: ')}") from None
        self.fingerprint = folder_fingerprint(folder)
        self.preprocessing = read_preprocessing(folder)
        self.network, self.tokenizer = once(("segmentation", str(folder), self.fingerprint), lambda: _load(folder, key))

    @torch.no_grad()
    def likelihood(self, images: Images, words: str) -> Float[Tensor, "b h w"]:
        """How likely each pixel shows `words`, between 0 and 1, at the size of the pictures."""
        longest = min(self.tokenizer.model_max_length, self.network.config.text_config.max_position_embeddings)
        read = self.tokenizer([words] * len(images), truncation=True, max_length=longest, return_tensors="pt")
        logits = self.network(
            input_ids=read["input_ids"],
            attention_mask=read["attention_mask"],
            pixel_values=self.preprocessing(images),
        ).logits
        small = logits.reshape(len(images), 1, *logits.shape[-2:]).sigmoid()
        return functional.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def _load(folder: Path, key: str) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, CLIPSegForImageSegmentation
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind != "clipseg":  # it would open all the same, with a random decoder
            raise ValueError(f"config.json says {kind}")
        network = CLIPSegForImageSegmentation.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32)
        return network.eval().requires_grad_(False), AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        reason = shorten(f"{type(error).__name__}: {error}", 160, placeholder=" ...")
        raise UserError(f"{key}={folder}: cannot be opened as a CLIPSeg ({reason})") from error

"""A checkpoint in one file, as the original code bases and ComfyUI write it, read through diffusers' conversion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from palp_lab.model.folder import AbstractParts, Folder, component_class, one_line
from palp_lab.types import UserError

SAFE = ".safetensors"
PICKLED = (".ckpt", ".pt", ".pth", ".bin")
WEIGHTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Parts whose weights a file may hold; everything else comes from the folder of the configuration."""

LAYOUTS = {
    "conditioner.embedders.": "StableDiffusionXLPipeline",
    "cond_stage_model.": "StableDiffusionPipeline",
    "model.diffusion_model.joint_blocks.": "StableDiffusion3Pipeline",
}
"""How the names of a layout begin, and the pipeline it is of."""


def is_single_file(path: str | Path) -> bool:
    """Whether a path means a checkpoint in one file, there or not."""
    return Path(str(path)).suffix.lower() in (SAFE, *PICKLED)


class SingleFile(AbstractParts):
    """A pipeline's weights in one .safetensors file, its configuration and tokenizers in a diffusers folder. Final.

    The folder's own weights are not read and need not be there. Nothing is asked of the network but the configurations
    and tokenizers of a `config` that is a hub id. What the file does not hold is an error, never left random.
    """

    def __init__(self, path: Path, config: Folder, said: str = "") -> None:
        self.path = str(path)
        self.config = config
        self.said = said or config.path
        """The configuration in error lines."""
        self.index = config.index
        self._pipeline: Any = None

    @classmethod
    def find(cls, path: str | Path, config: str | Path | None, revision: str | None = None) -> SingleFile:
        """Looks at the names in the file; `revision` is that of a `config` on the hub. Raises UserError for what cannot
        or must not be opened."""
        file = Path(path).expanduser()
        if file.suffix.lower() in PICKLED:
            raise UserError(
                f"model.path={path}: such files are pickled, and opening one can run whatever its author put in; "
                f"give a {SAFE} file, or convert it where you trust it"
            )
        if not file.is_file():
            raise UserError(f"model.path={path} does not exist; give a {SAFE} file, a diffusers folder or a hub id")
        family = _layout(file)
        if config is None:
            raise UserError(
                f"model.path={path} is one file: add model.config=<the diffusers folder or hub id of a {family} "
                "whose configuration and tokenizers it shares> (weights are not needed there)"
            )
        folder = Folder.find_configuration(config, revision)
        if folder.index.get("_class_name") != family:
            raise UserError(
                f"model.config={config} is a {folder.index.get('_class_name')}, but model.path={path} holds a "
                f"{family}; give the folder of the model it was made from"
            )
        return cls(file, folder, str(config))

    def load(self, part: str, dtype: torch.dtype | None = None) -> Any:
        if part not in WEIGHTS or not (self.index.get(part) or [None])[0]:
            return self.config.load(part)
        if self._pipeline is None:
            self._pipeline = self._read(dtype or torch.float32)
        module = getattr(self._pipeline, part)
        lost = [name for name, weight in module.named_parameters() if weight.is_meta]
        if lost:
            raise UserError(
                f"model.path={self.path}: the file has no weights for {part}.{lost[0]} ({len(lost)} such); "
                "give a whole checkpoint"
            )
        return nn.Module.to(module, dtype or torch.float32)  # diffusers' own `to` warns of what does not apply

    def _read(self, dtype: torch.dtype) -> Any:
        pipeline = component_class(str(self.index["_class_name"]))
        mine = {name for name, value in self.index.items() if isinstance(value, list) and value[0]} - set(WEIGHTS)
        given = {name: self.config.load(name) if name.startswith(("tokenizer", "scheduler")) else None for name in mine}
        try:
            with quiet():
                return pipeline.from_single_file(
                    self.path, config=self.config.path, torch_dtype=dtype, local_files_only=True, **given
                )
        except Exception as error:
            raise UserError(
                f"model.path={self.path} does not fit model.config={self.said}, or is damaged "
                f"({one_line(error)}); give the folder of the model it was made from"
            ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """A block in which diffusers draws no bar and warns of nothing; errors are raised as ever."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _layout(file: Path) -> str:
    """The pipeline a file's names are of."""
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as opened:
            names = list(opened.keys())
    except Exception as error:
        raise UserError(
            f"model.path={file} is not a readable {SAFE} file ({one_line(error)}); copy it again"
        ) from error
    for beginning, family in LAYOUTS.items():
        if any(name.startswith(beginning) for name in names):
            return family
    what = "a LoRA" if any("lora" in name for name in names) else "no checkpoint whose layout is known"
    raise UserError(f"model.path={file} is {what}: it holds {names[0] if names else 'nothing'}; give a whole model")

"""A checkpoint in one file, as the original code bases and ComfyUI write it, read through diffusers' conversion."""

from __future__ import annotations

import inspect
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

T5 = "text_encoders.t5xxl."
"""How the names of T5's weights begin, which files of Stable Diffusion 3 come with and without."""

MARKS: dict[str, dict[str, Any]] = {
    "v_pred": {"prediction_type": "v_prediction"},
    "ztsnr": {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
}
"""Empty tensors by which files of fine-tunes say what no weight shows, and the scheduler's words for it; ComfyUI goes
by the same two names. Steps begin where there is no signal left (arXiv 2305.08891)."""


def is_single_file(path: str | Path) -> bool:
    """Whether a path means a checkpoint in one file, there or not."""
    return Path(str(path)).suffix.lower() in (SAFE, *PICKLED)


def marks(path: str | Path) -> dict[str, Any]:
    """What the marks of a file say of its scheduler; nothing where it has none."""
    names = _names(Path(path).expanduser())
    return {key: value for mark, said in MARKS.items() if mark in names for key, value in said.items()}


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
        self._dtype = torch.float32
        self._left_out: set[str] = set()

    def leave_out(self, *parts: str) -> None:
        self._left_out |= set(parts)

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
        if part == "scheduler":
            return self._scheduler()
        if part not in WEIGHTS or not (self.index.get(part) or [None])[0]:
            return self.config.load(part)
        if self._pipeline is None:
            self._dtype = dtype or torch.float32
            self._pipeline = self._read(self._dtype)
        module = getattr(self._pipeline, part)
        if part == "text_encoder_3":
            module.tie_weights()  # files hold T5's table of words once
        lost = [name for name, weight in module.named_parameters() if weight.is_meta]
        if lost:
            raise UserError(
                f"model.path={self.path}: the file has no weights for {part}.{lost[0]} ({len(lost)} such); "
                "give a whole checkpoint"
            )
        if (dtype or torch.float32) == self._dtype:
            return module  # as it was read: T5 keeps some layers in float32
        return nn.Module.to(module, dtype or torch.float32)  # diffusers' own `to` warns of what does not apply

    def _scheduler(self) -> Any:
        scheduler, told = self.config.load("scheduler"), marks(self.path)
        if not told:
            return scheduler
        kind = type(scheduler)
        if not told.keys() <= inspect.signature(kind).parameters.keys():
            kind = component_class("DDIMScheduler")  # the one of the configuration cannot say it
        untold = set(scheduler.config.get("_use_default_values") or ())
        said = {key: value for key, value in scheduler.config.items() if key not in untold and not key.startswith("_")}
        scheduler = kind.from_config({**said, **told})
        scheduler.register_to_config(_class_name=kind.__name__)  # as a folder's file says it
        return scheduler

    def _read(self, dtype: torch.dtype) -> Any:
        pipeline = component_class(str(self.index["_class_name"]))
        mine = {name for name, value in self.index.items() if isinstance(value, list) and value[0]} - set(WEIGHTS)
        given = {name: self.config.load(name) if name.startswith(("tokenizer", "scheduler")) else None for name in mine}
        given |= dict.fromkeys(self._left_out & self.index.keys())
        if (given.get("text_encoder_3", self.index.get("text_encoder_3")) or [None])[0] and not self._has_t5():
            raise UserError(f"model.path={self.path} holds no T5, the third text encoder: add model.t5=false")
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

    def _has_t5(self) -> bool:
        return any(name.startswith(T5) for name in _names(Path(self.path)))


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


def _names(file: Path) -> list[str]:
    """The names of what a file holds."""
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as opened:
            return list(opened.keys())
    except Exception as error:
        raise UserError(
            f"model.path={file} is not a readable {SAFE} file ({one_line(error)}); copy it again"
        ) from error


def _layout(file: Path) -> str:
    """The pipeline a file's names are of."""
    names = _names(file)
    for beginning, family in LAYOUTS.items():
        if any(name.startswith(beginning) for name in names):
            return family
    what = "a LoRA" if any("lora" in name for name in names) else "no checkpoint whose layout is known"
    raise UserError(f"model.path={file} is {what}: it holds {names[0] if names else 'nothing'}; give a whole model")

"""Samplers of diffusers by the names users say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palp_lab.types import UserError

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "ddpm": "DDPMScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A fresh scheduler on a model's own noise schedule.

    Latents are not pictures: they are not clipped to [-1, 1] unless the model's own configuration says so (old ones
    leave it out, and the default of DDIM would clip). Raises UserError for a name that is not in `SCHEDULERS`.
    """
    if name not in SCHEDULERS:
        raise UserError(f"generate.scheduler={name!r} is not known; give one of {', '.join(SCHEDULERS)}")
    import diffusers

    config = {key: value for key, value in config.items() if not key.startswith("_")}
    scheduler_class = getattr(diffusers, SCHEDULERS[name])
    if name in ("ddim", "ddpm"):
        config.setdefault("clip_sample", False)
    return scheduler_class.from_config(config)

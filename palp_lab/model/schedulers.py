"""Samplers of diffusers by the names users say."""

from __future__ import annotations

import inspect
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
    """A fresh scheduler on a model's own noise schedule: of a word in `SCHEDULERS`, or of the name of any class of
    diffusers, such as PNDMScheduler.

    What the model's files leave open is each sampler's own default, as in diffusers' from_config: DPM-Solver++ on
    Stable Diffusion 1.x spaces its steps as it does elsewhere, not as the PNDM of those files would. But latents are
    not pictures: they are not clipped to [-1, 1] unless the files say so, though it is the default of DDIM. Raises
    UserError for any other name, and for a sampler that cannot read what the model says or lacks its last step.
    """
    untold = set(config.get("_use_default_values") or ())
    config = {key: value for key, value in config.items() if not key.startswith("_") and key not in untold}
    scheduler_class = find_class(SCHEDULERS.get(name, name))
    if scheduler_class is None:
        raise UserError(
            f"generate.scheduler={name!r} is not known; give one of {', '.join(SCHEDULERS)}, or the name of a class of "
            "diffusers, such as PNDMScheduler"
        )
    parameters = inspect.signature(scheduler_class).parameters
    said = str(config.get("prediction_type") or "epsilon")
    if said != "epsilon" and "prediction_type" not in parameters:
        raise UserError(
            f"generate.scheduler={name}: it takes what the model says for noise, and this one says {said}; take one of "
            f"{', '.join(SCHEDULERS)}"
        )
    if config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in parameters:
        raise UserError(
            f"generate.scheduler={name}: its noise schedule does not end in pure noise, as this model's does "
            "(rescale_betas_zero_snr); take ddim, ddpm, dpm++, euler or unipc"
        )
    if "clip_sample" in parameters:
        config.setdefault("clip_sample", False)
    return scheduler_class.from_config(config)


def find_class(name: str) -> Any:
    """A scheduler of diffusers by the name of its class; None where there is none that samples with timesteps."""
    import diffusers

    found = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    return found if getattr(found, "from_config", None) and getattr(found, "step", None) else None

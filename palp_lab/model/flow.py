"""What models on a straight path share: their samplers, and the joint attention of transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from palp_lab.diffusion.path import RectifiedFlow
from palp_lab.types import UserError

FLOW_SCHEDULERS = {
    "ddim": "FlowMatchEulerDiscreteScheduler",
    "euler": "FlowMatchEulerDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""On a straight path the step of DDIM (arXiv 2010.02502, Eq. 12 without noise) is Euler's: with v = eps - x0,
(1 - s') (x - s v) + s' (x + (1 - s) v) = x + (s' - s) v. So both words mean the model's own sampler."""

LOGIT_NORMAL = (0.0, 1.0)
"""Location and scale of the shares of noise met in training; arXiv 2403.03206, section 5.1: rf/lognorm(0.00, 1.00)."""


OWN = FLOW_SCHEDULERS["euler"]

FLOW = "flow_prediction"
"""What the solvers of diffusers call noise - x0 in their `prediction_type`."""


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether a scheduler's configuration is of a straight path."""
    return config.get("_class_name") == OWN or config.get("prediction_type") == FLOW


def flow_config(steps: int = 1000, shift: float = 1.0) -> dict[str, Any]:
    """The configuration of a straight path's scheduler that every stock pipeline can hold. (The Euler of Stable
    Diffusion 3 has no scale for the first noise, which the pipelines of UNets ask for.)"""
    how = {"prediction_type": FLOW, "use_flow_sigmas": True, "flow_shift": shift, "steps_offset": 1}
    return {"_class_name": FLOW_SCHEDULERS["unipc"], "num_train_timesteps": steps, **how}


def make_flow_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A fresh scheduler on a flow model's own clock. Raises UserError for one that a straight path has not."""
    if name not in FLOW_SCHEDULERS:
        raise UserError(
            f"generate.scheduler={name!r} does not sample a flow model: it draws noise at every step, or is not known; "
            f"give one of {', '.join(FLOW_SCHEDULERS)}"
        )
    import diffusers

    kind = getattr(diffusers, FLOW_SCHEDULERS[name])
    if config.get("_class_name", OWN) == FLOW_SCHEDULERS[name]:
        return kind.from_config({key: value for key, value in config.items() if not key.startswith("_")})
    steps, shift = config["num_train_timesteps"], _shift(config)
    if name in ("ddim", "euler"):
        return kind(num_train_timesteps=steps, shift=shift)
    return kind(num_train_timesteps=steps, prediction_type=FLOW, use_flow_sigmas=True, flow_shift=shift)


def flow_path(config: Mapping[str, Any], name: str) -> RectifiedFlow:
    """The path and the training clock of a flow model's scheduler: logit-normal, shifted as in sampling.

    Raises UserError for clocks that are not one curve for all sizes of pictures, or not straight.
    """
    if "_class_name" in config and not is_flow(config):
        raise UserError(f"model.path={name}: the scheduler is a {config['_class_name']}, not {OWN}")
    if config.get("_class_name", OWN) != OWN and not config.get("use_flow_sigmas"):
        raise UserError(
            f"model.path={name}: the scheduler says prediction_type {FLOW} without use_flow_sigmas: its clock is not "
            "that of a straight path; set use_flow_sigmas to true in scheduler_config.json"
        )
    odd = [key for key in ("use_dynamic_shifting", "invert_sigmas", "shift_terminal") if config.get(key)]
    if odd:
        raise UserError(f"model.path={name}: a scheduler with {odd[0]} is not built; set it to its default (SD3's)")
    return RectifiedFlow(int(config["num_train_timesteps"]), _shift(config), LOGIT_NORMAL)


def _shift(config: Mapping[str, Any]) -> float:
    return float(config.get("shift", config.get("flow_shift", 1.0)))


class JointAttention:
    """Attention of picture and text over both; the arithmetic of diffusers' JointAttnProcessor2_0. Final.

    `repeats` > 1 counts the last token of the text so many times: tokens that are all alike stay alike in every block,
    so that one of them, with log(repeats) on its score, is exactly as good. Without a text it is self-attention.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        repeats: int = 1,
    ) -> Tensor | tuple[Tensor, Tensor]:
        patches = hidden_states.shape[1]
        query = [_parted(attn, attn.to_q(hidden_states), attn.norm_q)]
        key = [_parted(attn, attn.to_k(hidden_states), attn.norm_k)]
        value = [_parted(attn, attn.to_v(hidden_states), None)]
        bias = None
        if encoder_hidden_states is not None:
            query.append(_parted(attn, attn.add_q_proj(encoder_hidden_states), attn.norm_added_q))
            key.append(_parted(attn, attn.add_k_proj(encoder_hidden_states), attn.norm_added_k))
            value.append(_parted(attn, attn.add_v_proj(encoder_hidden_states), None))
            if repeats > 1:
                bias = query[0].new_zeros(patches + encoder_hidden_states.shape[1])
                bias[-1] = math.log(repeats)
                bias = bias.expand(1, 1, 1, -1)
        q, k, v = (torch.cat(part, 2) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        seen = attn.to_out[1](attn.to_out[0](mixed[:, :patches]))
        if encoder_hidden_states is None:
            return seen
        told = mixed[:, patches:]
        return seen, told if attn.context_pre_only else attn.to_add_out(told)


def _parted(attn: Any, x: Tensor, norm: Any) -> Tensor:
    """[b n c] as heads [b h n c/h], normalised where the model does."""
    x = x.view(len(x), -1, attn.heads, x.shape[-1] // attn.heads).transpose(1, 2)
    return x if norm is None else norm(x)

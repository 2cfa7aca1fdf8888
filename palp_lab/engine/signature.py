"""What a checkpoint belongs to."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from palp_lab.engine.settings import since_then

if TYPE_CHECKING:
    from palp_lab.engine.personalizer import Personalizer


def plain(part: nn.Module) -> dict[str, Any]:
    """What a part was told in words and numbers (phrase, alpha), and its kind."""
    told = str | int | float | tuple | dict
    kept = {k: v for k, v in vars(part).items() if not k.startswith("_") and isinstance(v, told)}
    return {"kind": type(part).__name__, **kept}


def _digest(pictures: Tensor) -> str:
    return hashlib.sha256(pictures.cpu().numpy().tobytes()).hexdigest()


def signature(module: Personalizer) -> str:
    """Hash of what a checkpoint may not be continued under another value of; the number of steps may grow, unless the
    learning rate falls towards its end."""
    trainer = {
        k: v
        for k, v in vars(module.settings.trainer).items()
        if k in {"batch_size", "accumulate", "gradient_clip", "precision", "ema"}
        or (k == "max_steps" and module.settings.optimizer.falls)
    }
    losses = {
        name: {k: v for k, v in vars(loss).items() if not k.startswith("_")} for name, loss in module.losses.items()
    }
    shapes = {name: list(p.shape) for name, p in module.adapter.parts()}
    what: list[Any] = [
        module.run_seed,
        module.target,
        trainer,
        since_then("optimizer", vars(module.settings.optimizer)),
        vars(module.settings.augment),
        losses,
        shapes,
    ]
    what += [
        module.adapter.concept.digest,
        module.adapter.concept.superclass,
        module.stages.rows,
        plain(module.adapter.tokens),
        plain(module.adapter.edits),
        module.adapter.model.fingerprint,
        {role: feed.own or feed.sentences for role, feed in module.feeds.items()},
        {role: _digest(feed.pictures) for role, feed in module.feeds.items()},
    ]
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()

"""Pictures of the class for prior preservation: the dataset's own, or drawn by the base model before training."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from palp_lab.dataset.concept import AbstractDataset, Concept
from palp_lab.engine.callbacks import write_whole
from palp_lab.engine.feed import Feed
from palp_lab.engine.pictures import draw, in_batches
from palp_lab.engine.settings import Augmentation
from palp_lab.losses.base import AbstractLoss, base_text
from palp_lab.model.base import AbstractModel
from palp_lab.types import Role, UserError

if TYPE_CHECKING:
    from palp_lab.types import Images

logger = logging.getLogger(__name__)

DRAWN_AT_ONCE = 8
"""Class pictures per pass (ours; memory only): fewer where they do not fit."""
GUIDANCE, STEPS, SCHEDULER = 7.5, 50, "ddim"
"""How class pictures are drawn: the defaults of the stock pipeline of Stable Diffusion (ours; DreamBooth, arXiv
2208.12242, section 4.3, samples ancestrally and gives no guidance)."""


FIRST_SEED = 10_000_000
"""Class pictures start from noise that no measured picture starts from: drift is measured against the base's own
pictures of the class, which a method must not have been trained on (ours)."""


def class_pictures(
    model: AbstractModel, concept: Concept, dataset: AbstractDataset, losses: Mapping[str, AbstractLoss], cache: Path
) -> Images:
    """The class's pictures a recipe asks for. Drawn ones are kept in `cache`, by model, prompt and
    number."""
    how = asking(losses)
    if how.pictures == "given":
        given = dataset.class_renders(range(how.count))
        if given is None:
            raise UserError(
                "losses.prior_preservation.pictures=given: this dataset has no pictures of the class; take generated"
            )
        return given
    path = class_file(model, concept, losses, cache)
    if path.is_file():
        try:
            return load_file(path)["pictures"]
        except (OSError, KeyError, SafetensorError):
            logger.warning("%s: damaged; the class pictures are drawn again", path)
    made = draw_class(model, concept.fill(how.prompt, concept.superclass), range(FIRST_SEED, FIRST_SEED + how.count))
    write_whole(path, lambda part: save_file({"pictures": made.contiguous()}, part))
    return made


def class_file(model: AbstractModel, concept: Concept, losses: Mapping[str, AbstractLoss], cache: Path) -> Path:
    """Where the drawn pictures of the class are kept, whether they are there or not."""
    how = asking(losses)
    return cache / f"class_{_key(model, concept.fill(how.prompt, concept.superclass), how.count)}.safetensors"


def _key(model: AbstractModel, prompt: str, count: int) -> str:
    made_by = [
        model.fingerprint,
        model.dtype,
        getattr(model, "autocast", False),
        model.device.type,
        torch.get_num_threads(),
    ]
    libraries = [torch.__version__, metadata.version("diffusers"), metadata.version("transformers")]
    words = map(str, [*made_by, *libraries, prompt, FIRST_SEED, count, GUIDANCE, STEPS, SCHEDULER])
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def draw_class(model: AbstractModel, prompt: str, seeds: Sequence[int]) -> Images:
    """What the untrained model draws for a full prompt, one picture per seed."""

    def make(some: Sequence[int]) -> Images:
        names = [f"{prompt!r}, seed {seed}" for seed in some]
        return draw(model, base_text(model, [prompt] * len(some)), some, SCHEDULER, STEPS, GUIDANCE, names)

    return torch.cat([images for _, images in in_batches(seeds, DRAWN_AT_ONCE, make, model.resolution)])


def prior_stream(
    model: AbstractModel,
    losses: Mapping[str, AbstractLoss],
    pictures: Images,
    batch_size: int,
    seed: int,
    cache: Path | None = None,
) -> Feed:
    """The stream of class pictures, each encoded once and not augmented (one variant)."""
    how = asking(losses)
    plain = Augmentation(variants=1, flip=0.0, crop=1.0)
    return Feed(Role.PRIOR, model, pictures, [how.prompt], how.batch_size or batch_size, plain, seed, cache=cache)


def draws(losses: Mapping[str, AbstractLoss]) -> bool:
    """Whether a recipe has the base model draw class pictures."""
    return any(Role.PRIOR in loss.reads for loss in losses.values()) and asking(losses).pictures != "given"


def asking(losses: Mapping[str, AbstractLoss]) -> Any:
    """The loss that reads the class's stream; its keys say which pictures it wants, and how many a step."""
    return next(loss for loss in losses.values() if Role.PRIOR in loss.reads)

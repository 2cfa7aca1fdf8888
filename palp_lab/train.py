"""Learns one concept with one recipe."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.types import Role, UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from palp_lab.cell import Cell
    from palp_lab.dataset.concept import AbstractDataset
    from palp_lab.edits.base import AbstractEdits
    from palp_lab.engine.settings import RunSettings
    from palp_lab.engine.stages import Stage
    from palp_lab.losses.base import AbstractLoss
    from palp_lab.model.base import AbstractModel
    from palp_lab.tokens.base import AbstractTokens
    from palp_lab.types import Images

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training left behind: `adapters` maps optimizer steps to files, `cost` holds seconds, peak_memory (bytes;
    None where nothing tells), trainable_parameters and adapter_bytes; `log` is the CSV of all logged numbers."""

    folder: Path
    adapters: Mapping[int, Path]
    cost: Mapping[str, float | None]
    log: Path
    report: Sequence[str] = field(default_factory=tuple)

    @property
    def last(self) -> Path:
        """The adapter of the last step."""
        return self.adapters[max(self.adapters)]


def train_adapter(
    model: AbstractModel,
    dataset: AbstractDataset,
    tokens: AbstractTokens,
    edits: AbstractEdits,
    losses: Mapping[str, AbstractLoss],
    *,
    captions: str | Sequence[str | None],
    folder: str | Path,
    settings: RunSettings | None = None,
    seed: int = 0,
    target: str | None = None,
    steps: Sequence[int] = (),
    stages: Sequence[Stage | Mapping[str, Any]] = (),
    prior: Images | None = None,
    about: Mapping[str, Any] | None = None,
    loggers: Sequence[Any] = (),
    cache: Path | None = None,
) -> TrainingOutcome:
    """Trains tokens and edits on a concept; continues from folder/scratch/last.ckpt where a training was interrupted.

    Args:
        model: the base; bitwise what it was afterwards.
        dataset: gives the concept and, if it has them, pictures of the class.
        tokens: how the concept's word becomes conditioning.
        edits: what is trained in the network.
        losses: by name; each draws from its own random streams.
        captions: sentences with one slot, or names of sets; one is drawn per row and step.
        folder: gets adapters/step_000100.safetensors, log.csv, gallery/ and scratch/.
        settings: trainer, optimizer, log, augmentation and gallery; None: their defaults.
        seed: every random stream of the training follows from it.
        target: the prompt an aligned method tunes for, a sentence with one slot.
        steps: optimizer steps after which the adapter is kept; the last one always is.
        stages: which parts train until when; none: all, always.
        prior: pictures of the class for a loss that reads that stream; None: the dataset's, or drawn by the base model.
        about: plain data for the adapters' header, e.g. how to build tokens and edits again.
        loggers: Lightning loggers beside the CSV file.
        cache: a folder several trainings may share: class_pictures and latents (encoded pictures, by content) lie
            below it; None: folder/scratch.

    Raises:
        UserError: for what the user can mend: a missing target, a loss that is not finite, a checkpoint of another run,
            a model in float16.
    """
    from palp_lab.adapter import Adapter
    from palp_lab.dataset.captions import read_captions
    from palp_lab.engine.callbacks import LAST, forget_peak_memory, peak_memory, step_path
    from palp_lab.engine.fit import fit
    from palp_lab.engine.personalizer import Personalizer
    from palp_lab.engine.prior import class_pictures
    from palp_lab.engine.settings import RunSettings
    from palp_lab.engine.stages import Stages
    from palp_lab.training import is_further_rank

    folder, settings = Path(folder), settings or RunSettings()
    if str(model.dtype) == "torch.float16":
        raise UserError(
            "dtype=float16: small gradients vanish in it, and nothing here scales them; train in bfloat16 or float32 "
            "(float16 is for generate, score and export)"
        )
    fresh = forget_peak_memory(model.device)
    _check(losses, target)
    captions = read_captions(captions)
    concept = dataset.concept()
    if concept.captions and target in captions:
        raise UserError("dataset.captions: this recipe calls the photos by the target; set dataset.captions=false")
    own = [min(about.width, about.height) for about in concept.pictures if about.role == "training"]
    if (side := min(*concept.photos.shape[-2:], *own)) < model.resolution:
        logger.warning(
            "photos of %s pixels a side are scaled up, the model takes %s (their own size, or dataset.resolution)",
            side,
            model.resolution,
        )
    cache = cache or folder / LAST.parent
    if not any(Role.PRIOR in loss.reads for loss in losses.values()):
        prior = None
    elif prior is None:
        prior = class_pictures(model, concept, dataset, losses, cache / "class_pictures")
    adapter = Adapter(model, tokens, edits, concept)
    try:
        feeds = _feeds(model, concept, losses, captions, settings, seed, prior, cache / "latents")
        module = Personalizer(adapter, losses, feeds, settings, seed=seed, target=target, stages=Stages(stages))
        kept = sorted({step for step in steps if 0 < step < settings.trainer.max_steps} | {settings.trainer.max_steps})
        report = tuple(module.startup_report())
        numbers = sum(parameter.numel() for _, parameter in adapter.parts())
        told = {
            "superclass": concept.superclass,
            "placeholder": concept.placeholder,
            "concept": concept.name,
            "target": target,
            "fingerprint": model.fingerprint,
            "dtype": str(model.dtype),
            **(about or {}),
        }
        checkpoints = fit(module, folder, kept, told, loggers)
    finally:
        edits.detach()
    adapters = {step: step_path(folder, step) for step in kept}
    cost = {
        "seconds": checkpoints.total_seconds(),
        "peak_memory": peak_memory(model.device) if fresh else None,
        "trainable_parameters": numbers,
        # A further rank may come here when the first has given the folder its final name.
        "adapter_bytes": None if is_further_rank() else adapters[kept[-1]].stat().st_size,
    }
    return TrainingOutcome(folder, adapters, cost, folder / "log.csv", report)


def train(config: DictConfig) -> None:
    """The verb: trains what the configuration describes, or finds it trained, and prints where the adapters are.

    With `targets_file` once per line; a line that fails is named, the others are trained all the same.
    """
    from palp_lab.run import each_cell, open_cells
    from palp_lab.tracked import tracked_cell, train_tracked

    def finish(cell: Cell) -> None:
        with tracked_cell(cell) as tracked:
            stage = train_tracked(cell, tracked)
        print(stage.folder / "adapters" / f"step_{max(cell.steps):06d}.safetensors")

    each_cell(list(open_cells(config)), finish, bool(config.get("fail_fast")))


def _check(losses: Mapping[str, AbstractLoss], target: str | None) -> None:
    from palp_lab.dataset.concept import check_sentence

    if not losses:
        raise UserError("losses: there are none; give at least losses=[reconstruction]")
    for name, loss in losses.items():
        if loss.needs_target and target is None:
            raise UserError(
                f"target: losses.{name} needs a target prompt; add 'target=\"a sketch of {{}} in the snow\"'"
            )
    if target is not None:
        check_sentence(target, "target")


def _feeds(
    model: AbstractModel,
    concept: Any,
    losses: Mapping[str, AbstractLoss],
    captions: Sequence[str],
    settings: RunSettings,
    seed: int,
    prior: Images | None,
    cache: Path,
) -> dict[Role, Any]:
    from palp_lab.engine.feed import Feed
    from palp_lab.engine.prior import prior_stream

    batch, how = settings.trainer.batch_size, settings.augment
    subject = (concept.photos, captions, batch, how, seed, concept.masks, cache, concept.captions)
    feeds = {Role.SUBJECT: Feed(Role.SUBJECT, model, *subject)}
    if prior is not None:
        feeds[Role.PRIOR] = prior_stream(model, losses, prior, batch, seed, cache)
    return feeds

"""Pictures of prompts x seeds from the base model or an adapter."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from palp_lab import __version__
from palp_lab.adapter import Adapter
from palp_lab.context import Canvas, Context, read_context
from palp_lab.dataset.concept import Concept, check_sentence
from palp_lab.engine.pictures import check_finite, denoise, in_batches, start, to_uint8
from palp_lab.model.base import AbstractModel, LatentDistribution, TextCond
from palp_lab.pictures import Picture, Scalar
from palp_lab.targets import check_drawing, say_unknown
from palp_lab.types import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn. The defaults are conf/base.yaml's: DDIM with 25 steps is ours, PALP names neither sampler
    nor steps; guidance 7.5 is the usual value for SD 1.x, where 1 means none; `negative` replaces the empty prompt."""

    scheduler: str = "ddim"
    steps: int = 25
    guidance: float = 7.5
    negative: str = ""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"generate.steps: {self.steps} is no number of sampling steps; give 1 or more")

    def knobs(self) -> dict[str, Scalar]:
        return asdict(self)


@dataclass(frozen=True)
class Prompting:
    """Who draws: how a sentence becomes a prompt, how it is encoded, and in which block the model runs."""

    fill: Callable[[str], str]
    encode: Callable[[Sequence[str]], TextCond]
    block: Callable[[], AbstractContextManager[None]] = nullcontext


def personal(adapter: Adapter) -> Prompting:
    """The personalized model; sentences speak of the concept by its own words."""
    call = adapter.tokens.call(adapter.concept)
    return Prompting(lambda s: adapter.concept.fill(s, call), adapter.encode)


def without_concept(adapter: Adapter) -> Prompting:
    """The personalized model under full prompts that do not name the concept: what drift looks at."""
    return Prompting(str, adapter.tokens.encode)


def base(model: AbstractModel, fill: Callable[[str], str], adapter: Adapter | None = None) -> Prompting:
    """The base model, sentences filled by `fill`: `concept.clean`, `concept.described`, or `str` for full prompts.
    Where an adapter is attached to the model it is switched off meanwhile."""
    return Prompting(
        fill, lambda sentences: model.base_text([fill(s) for s in sentences]), adapter.off if adapter else nullcontext
    )


def clean(model: AbstractModel, concept: Concept, adapter: Adapter | None = None) -> Prompting:
    """The base model with the class word."""
    return base(model, concept.clean, adapter)


def described(model: AbstractModel, concept: Concept, adapter: Adapter | None = None) -> Prompting:
    """The base model with the full true description."""
    return base(model, concept.described, adapter)


def generate(config: DictConfig) -> None:
    """Pictures of the configured prompts x seeds: of the adapters that are named, one after the other, or of the one
    this configuration trains, at every step that is kept; into a photo where one is given. Prints the folders."""
    from palp_lab.cell import Cell, adapter_file
    from palp_lab.pictures import write_pictures
    from palp_lab.result_folder import link_all, result_folder, study_folder
    from palp_lab.study.sweeps import current
    from palp_lab.tracked import send_drawn, tracked, tracked_cell, train_tracked
    from palp_lab.training import as_plain

    check_drawing(config)
    how, context = config.generate, configured_context(config.generate)
    first, paths = int(how.first_seed), [Path(path) for path in config.adapters]
    if first < 0:
        raise UserError(f"generate.first_seed={first}: must be at least 0")
    if paths and (job := current()) and "seed" in job.overrides:
        logger.warning("seed=%s has no effect on a saved adapter; generate.first_seed chooses pictures", config.seed)
    if not paths:
        for key in ("prompts", "first_seed"):
            if how[key]:
                raise UserError(
                    f"generate.{key}={how[key]}: chooses what a saved adapter draws; name it: adapters=[...]. What is "
                    "trained here draws the prompts of prompts=..., from seed 0 on"
                )
        cell = Cell(config)
        if context is None:
            with tracked_cell(cell) as run:
                if run is not None:
                    train_tracked(cell, run)
                for step in cell.steps:
                    folder = result_folder(cell) / "images" / f"step_{step:06d}"
                    link_all(cell.pictures(step).folder, folder)
                    send_drawn(run, sorted(folder.glob("*.png")), step)
                    print(folder)
            return
        paths = [adapter_file(cell.train().folder, step) for step in cell.steps]
    sampling = Sampling(how.scheduler, int(how.steps), float(how.guidance))
    drawn_from = [(path, sentences_for(path, config)) for path in paths]  # whatever is wrong there, before the first
    if config.adapters:  # of what was trained here it is said already
        say_all_unknown(drawn_from, config)
    for path, sentences in drawn_from:
        with saved(path, config) as (adapter, knobs):
            how_made = setting(adapter, made_with(adapter.model, sampling, knobs, context))
            name = f"{path.stem}-{knobs['adapter']}-{how_made}" + (f"-in-{Path(context.name).stem}" if context else "")
            folder = study_folder(config) / "generated" / name
            drawn = generate_pictures(
                adapter.model, personal(adapter), sentences, range(first, first + int(how.seeds)), sampling,
                int(how.batch_size), knobs, context,
            )  # fmt: skip
            written = write_pictures(folder, drawn)
        drawn_here = [name, f"{first}+{how.seeds}" if first else str(how.seeds), *sentences]
        with tracked(config, drawn_here, name, {**as_plain(config), "adapter": str(path)}) as run:
            send_drawn(run, written)
        print(folder)


def sentences_for(path: Path, config: DictConfig) -> list[str]:
    """What a saved adapter is to draw: `generate.prompts`, else the sentences of `prompts`, else the target that its
    header says it was tuned for. Raises UserError where there is no adapter, or nothing to draw."""
    from palp_lab.saved_adapters import about_saved

    return _chosen(config, about_saved(path).get("target"), path)


def say_all_unknown(drawn_from: Sequence[tuple[Path, Sequence[str]]], config: DictConfig) -> None:
    """Says once for every model what it does not know of what saved adapters are to draw on it: the one an adapter's
    header names, or the configured one for a file of another tool."""
    from palp_lab.saved_adapters import about_saved

    asked: dict[str, list[str]] = {}
    for path, sentences in drawn_from:
        about = about_saved(path)
        model = about["model"].get("path", "") if isinstance(about.get("model"), Mapping) else config.model.path
        filled = (said.replace("{}", str(about.get("superclass") or "")) for said in sentences)
        asked.setdefault(str(model), []).extend(filled)
    for model, filled_in in asked.items():
        say_unknown(model, filled_in)


def _chosen(config: DictConfig, target: Any, path: Path) -> list[str]:
    from palp_lab.build import build

    if own := [check_sentence(str(said), f"generate.prompts[{i}]") for i, said in enumerate(config.generate.prompts)]:
        return list(dict.fromkeys(own))
    if found := list(build(config.prompts, "prompts").sentences(config.target)):
        return found
    if target is None:
        raise UserError(
            f"prompts: there are none, and {path} was tuned for no target; give some: "
            "'generate.prompts=[\"a sketch of a {}\"]', or a target, or prompts=standard"
        )
    return [str(target)]


def made_with(
    model: AbstractModel, sampling: Sampling, knobs: dict[str, Scalar] | None = None, context: Context | None = None
) -> dict[str, Scalar]:
    """What all pictures of one call say of how they were made: sampling, version, base model, `knobs`, and the photo
    they are drawn into."""
    about = {**sampling.knobs(), "version": __version__, "model": model.fingerprint, **(knobs or {})}
    return {**about, **context.fit(model.resolution).knobs} if context else about


def setting(adapter: Adapter, about: dict[str, Scalar]) -> str:
    """8 digits for how pictures were made and by which words the subject was called: pictures of two settings in one
    folder could not be scored."""
    said = json.dumps([adapter.tokens.call(adapter.concept), about], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:8]


def configured_context(how: DictConfig) -> Context | None:
    """The photo a configuration draws into, read before anything slow is begun. Raises UserError for a key that would
    say nothing without it."""
    if how.image is not None:
        mask = None if how.mask is None else str(how.mask)
        return read_context(str(how.image), mask, how.noise_strength, bool(how.paste_back))
    for key in ("mask", "noise_strength"):
        if how[key] is not None:
            raise UserError(f"generate.{key}={how[key]}: there is no photo to draw into; add generate.image=<file>")
    return None


@contextmanager
def saved(path: Path, config: DictConfig) -> Iterator[tuple[Adapter, dict[str, Scalar]]]:
    """A saved adapter on the base model its header names, or one of another tool on the configured model, and what its
    pictures say of it: its hash and strength."""
    from palp_lab.saved_adapters import open_saved

    strength = float(config.generate.strength)
    adapter, _, digest = open_saved(path, config)
    try:
        try:
            adapter.edits.set_strength(strength)
        except ValueError as error:
            raise UserError(f"generate.strength={strength}: {error}") from None
        yield adapter, {"strength": strength, "adapter": digest}
    finally:
        adapter.edits.detach()


def generate_pictures(
    model: AbstractModel,
    prompting: Prompting,
    sentences: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling = Sampling(),
    batch_size: int = 8,
    knobs: dict[str, Scalar] | None = None,
    context: Context | None = None,
) -> Iterator[Picture]:
    """Pictures of sentences x seeds, sentence by sentence, in batches across both.

    Every picture starts from its own seed's noise, so neither batch size nor order nor neighbours change it (beyond
    the rounding of another matrix shape). With guidance the empty prompt's rows share the pass: 2 x `batch_size`.
    When memory runs out the batch is halved and the work goes on. `knobs` are added to the pictures' description. With
    a `context` all are drawn into its photo. Raises UserError where one picture alone does not fit, and for one that
    holds values that are not finite.
    """
    about, ground = made_with(model, sampling, knobs, context), None
    if context is not None:
        canvas = context.fit(model.resolution)
        canvas.check(sampling.steps)
        ground = (canvas, canvas.encode(model))
    wanted = [(i, seed) for i in range(len(sentences)) for seed in seeds]
    with torch.no_grad(), prompting.block():
        conds = prompting.encode(sentences) if sentences else None
        given = model.encode_prompts([sampling.negative]) if sampling.negative else model.unconditional(1)
        negative = given if sampling.guidance != 1 else None

    def make(part: Sequence[tuple[int, int]]) -> Tensor:
        assert conds is not None
        rows = torch.tensor([i for i, _ in part], device=conds.tokens.device)
        names = [f"{prompting.fill(sentences[i])!r}, seed {seed}" for i, seed in part]
        with torch.no_grad(), prompting.block():
            return _draw(model, conds[rows], negative, [seed for _, seed in part], sampling, ground, names)

    for part, images in in_batches(wanted, batch_size, make, model.resolution):
        for (i, seed), image in zip(part, images, strict=True):
            yield Picture(prompting.fill(sentences[i]), sentences[i], seed, image, about)


def _draw(
    model: AbstractModel,
    cond: TextCond,
    negative: TextCond | None,
    seeds: Sequence[int],
    sampling: Sampling,
    ground: tuple[Canvas, LatentDistribution] | None,
    names: Sequence[str],
) -> Tensor:
    """One batch of pictures [b 3 h w] (uint8, on the CPU), on white paper or on the `ground` of a photo. `names` are
    for the error line of one that is not finite."""
    count = len(seeds)
    if ground is None:
        starts = [start(seed, model.latent_shape) for seed in seeds]
        noise, source = torch.stack([noise for noise, _ in starts]).to(model.device), None
        generators = [generator for _, generator in starts]
    else:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise, source = ground[0].begin(ground[1], generators)
    negatives = None if negative is None else negative.repeat(count)
    how = (sampling.scheduler, sampling.steps, sampling.guidance)
    pixels = model.decode_image(denoise(model, cond, negatives, noise, generators, *how, source))
    images = to_uint8(check_finite(pixels, names, model.dtype))
    return images if ground is None else ground[0].paste(images)

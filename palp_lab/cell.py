"""One cell of a study: one adapter, its pictures, its numbers, each a stage that is made once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from palp_lab import keys
from palp_lab.build import build
from palp_lab.generate import Prompting, Sampling, base, generate_pictures, personal, without_concept
from palp_lab.metrics.embedders import rest
from palp_lab.parts import open_concept, open_dataset, open_losses, open_model, open_protocol
from palp_lab.pictures import Picture, read_pictures, write_pictures
from palp_lab.prompts import check_lengths
from palp_lab.score import bound_pictures, gather_references, protocol_entry, score_bounds, score_drift, score_records
from palp_lab.strip import strip_images
from palp_lab.study.fields import Fields
from palp_lab.study.result import BOUNDS, Bound, Record
from palp_lab.study.store import Stage, Store
from palp_lab.study.writing import write_text
from palp_lab.targets import check_drawing, say_unknown, target_of
from palp_lab.training import as_plain, checkpoints_of, is_further_rank, read_settings, train_stage
from palp_lab.types import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from palp_lab.adapter import Adapter
    from palp_lab.metrics.protocols import Protocol, References

ESTIMATE_SEED = 0
"""The fixed noise of the one-step estimates."""


class Cell:
    """A composed configuration as stages in the store. Final.

    Cells that train alike share the training, whatever they generate; cells that draw alike share the pictures; all
    cells of a concept share the base model's pictures and the bounds.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.plain = as_plain(config)
        read_settings(self.plain)  # refused before a large model is opened
        self.plain["checkpoints"] = checkpoints_of(config)
        check_drawing(config)
        self.store = Store(Path(config.store))
        self.dataset = open_dataset(config)
        self.concept = open_concept(config)
        self.losses = open_losses(config)
        self.model = open_model(config)
        self.model.scheduler(str(config.generate.scheduler))  # a wrong name is refused here, not after the training
        self.prompts = build(config.prompts, "prompts")
        # The sentences themselves decide what is measured, also where the configuration names a file that holds them.
        self.plain["prompts"] = {**self.plain["prompts"], **asdict(self.prompts)}
        self.target = target_of(config, self.losses, self.dataset)
        self.plain["target"] = config.target
        self.groups: dict[str, str] = self.prompts.sentences(config.target)
        self.drift = self.prompts.drift(self.concept.superclass)
        self.seeds = list(range(config.generate.seeds))
        self.machine = keys.machine(self.model.device.type, config.threads)
        if not self.groups:
            raise UserError("prompts: there are none to measure; give a target, or choose prompts=standard")
        tokens = build(config.tokens, "tokens")
        check_lengths(self.model, tokens, self.concept, self.sentences, [prompt.text for prompt in self.drift])
        say_unknown(str(config.model.path), map(self.concept.clean, self.sentences))

    @cached_property
    def train_inputs(self) -> dict[str, Any]:
        """What decides the adapter, on any machine."""
        return keys.train_inputs(self.plain, self.model.fingerprint, self.concept, self.target)

    @cached_property
    def run(self) -> str:
        """The hash of the cell."""
        drift = [[prompt.text, prompt.class_word] for prompt in self.drift]
        measured = {"groups": self.groups, "drift": drift, "held_out": self.concept.held_out_digest, **self._bounds}
        return keys.cell_hash(self.plain, self.train_inputs, self.protocol_words, measured | self._redrawn)

    @property
    def _bounds(self) -> dict[str, Any]:
        """Which rivals are measured, where they are not all."""
        chosen = list(self.protocol.bounds)
        return {} if chosen == list(BOUNDS) else {"bounds": chosen}

    @property
    def _redrawn(self) -> dict[str, Any]:
        """Which true renders are not those of the dataset's first version."""
        return {"redrawn": found} if (found := self.dataset.redrawn(self.sentences)) else {}

    @property
    def protocol(self) -> Protocol:
        """How pictures are measured."""
        return open_protocol(self.config)

    @cached_property
    def protocol_words(self) -> dict[str, Any]:
        """The protocol as plain data."""
        words = asdict(protocol_entry(self.protocol))
        return {**words, "hashes": {**words["hashes"], **keys.code_of(self.plain["metrics"])}}

    @property
    def sentences(self) -> list[str]:
        """The sentences with a slot that are measured."""
        return list(self.groups)

    @property
    def fills(self) -> tuple[str, ...]:
        """How the base model's rivals fill the slot: the class word, and the full description where there is one."""
        return ("class_word", "described") if self.concept.description else ("class_word",)

    @property
    def steps(self) -> list[int]:
        """The training steps at which an adapter is kept, measured and drawn from."""
        return sorted({*self.plain["checkpoints"], int(self.config.trainer.max_steps)})

    def stage_inputs(self, kind: str, step: int | str = 0) -> dict[str, Any]:
        """The inputs of a stage as the store keys them: `train`; `pictures` and `estimates` of a step, or of the base
        model by how it fills the slot; `scores` of a step; `bounds`."""
        if kind == "train":
            inputs = self.train_inputs
        elif kind == "pictures":
            texts = self.sentences + ([] if step == "described" else [prompt.text for prompt in self.drift])
            inputs = keys.picture_inputs(self.plain, self._who(step), texts, self.seeds)
        elif kind == "estimates":
            inputs = keys.picture_inputs(self.plain, self._who(step), [self.probe], [ESTIMATE_SEED])
            inputs |= {"strip": self.plain["strip"], "version": keys.VERSIONS["estimates"]}
        else:
            drawn = self.fills if kind == "bounds" else (step, "class_word")
            inputs = keys.score_inputs(
                self.protocol_words, [self.stage_key("pictures", one) for one in drawn], self.concept
            )
            read = keys.read_by("train", self.plain)
            inputs |= {"dataset": read["dataset"], "groups": self.groups}
            code = keys.code_of({key: read.get(key) for key in ("dataset", "model")})
            inputs |= {"code": code} if code else {}
            drift = [[prompt.text, prompt.class_word] for prompt in self.drift]
            inputs |= self._redrawn | ({"target": self.target, "drift": drift} if kind == "scores" else self._bounds)
        return {**inputs, "machine": self.machine}

    def stage_key(self, kind: str, step: int | str = 0) -> str:
        """The key of a stage, whether it is finished or not."""
        return keys.digest(self.stage_inputs(kind, step))

    @property
    def probe(self) -> str:
        """The sentence of the one-step estimates: the target, else the dataset's own if measured, else the first."""
        return str(self.config.target or min(self.sentences, key=lambda text: text != self.dataset.default_target()))

    def train(self, loggers: Sequence[Any] = ()) -> Stage:
        """The adapters. Continues an interrupted training from its last checkpoint. A further rank of a distributed
        training does its share and ends here; rank 0 draws and scores."""

        def build_in(folder: Path) -> Mapping[str, Any]:
            rest()
            return train_stage(
                self.config, self.model, self.dataset, self.losses, self.target, self.sentences, folder, loggers
            )

        if is_further_rank():
            self.store.join("train", self.stage_inputs("train"), build_in)
            raise SystemExit(0)
        return self._make("train", 0, build_in, resume=True)

    def pictures(self, step: int | str) -> Stage:
        """Pictures of all sentences and seeds by the adapter of a step, or by the base model ("class_word",
        "described"); those of the prompts without the concept as well, for drift."""

        def build_in(folder: Path) -> Mapping[str, Any]:
            with self._prompting(step) as (prompting, bare, knobs):
                write_pictures(folder, self._draw(prompting, self.sentences, knobs))
                if step != "described":
                    write_pictures(folder, self._draw(bare, [prompt.text for prompt in self.drift], knobs))
            return {"pictures": len(list(folder.glob("*.png")))}

        return self._make("pictures", step, build_in)

    def estimates(self, step: int | str) -> Stage:
        """The one-step estimate from fixed noise under the probe."""

        def build_in(folder: Path) -> Mapping[str, Any]:
            with self._prompting(step) as (prompting, _, knobs):
                how = self.config.strip
                [image] = strip_images(
                    self.model, prompting, self.probe, [ESTIMATE_SEED], float(how.guidance), t=float(how.t)
                )
                words = prompting.fill(self.probe)
            write_pictures(folder, [Picture(words, self.probe, ESTIMATE_SEED, image, {**knobs, "what": "estimate"})])
            return {}

        return self._make("estimates", step, build_in)

    def scores(self, step: int) -> tuple[Record, ...]:
        """The records of a step: every sentence, and drift."""

        def build_in(folder: Path) -> Mapping[str, Any]:
            drawn, twins = self.pictures(step).folder, self.pictures("class_word").folder
            pictures, where = read_pictures(drawn), f"images/step_{step:06d}"
            protocol, references = self.protocol, self._references()
            mine = [picture for text in self.sentences for picture in pictures if picture.sentence == text]
            records = score_records(
                protocol, self.concept, references, mine,
                step=step, groups=self.groups, target=self.target, folder=where,
            )  # fmt: skip
            records += score_drift(
                protocol, self.concept, references, self.drift, pictures, read_pictures(twins),
                step=step, target=self.target, folder=where,
            )  # fmt: skip
            write_text(folder / "records.json", json.dumps([asdict(record) for record in records]))
            return {"records": len(records)}

        stage = self._make("scores", step, build_in)
        return tuple(Record.read(fields) for fields in _rows(stage.folder / "records.json"))

    def bounds(self) -> tuple[Stage, tuple[Bound, ...]]:
        """What trivial rivals reach, with their pictures."""

        def build_in(folder: Path) -> Mapping[str, Any]:
            protocol = self.protocol
            drawn = {fill: read_pictures(self.pictures(fill).folder) for fill in self.fills}
            rivals = bound_pictures(protocol, self.dataset, self.concept, self.sentences, drawn)
            bounds = score_bounds(protocol, self.concept, self._references(), rivals, self.sentences)
            for name, some in rivals.items():
                write_pictures(folder / "bounds" / name, [p for p in some if p.sentence not in self._drift_texts])
            write_text(folder / "bounds.json", json.dumps([asdict(bound) for bound in bounds]))
            return {"bounds": len(bounds)}

        stage = self._make("bounds", 0, build_in)
        return stage, tuple(Bound.read(fields) for fields in _rows(stage.folder / "bounds.json"))

    def _make(self, kind: str, step: int | str, build_in: Callable[..., Any], resume: bool = False) -> Stage:
        torch.set_num_threads(int(self.config.threads))  # as its key says, also in a notebook
        return self.store.make(kind, self.stage_inputs(kind, step), build_in, resume)

    @property
    def _drift_texts(self) -> set[str]:
        return {prompt.text for prompt in self.drift}

    def _references(self) -> References:
        return gather_references(self.dataset, self.concept, self.sentences)

    def _who(self, step: int | str) -> dict[str, Any]:
        if isinstance(step, int):
            return {"training": self.stage_key("train"), "step": step}
        words = self.concept.clean("{}") if step == "class_word" else self.concept.described("a {}")
        how = {key: keys.read_by("train", self.plain).get(key) for key in ("model", "dtype")}
        code = keys.code_of(how["model"])
        return {"model": self.model.fingerprint, "how": how, "slot": words, **({"code": code} if code else {})}

    def _draw(self, prompting: Prompting, texts: Sequence[str], knobs: Mapping[str, Any]) -> Iterator[Picture]:
        how = self.config.generate
        sampling = Sampling(how.scheduler, int(how.steps), float(how.guidance))
        return generate_pictures(self.model, prompting, texts, self.seeds, sampling, int(how.batch_size), dict(knobs))

    @contextmanager
    def _prompting(self, step: int | str) -> Iterator[tuple[Prompting, Prompting, dict[str, Any]]]:
        """Who draws sentences, who draws prompts without the concept, and what is written into the pictures."""
        if isinstance(step, int):
            with self._adapter(step) as adapter:
                knobs = {"strength": float(self.config.generate.strength), "adapter": self._who(step)["training"][:16]}
                yield personal(adapter), without_concept(adapter), knobs
        else:
            fill = self.concept.clean if step == "class_word" else self.concept.described
            yield base(self.model, fill), base(self.model, str), {}

    @contextmanager
    def _adapter(self, step: int) -> Iterator[Adapter]:
        """The trained adapter of a step on the model, with the strength pictures are drawn with."""
        from palp_lab.adapter import Adapter, read_adapter

        path = adapter_file(self.train().folder, step)
        tokens, edits = build(self.config.tokens, "tokens"), build(self.config.edits, "edits")
        adapter = Adapter(self.model, tokens, edits, self.concept)
        try:
            tensors, _ = read_adapter(path)
            adapter.load_tensors(tensors)
            try:
                edits.set_strength(float(self.config.generate.strength))
            except ValueError as error:
                raise UserError(f"generate.strength={self.config.generate.strength}: {error}") from None
            yield adapter
        finally:
            edits.detach()


def adapter_file(folder: Path, step: int) -> Path:
    """Where a training stage keeps the adapter of a step."""
    return folder / "adapters" / f"step_{step:06d}.safetensors"


def _rows(path: Path) -> list[Fields]:
    return [Fields(value, str(path), f"[{i}]") for i, value in enumerate(json.loads(path.read_text(encoding="utf-8")))]

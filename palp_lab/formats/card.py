"""The model card beside an export: what was learned on what, what it scored, and the lines that load it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.formats.custom_diffusion_files import FILE as CUSTOM_DIFFUSION
from palp_lab.formats.writing import EMBEDDING, KOHYA, PIPELINE, loads_words
from palp_lab.model.flow import FLOW
from palp_lab.types import UserError

if TYPE_CHECKING:
    from palp_lab.adapter import Adapter
    from palp_lab.study.result import Result

TAGS = {
    "lora": "lora",
    "kohya": "lora",
    "peft": "lora",
    "embedding": "textual_inversion",
    "custom_diffusion": "custom-diffusion",
}
"""What model hubs call the formats."""
TEXT = ("text_encoder", "tokenizer")
"""How the names of the parts begin that stock pipelines ask for even where they are left out."""
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PLACES = ("own target", "other prompts", "without the concept")
"""Columns of the table of scores."""


@dataclass(frozen=True)
class Subject:
    """What a card speaks of: an adapter, its description (with the `digest` of its bytes where it has been saved), the
    formats that lie beside the card, and whether the network itself is edited."""

    adapter: Adapter
    about: Mapping[str, Any]
    formats: Sequence[str]
    edited: bool

    @property
    def call(self) -> str:
        return self.adapter.tokens.call(self.adapter.concept)

    @property
    def prompt(self) -> str:
        return f"a photo of {self.call}"

    @property
    def model(self) -> Mapping[str, Any]:
        """What the description says of the base model."""
        return dict(self.about.get("model") or {})

    @property
    def base(self) -> str:
        """The base model as diffusers can open it."""
        return _place(str(self.model.get("path", "the base model")))

    @property
    def origin(self) -> str | None:
        """The base model as hubs know it: of weights in one file, the hub id of their configuration where it is one.
        None of what lies on this disk alone."""
        names = (self.base, _place(str(self.model.get("config") or "")) if _in_one_file(self.base) else "")
        return next((name for name in names if HUB_ID.fullmatch(name) and not Path(name).exists()), None)

    @property
    def pipeline(self) -> str:
        return self.adapter.model.pipeline


def card(subject: Subject, result: Result | None = None) -> str:
    """The card in Markdown, with the front matter that model hubs read."""
    parts = [_front_matter(subject), f"# {subject.adapter.concept.name or subject.call}", "Trained with PALP Lab."]
    parts += [_facts(subject, result), *_loading(subject), _scores(subject, result)]
    parts.append(
        "## Licence\n\nNot chosen: fill in `license` above. The base model's terms and the photos' hold as well."
    )
    return "\n\n".join(parts) + "\n"


def quoted(text: str) -> str:
    """Text in double quotes, as Python and YAML both read it."""
    return json.dumps(text, ensure_ascii=False)


def _front_matter(subject: Subject) -> str:
    tags = list(dict.fromkeys(["text-to-image", *(TAGS[name] for name in subject.formats if name in TAGS), "palp-lab"]))
    return "\n".join(
        [
            "---",
            f"base_model: {quoted(subject.origin)}" if subject.origin else "base_model:  # its hub id, if it has one",
            "library_name: diffusers",
            f"instance_prompt: {quoted(subject.prompt)}",
            f"tags: [{', '.join(tags)}]",
            "license:  # yours to choose before you publish",
            "---",
        ]
    )


def _facts(subject: Subject, result: Result | None) -> str:
    adapter, about, model = subject.adapter, subject.about, subject.model
    facts = {
        "base model": model.get("path", "not known"),
        "its configuration": model.get("config") if _in_one_file(subject.base) else None,
        "its revision": model.get("revision"),
        "its UNet says": model.get("prediction"),
        "class word": adapter.concept.superclass or "not given",
        "called": f"`{subject.call}`",
        "recipe": (about.get("labels") or {}).get("method") or (result.axes.get("method") if result else None),
        "imported from": about.get("imported"),
        "adapter": about.get("digest"),
    }
    facts |= {name: about.get(name) for name in ("target", "step")}
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)


def _loading(subject: Subject) -> list[str]:
    """One section of code for each way to load: each ends in the same picture."""
    sections: list[tuple[str, list[str] | None]] = []
    embedding = _embedding_lines(subject) if "embedding" in subject.formats else []
    if "lora" in subject.formats:
        sections.append(("", ['pipe.load_lora_weights(".")', *embedding]))
    if "kohya" in subject.formats:
        note = f"`{KOHYA}` is for ComfyUI (`models/loras`) and A1111 (`models/Lora`); diffusers reads it too:"
        sections.append((note, [f'pipe.load_lora_weights("{KOHYA}")', *embedding]))
    if "peft" in subject.formats:
        lines = [*embedding, "from peft import PeftModel"]  # words first: a model of peft takes none
        for part in (subject.adapter.model.denoiser_part, *subject.adapter.edits.text_lora()):
            lines.append(f'pipe.{part} = PeftModel.from_pretrained(pipe.{part}, "peft/{part}")')
        sections.append(("With peft:", lines))
    if "custom_diffusion" in subject.formats:
        note = "Custom Diffusion's weights; without `_pipeline` diffusers 0.42 reads the file and changes nothing:"
        line = f'pipe.unet.load_attn_procs(".", weight_name="{CUSTOM_DIFFUSION}", _pipeline=pipe)'
        sections.append((note, [line, *embedding]))
    if embedding and not sections and (not subject.edited or list(subject.formats) == ["embedding"]):
        sections.append(("", embedding))
    if "pipeline" in subject.formats:
        words = " and the learned word" if loads_words(subject.adapter) else ""
        sections.append(
            (f"The merged pipeline holds the edit{words}:" if subject.edited else "A whole pipeline:", None)
        )
    written = ["## Load"] if sections else []
    for note, code in sections:
        written += [note] if note else []
        written.append(_code(subject, code))
    if "embedding" in subject.formats and not loads_words(subject.adapter):
        kind = "one vector per cross-attention site (P+)"
        if subject.adapter.concept.placeholder in subject.adapter.tokens.words():
            kind = "the word's vectors for every text encoder"
        written.append(
            f"`{EMBEDDING}` holds {kind}; diffusers has no loader for such files, `palp-lab generate` reads them."
        )
    if subject.edited and list(subject.formats) == ["embedding"]:
        written.append(f"`{EMBEDDING}` is the word alone: the network was edited as well, export that too.")
    return written


def _embedding_lines(subject: Subject) -> list[str]:
    if not loads_words(subject.adapter):
        return []
    if len(subject.adapter.model.pieces("a")) == 1:
        return [f'pipe.load_textual_inversion("{EMBEDDING}")']
    word = subject.adapter.concept.placeholder
    lines = ["from safetensors.torch import load_file", f'words = load_file("{EMBEDDING}")']
    for key, end in (("clip_l", ""), ("clip_g", "_2")):
        own = f"text_encoder=pipe.text_encoder{end}, tokenizer=pipe.tokenizer{end}"
        lines.append(f'pipe.load_textual_inversion(words["{key}"], token={quoted(word)}, {own})')
    lines.append("# Or the new word, whose id is the highest, would be taken for the end of the prompt:")
    lines.append("pipe.text_encoder_2.text_model.eos_token_id = pipe.tokenizer_2.eos_token_id")
    return lines


def _code(subject: Subject, lines: Sequence[str] | None) -> str:
    opened = _opened(subject, merged=lines is None)
    code = [f"from diffusers import {subject.pipeline}", f"pipe = {subject.pipeline}.{opened}"]
    code += [] if lines is None else [*_predicting(subject), *lines]
    code.append(f'pipe({quoted(subject.prompt)}).images[0].save("out.png")')
    return "\n".join(["```python", *code, "```"])


def _opened(subject: Subject, merged: bool) -> str:
    """The call that opens the merged pipeline, or the base model: its folder or hub id, or its one file with the
    configuration. A text encoder that the model was opened without is left out there as well."""
    model, single = subject.model, _in_one_file(subject.base) and not merged
    config = model.get("config")
    options = {"config": config and _place(str(config))} if single else {"variant": model.get("variant")}
    options |= {"revision": model.get("revision")}
    said = [f"{key}={quoted(str(value))}" for key, value in options.items() if value and not merged]
    parts = subject.adapter.model.pipeline_parts()
    said += [f"{part}=None" for part, own in parts.items() if own is None and part.startswith(TEXT)]
    way = "from_single_file" if single else "from_pretrained"
    return f"{way}({', '.join([quoted(PIPELINE if merged else subject.base), *said])})"


def _predicting(subject: Subject) -> list[str]:
    """What the pipeline is told of the UNet's output where diffusers cannot read it off the model's files: the user
    said it, or marks in its one file do."""
    from palp_lab.model.single_file import marks

    told, config, said = subject.model.get("prediction"), subject.adapter.model.scheduler_config, {}
    if _in_one_file(subject.base):
        with suppress(UserError):  # a file that has gone since says nothing
            said = marks(subject.base)
    if told != FLOW:
        said |= {"prediction_type": told} if told else {}
        if not said:
            return []
        words = ", ".join(f"{key}={quoted(value) if isinstance(value, str) else value}" for key, value in said.items())
        kind = config["_class_name"]
        return [
            f"from diffusers import {kind}",
            f"pipe.scheduler = {kind}.from_config(pipe.scheduler.config, {words})",
        ]
    name, said = config["_class_name"], {key: value for key, value in config.items() if not key.startswith("_")}
    return [
        f"from diffusers import {name}",
        f"pipe.scheduler = {name}({', '.join(f'{key}={value!r}' for key, value in said.items())})",
    ]


def _place(path: str) -> str:
    """A path that means the same wherever the card lies: the folder of a shipped model, whose name means nothing to
    others, and whole paths of what is on this disk; a hub id as it is."""
    from palp_lab.model.folder import resolve

    found = resolve(path)
    return str(Path(found).absolute()) if path and Path(found).exists() else found


def _in_one_file(path: str) -> bool:
    from palp_lab.model.single_file import is_single_file

    return is_single_file(path)


def _scores(subject: Subject, result: Result | None) -> str:
    if result is None or result.protocol is None:
        return "## Scores\n\nNot measured: `palp-lab run` scores an adapter and leaves result.json beside it."
    step = subject.about.get("step") or max((record.step for record in result.records), default=0)
    rows: dict[str, dict[str, list[float]]] = {}
    for record in result.records:
        if record.step != step:
            continue
        column = PLACES[0 if record.own_target else 1 if "{}" in record.prompt else 2]
        for name, measured in record.metrics.items():
            if measured.value is not None:
                rows.setdefault(name, {}).setdefault(column, []).append(measured.value)
    columns = [place for place in PLACES if any(place in row for row in rows.values())]
    if not columns:
        return f"## Scores\n\nNot measured at step {step}."
    lines = [f"| metric | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, row in rows.items():
        cells = [f"{sum(row[c]) / len(row[c]):.3f} (n = {len(row[c])})" if c in row else "" for c in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    words = (
        f"Protocol `{result.protocol.name}`, version {result.protocol.version}; means over n prompts at step {step}."
    )
    return "\n".join(["## Scores", "", words, "", *lines])


def find_result(path: Path) -> Path | None:
    """The result.json of the cell an adapter file lies in, if any."""
    places = [folder / "result.json" for folder in (path, path.parent, path.parent.parent)]
    return next((place for place in places if place.is_file()), None)

"""The model card beside an export: what was learned on what, what it scored, and the lines that load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.formats.custom_diffusion_files import FILE as CUSTOM_DIFFUSION
from palp_lab.formats.writing import EMBEDDING, KOHYA

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
PLACES = ("own target", "other prompts", "without the concept")
"""Columns of the table of scores."""


@dataclass(frozen=True)
class Subject:
    """What a card speaks of: an adapter, its description, and the formats that lie beside the card."""

    adapter: Adapter
    about: Mapping[str, Any]
    formats: Sequence[str]

    @property
    def call(self) -> str:
        return self.adapter.tokens.call(self.adapter.concept)

    @property
    def prompt(self) -> str:
        return f"a photo of {self.call}"

    @property
    def base(self) -> str:
        """The base model as diffusers can open it: a shipped model's name means nothing to it."""
        from palp_lab.model.folder import resolve

        return resolve(str(dict(self.about.get("model") or {}).get("path", "the base model")))

    @property
    def pipeline(self) -> str:
        return self.adapter.model.pipeline

    @property
    def words(self) -> list[str]:
        """Learned words that loaders of embeddings take: not those by cross-attention site."""
        return [word for word in self.adapter.tokens.words() if word == self.adapter.concept.placeholder]


def card(subject: Subject, result: Result | None = None) -> str:
    """The card in Markdown, with the front matter that model hubs read."""
    parts = [_front_matter(subject), f"# {subject.adapter.concept.name or subject.call}", "Trained with PALP Lab."]
    parts += [_facts(subject, result), *_loading(subject), _scores(subject, result)]
    parts.append(
        "## Licence\n\nNot chosen: fill in `license` above. The base model's terms and the photos' hold as well."
    )
    return "\n\n".join(parts) + "\n"


def _front_matter(subject: Subject) -> str:
    tags = list(dict.fromkeys(["text-to-image", *(TAGS[name] for name in subject.formats if name in TAGS), "palp-lab"]))
    return "\n".join(
        [
            "---",
            f'base_model: "{subject.base}"',
            "library_name: diffusers",
            f'instance_prompt: "{subject.prompt}"',
            f"tags: [{', '.join(tags)}]",
            "license:  # yours to choose before you publish",
            "---",
        ]
    )


def _facts(subject: Subject, result: Result | None) -> str:
    adapter, about = subject.adapter, subject.about
    model = dict(about.get("model") or {})
    facts = {
        "base model": model.get("path", "not known"),
        "class word": adapter.concept.superclass or "not given",
        "called": f"`{subject.call}`",
        "recipe": (about.get("labels") or {}).get("method") or (result.axes.get("method") if result else None),
        "imported from": about.get("imported"),
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
        lines = ["from peft import PeftModel", 'pipe.unet = PeftModel.from_pretrained(pipe.unet, "peft/unet")']
        sections.append(("With peft:", [*lines, *embedding]))
    if "custom_diffusion" in subject.formats:
        note = "Custom Diffusion's weights; without `_pipeline` diffusers 0.42 reads the file and changes nothing:"
        line = f'pipe.unet.load_attn_procs(".", weight_name="{CUSTOM_DIFFUSION}", _pipeline=pipe)'
        sections.append((note, [line, *embedding]))
    if "pipeline" in subject.formats:
        sections.append(("The merged pipeline holds everything, learned words included:", None))
    if not sections and embedding:
        sections.append(("", embedding))
    written = ["## Load"] if sections else []
    for note, code in sections:
        written += [note] if note else []
        written.append(_code(subject, code))
    if "embedding" in subject.formats and not subject.words:
        written.append(
            f"`{EMBEDDING}` holds one vector per cross-attention site (P+); diffusers has no loader for such files, "
            "kohya's XTI script reads those of Stable Diffusion 1.x and 2.x, `palp-lab generate` all."
        )
    return written


def _embedding_lines(subject: Subject) -> list[str]:
    if not subject.words:
        return []
    if len(subject.adapter.model.pieces("a")) == 1:
        return [f'pipe.load_textual_inversion("{EMBEDDING}")']
    word = subject.words[0]
    lines = ["from safetensors.torch import load_file", f'words = load_file("{EMBEDDING}")']
    for key, end in (("clip_l", ""), ("clip_g", "_2")):
        own = f"text_encoder=pipe.text_encoder{end}, tokenizer=pipe.tokenizer{end}"
        lines.append(f'pipe.load_textual_inversion(words["{key}"], token="{word}", {own})')
    return lines


def _code(subject: Subject, lines: Sequence[str] | None) -> str:
    source = "pipeline" if lines is None else subject.base
    code = [f"from diffusers import {subject.pipeline}"]
    code.append(f'pipe = {subject.pipeline}.from_pretrained("{source}")')
    code += [*(lines or ()), f'pipe("{subject.prompt}").images[0].save("out.png")']
    return "\n".join(["```python", *code, "```"])


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

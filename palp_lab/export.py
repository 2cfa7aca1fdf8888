"""An adapter as files other tools read, with a card that says how.

| format    | what                                             | which recipes             | read by                  |
|-----------|--------------------------------------------------|---------------------------|--------------------------|
| lora      | `pytorch_lora_weights.safetensors`, alpha inside | edits=lora                | `load_lora_weights`      |
| embedding | `learned_embeds.safetensors`, one key per word   | tokens=learned, per_layer | `load_textual_inversion` |
| pipeline  | a diffusers folder with the edit merged in       | any edits but none        | `from_pretrained`        |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from palp_lab.adapter import Adapter

EMBEDDING = "learned_embeds.safetensors"


def export(config: DictConfig) -> None:
    """Writes the adapter `adapter` names, or the one this configuration trains, below `to`; prints the new files.

    Raises:
        UserError: for an adapter that cannot be read, or a format its recipe cannot give.
    """
    from palp_lab.adapter import read_adapter

    path = find_adapter(Path(config.adapter)) if config.adapter else _trained(config)
    tensors, about = read_adapter(path)
    adapter = rebuild(about, device=str(config.device), dtype=str(config.dtype))
    try:
        adapter.load_tensors(tensors)
        written = export_adapter(adapter, Path(config.to), about, config.get("format"))
    finally:
        adapter.detach()
    for name in written:
        print(Path(config.to) / name)


def find_adapter(path: Path) -> Path:
    """The adapter file a path means: itself, or the one in a folder (the last step where several were kept)."""
    if path.is_file():
        return path
    places = (path / "adapter.safetensors", path / "adapter" / "adapter.safetensors")
    steps = sorted(path.glob("adapters/step_*.safetensors")) or sorted(path.glob("step_*.safetensors"))
    for found in (*places, *steps[-1:]):
        if found.is_file():
            return found
    raise UserError(f"adapter={path}: there is no adapter.safetensors; give the folder or the file of a saved adapter")


def _trained(config: DictConfig) -> Path:
    from palp_lab.cell import Cell, adapter_file

    cell = Cell(config)
    return adapter_file(cell.train().folder, cell.steps[-1])


def rebuild(about: Mapping[str, Any], device: str = "cpu", dtype: str = "float32") -> Adapter:
    """The untrained adapter a saved one's description speaks of, attached to a freshly opened base model.

    Raises UserError where the model's weights are not those it was trained on.
    """
    import torch
    from omegaconf import OmegaConf

    from palp_lab.adapter import Adapter
    from palp_lab.build import build
    from palp_lab.dataset.concept import Concept

    if missing := [key for key in ("model", "tokens", "edits", "superclass", "placeholder") if key not in about]:
        raise UserError(f"the adapter's header does not say its {missing[0]}; it was not saved by palp-lab train")
    nodes = OmegaConf.create({key: dict(about[key]) for key in ("model", "tokens", "edits")})
    model = build(nodes.model, "model", device=device, dtype=dtype)
    # The fingerprint is that of the weights as they are held, so that it says nothing in another dtype.
    if about.get("dtype") == str(model.dtype) and about.get("fingerprint") not in (None, model.fingerprint):
        raise UserError(
            f"model.path={dict(about['model']).get('path')}: holds other weights than the adapter was trained on; "
            "give back the old folder, or train again"
        )
    nothing = torch.zeros(0, 3, 1, 1, dtype=torch.uint8)
    concept = Concept(str(about.get("concept", "")), about["superclass"], about["placeholder"], nothing, digest="")
    return Adapter(model, build(nodes.tokens, "tokens"), build(nodes.edits, "edits"), concept)


def export_adapter(
    adapter: Adapter, folder: Path, about: Mapping[str, Any] | None = None, format: str | None = None
) -> list[str]:
    """Writes one format, or all that say something about this recipe (a merged pipeline only where there is no LoRA
    file), and a card. The edits are detached from the model afterwards. Returns names below `folder`.

    Raises:
        UserError: for a format the recipe cannot give; names those it can.
    """
    writers = _writers(adapter)
    if not writers:
        raise UserError("export: this recipe learns nothing that could be written (tokens without vectors, edits=none)")
    if format is not None and format not in writers:
        raise UserError(f"format={format}: this recipe gives {', '.join(writers)}")
    chosen = [format] if format else [name for name in writers if name != "pipeline" or "lora" not in writers]
    folder.mkdir(parents=True, exist_ok=True)
    written = [writers[name](folder) for name in chosen]
    (folder / "README.md").write_text(card(adapter, about or {}, chosen))
    adapter.detach()
    return [*written, "README.md"]


def _writers(adapter: Adapter) -> dict[str, Callable[[Path], str]]:
    """What this recipe can be written as."""
    writers: dict[str, Callable[[Path], str]] = {}
    if adapter.edits.lora() is not None:
        writers["lora"] = lambda folder: _write_lora(adapter, folder)
    if adapter.tokens.words():
        writers["embedding"] = lambda folder: _write_embedding(adapter, folder)
    if adapter.edits.merged():
        writers["pipeline"] = lambda folder: _write_pipeline(adapter, folder)
    return writers


def _write_lora(adapter: Adapter, folder: Path) -> str:
    from palp_lab.model.pipeline import save_lora

    found = adapter.edits.lora()
    assert found is not None
    return save_lora(folder, *found).name


def _write_embedding(adapter: Adapter, folder: Path) -> str:
    from safetensors.torch import save_file

    words = {name: vectors.cpu().float().contiguous() for name, vectors in adapter.tokens.words().items()}
    save_file(words, folder / EMBEDDING, {"format": "pt"})
    return EMBEDDING


def _write_pipeline(adapter: Adapter, folder: Path) -> str:
    from palp_lab.model.pipeline import stock_pipeline

    merged = {name: weight.clone() for name, weight in adapter.edits.merged().items()}
    adapter.detach()
    stock_pipeline(adapter.model, merged).save_pretrained(folder / "pipeline")  # type: ignore[arg-type]
    return "pipeline"


def card(adapter: Adapter, about: Mapping[str, Any], formats: list[str]) -> str:
    """A short model card in Markdown: what was learned on what, and the lines that load it."""
    words = adapter.tokens.words()
    call = adapter.tokens.call(adapter.concept)
    base = dict(about.get("model") or {}).get("path", "the base model")
    lines = [f'pipe = StableDiffusionPipeline.from_pretrained("{base}")']
    if "pipeline" in formats:
        lines = ['pipe = StableDiffusionPipeline.from_pretrained("pipeline")']
    if "lora" in formats:
        lines.append('pipe.load_lora_weights(".")')
    note = ""
    if "embedding" in formats and adapter.concept.placeholder in words:
        lines.append(f'pipe.load_textual_inversion("{EMBEDDING}")')
    elif "embedding" in formats:
        note = (
            f"\n`{EMBEDDING}` holds one vector per cross-attention site (P+); diffusers has no loader for such files.\n"
        )
    lines.append(f'pipe("a photo of {call}").images[0].save("out.png")')
    facts = {"base model": base, "class word": adapter.concept.superclass, "called": f"`{call}`"}
    facts |= {name: about[name] for name in ("target", "step") if about.get(name) is not None}
    listed = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    code = "\n".join(["from diffusers import StableDiffusionPipeline", *lines])
    return f"# {adapter.concept.name or call}\n\nTrained with PALP Lab.\n\n{listed}\n{note}\n```python\n{code}\n```\n"

"""An adapter as files other tools read, with a card that says how.

| format           | file                                           | which recipes        | read by                  |
|------------------|------------------------------------------------|----------------------|--------------------------|
| lora             | `pytorch_lora_weights.safetensors`             | edits=lora           | `load_lora_weights`      |
| kohya            | `kohya_lora.safetensors`                       | edits=lora           | ComfyUI, A1111, kohya    |
| peft             | the folder `peft/unet`                         | edits=lora           | `PeftModel`              |
| custom_diffusion | `pytorch_custom_diffusion_weights.safetensors` | edits=key_value      | `load_attn_procs`        |
| embedding        | `learned_embeds.safetensors`                   | learned words        | `load_textual_inversion` |
| pipeline         | a diffusers folder, edit and words worked in   | all                  | `from_pretrained`        |
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from palp_lab.adapter import Adapter
    from palp_lab.study.result import Result

CARD = "README.md"


def export(config: DictConfig) -> None:
    """Writes the adapter `adapter` names, or the one this configuration trains, below `to`; prints the new files.

    Raises:
        UserError: for a folder that cannot be written to, before anything is trained; an adapter that cannot be read;
            or a format its recipe cannot give.
    """
    from palp_lab.build import build_dtype
    from palp_lab.formats.card import find_result
    from palp_lab.saved_adapters import open_saved
    from palp_lab.study.result import load_result
    from palp_lab.tracked import send_files, tracked
    from palp_lab.training import as_plain

    dtype, folder = build_dtype(str(config.save_dtype)), Path(config.to)
    _make(folder)
    path, scored = (Path(config.adapter), find_result(Path(config.adapter))) if config.adapter else _trained(config)
    adapter, about, digest = open_saved(path, config)
    about["digest"] = digest
    try:
        result = load_result(scored) if scored else None
        written = export_adapter(adapter, folder, about, config.get("format"), dtype, result)
    finally:
        adapter.detach()
    for name in written:
        print(folder / name)
    with tracked(config, [digest, *written], f"export of {path.name}", as_plain(config)) as run:
        send_files(run, [folder / name for name in written])


def _trained(config: DictConfig) -> tuple[Path, Path | None]:
    from palp_lab.cell import Cell, adapter_file
    from palp_lab.result_folder import RESULT, result_folder

    cell = Cell(config)
    scored = result_folder(cell) / RESULT
    return adapter_file(cell.train().folder, cell.steps[-1]), scored if scored.is_file() else None


def export_adapter(
    adapter: Adapter,
    folder: Path,
    about: Mapping[str, Any] | None = None,
    format: str | Sequence[str] | None = None,
    dtype: Any = None,
    result: Result | None = None,
) -> list[str]:
    """Writes formats and a card. The edits are detached from the model afterwards.

    Args:
        adapter: attached to its model.
        folder: where to.
        about: the adapter's description; with its `digest` the card also tells of what the folder holds of it already.
        format: one, several, `all`, or None: a LoRA or Custom Diffusion's weights and the embedding, a merged pipeline
            where the edit has no smaller file.
        dtype: torch's, of the tensors in small files; None: float32. Embeddings always are float32.
        result: what the adapter scored, for the card.

    Returns:
        Names below `folder`.

    Raises:
        UserError: for a format the recipe cannot give, naming those it can; for a folder that cannot be written to.
    """
    import torch

    from palp_lab.formats.card import Subject, card
    from palp_lab.formats.writing import Learned
    from palp_lab.study.writing import write_text

    learned = Learned(adapter, dtype or torch.float32)
    chosen = _chosen(learned.formats, learned.usual_formats, format)
    _make(folder)
    about = about or {}
    earlier = learned.there(folder) if _same(folder / CARD, about.get("digest")) else []
    formats = [name for name in learned.formats if name in {*chosen, *earlier}]
    text = card(Subject(adapter, about, formats, learned.edited), result)
    written = [learned.write(name, folder) for name in chosen]
    write_text(folder / CARD, text)
    adapter.detach()
    return [*written, CARD]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"to={folder}: cannot be written to ({error.strerror}); give another folder") from None


def _same(path: Path, digest: str | None) -> bool:
    """Whether a card speaks of the adapter with this digest."""
    return bool(digest) and path.is_file() and f"- adapter: {digest}\n" in path.read_text(encoding="utf-8")


def _chosen(known: Sequence[str], usual: Sequence[str], format: str | Sequence[str] | None) -> list[str]:
    """The formats that are written, a merged pipeline last: it takes the edit out of the model."""
    if not known:
        raise UserError("export: this recipe learns nothing that could be written (tokens without vectors, edits=none)")
    wanted = list(usual) if format is None else [format] if isinstance(format, str) else list(format)
    if wanted == ["all"]:
        return list(known)
    if strange := [name for name in wanted if name not in known]:
        raise UserError(f"format={strange[0]}: this recipe gives {', '.join(known)}; or all of them with format=all")
    return sorted(wanted, key=list(known).index)

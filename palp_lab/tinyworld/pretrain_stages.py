"""Where pretraining keeps its files, and what each stage builds from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPTokenizer

from palp_lab.layouts import without_text_model
from palp_lab.tinyworld import pretrain_generator as generator
from palp_lab.tinyworld.factors import WORLD_VERSION
from palp_lab.tinyworld.pretrain_autoencoder import (
    CHANNELS,
    Reconstruction,
    build_autoencoder,
    normalise_latents,
    start_linear,
)
from palp_lab.tinyworld.pretrain_loop import load_averaged
from palp_lab.tinyworld.pretrain_text import build_text_encoder, build_tokenizer, encode_captions
from palp_lab.tinyworld.pretrain_wording import Wording
from palp_lab.tinyworld.render import detail_map
from palp_lab.tinyworld.sets import RenderSet, render_set, scene_of
from palp_lab.types import UserError

SETS: dict[str, tuple[int, int, str, str]] = {
    "generator": (80_000, 1, "pretrain", "scenes"),
    "scorers": (150_000, 2, "pretrain", "scenes"),
    "identity": (24_000, 3, "pretrain", "identity"),
    "heldout": (4_000, 9, "heldout", "scenes"),
    "identity_heldout": (1_600, 8, "heldout", "identity"),
}
"""Pictures, seed, split and kind of every rendered set; generator and scorers never share a render seed. Ours."""

PARTIAL_LATENTS = "latents.part.npy"


def sets(folder: Path, workers: int = 1, share: float = 1.0) -> None:
    """Renders every set that is not there yet; ``share`` scales their sizes."""
    for name, (count, seed, split, kind) in SETS.items():
        count = max(16, round(count * share / 16) * 16)
        before = _mark(folder, name)
        found = render_set(folder / "sets" / name, count, seed, split, workers, kind)
        if name == "generator" and _mark(folder, name) != before:
            for old in ("latents.npy", PARTIAL_LATENTS):
                (folder / old).unlink(missing_ok=True)  # of the pictures before
        print(f"sets: {name}, {len(found)} pictures", flush=True)


def _mark(folder: Path, name: str) -> int:
    """Tells one rendering of a set from the next; 0 where there is none."""
    mark = folder / "sets" / name / "meta.json"
    return mark.stat().st_mtime_ns if mark.exists() else 0


def open_set(folder: Path, name: str) -> RenderSet:
    """A rendered set of this version of the world, or one line that says what to run first."""
    path = folder / "sets" / name
    if not (path / "meta.json").exists():
        raise UserError(f"{path}: not rendered yet; run palp-lab pretrain stage=sets first")
    if (drawn := (found := RenderSet(path)).meta["version"]) != WORLD_VERSION:
        raise UserError(
            f"{path}: drawn by version {drawn} of the world, which is at version {WORLD_VERSION} now; run palp-lab "
            "pretrain stage=sets again"
        )
    return found


def build_autoencoder_task(folder: Path, batch: int, decoder_only: bool = False) -> Reconstruction:
    """Reconstruction of the generator's set, from the linear start."""
    images = open_set(folder, "generator").images
    model = build_autoencoder()
    start_linear(model, np.asarray(images[:1000]))
    return Reconstruction(model, images, batch, decoder_only)


def finish_autoencoder(folder: Path) -> AutoencoderKL:
    """The averaged autoencoder with latents of mean zero, saved as the folder every later stage reads."""
    task = build_autoencoder_task(folder, 1, False)
    load_averaged(task, folder / "autoencoder")
    target = folder / "autoencoder" / "model"
    if (target / "config.json").exists():
        # The code is frozen once latents are cached: only the decoder may have moved since.
        frozen = AutoencoderKL.from_pretrained(target)
        frozen.decoder.load_state_dict(task.model.decoder.state_dict())
        model = frozen
    else:
        model = task.model
        normalise_latents(model, np.asarray(open_set(folder, "generator").images[:2048]))
    model.save_pretrained(target)
    return model


def create_latents(folder: Path) -> None:
    """Makes the file that :func:`latents` fills."""
    shape = (len(open_set(folder, "generator")), CHANNELS, 16, 16)
    np.lib.format.open_memmap(folder / PARTIAL_LATENTS, "w+", np.float16, shape).flush()


def latents(folder: Path, part: int = 0, parts: int = 1) -> None:
    """Caches the latents of the generator's set: part ``part`` of ``parts``, float16 in one memory-mapped file."""
    images = open_set(folder, "generator").images
    model = AutoencoderKL.from_pretrained(folder / "autoencoder" / "model").eval()
    path, n = folder / PARTIAL_LATENTS, len(images)
    rows = range(n * part // parts, n * (part + 1) // parts)
    for start in range(rows.start, rows.stop, 5000):
        generator.cache_latents(model, images, path, range(start, min(start + 5000, rows.stop)))
        print(f"latents: {start} of {rows.stop}", flush=True)


def finish_latents(folder: Path) -> None:
    """Renames the cache into place: half a cache is never taken for a whole one."""
    (folder / PARTIAL_LATENTS).replace(folder / "latents.npy")


def token_table(folder: Path, name: str, tokenizer: CLIPTokenizer) -> np.ndarray:
    """Token ids of a set's captions, int16 [n variants length], cached beside the set."""
    path = folder / "sets" / name / f"tokens{tokenizer.model_max_length}.npy"
    if not path.exists():
        rendered = open_set(folder, name)
        lines = [rendered.captions(i) for i in range(len(rendered))]
        table = generator.caption_table(lines, lambda texts: encode_captions(tokenizer, texts))
        partial = path.with_suffix(".part.npy")
        np.save(partial, table)
        partial.replace(path)
    return np.load(path, mmap_mode="r")


def detail_table(folder: Path, name: str) -> np.ndarray:
    """Where the small things of a set's pictures are, uint8 [n 16 16] (:func:`detail_map`), cached beside the set."""
    path = folder / "sets" / name / "details.npy"
    if not path.exists():
        meta = open_set(folder, name).meta
        scenes = (scene_of(meta["seed"], i, meta["split"], meta["kind"]) for i in range(meta["count"]))
        partial = path.with_suffix(".part.npy")
        np.save(partial, np.stack([detail_map(scene) for scene in scenes]))
        partial.replace(path)
    return np.load(path, mmap_mode="r")


def build_text_task(folder: Path, batch: int, shipped: Path | None = None) -> Wording:
    """The text encoder over the captions of the generator's set, before it sees a picture.

    With ``shipped``, a pipeline folder, it starts from the text encoder there and stays near to it.
    """
    tokenizer = build_tokenizer()
    captions = token_table(folder, "generator", tokenizer)
    labels = open_set(folder, "generator").labels
    text, known = build_text_encoder(tokenizer), None
    if shipped is not None:
        known = build_text_encoder(tokenizer)
        load_shipped(shipped, "text_encoder/model.safetensors", known)
        text.load_state_dict(known.state_dict())
    return Wording(text, captions, labels, tokenizer, batch, known)


def build_generator_task(
    folder: Path, name: str, batch: int, bf16: bool, rows: int = 0, shipped: Path | None = None, focus: float = 0.0
) -> generator.Denoising:
    """The larger UNet with its text encoder, or the small one over the larger one's frozen text encoder.

    ``rows`` > 0 trains on the first rows of the latents only. ``shipped`` is a pipeline folder to start from. ``focus``
    is that of :class:`~palp_lab.tinyworld.pretrain_generator.Denoising`.
    """
    path = folder / "latents.npy"
    if not path.exists():
        raise UserError(f"{path}: no latents yet; run palp-lab pretrain stage=latents first")
    cached = np.load(path, mmap_mode="r")
    tokenizer = build_tokenizer()
    captions = token_table(folder, "generator", tokenizer)
    text = build_text_encoder(tokenizer)
    unet = generator.build_unet(generator.SIZES[name])
    small = name != "generator"
    earlier: list[dict] = []
    begins = not (folder / name / "checkpoint.pt").exists()
    if shipped is not None and begins:
        earlier = _start_from(shipped, unet, None if small else text)
    if begins and not small and (folder / "text" / "checkpoint.pt").exists():
        wording = build_text_task(folder, 1)
        load_averaged(wording, folder / "text")
        text.load_state_dict(wording.text.state_dict())
    count = rows or len(cached)
    empty = encode_captions(tokenizer, [""])[0]
    if small:
        larger = build_generator_task(folder, "generator", batch, bf16)
        load_averaged(larger, folder / "generator")
        text = larger.text
    details = detail_table(folder, "generator")[:count] if focus > 0 else None
    task = generator.Denoising(
        unet, text, cached[:count], captions[:count], empty, batch, not small, bf16, details, focus
    )
    task.earlier = earlier
    return task


def _start_from(shipped: Path, unet: nn.Module, text: nn.Module | None) -> list[dict]:
    load_shipped(shipped, "unet/diffusion_pytorch_model.safetensors", unet)
    if text is not None:
        load_shipped(shipped, "text_encoder/model.safetensors", text)
    return shipped_segments(shipped)


def shipped_segments(folder: Path) -> list[dict]:
    """The lineage of a shipped model: its segments, none where it has no lineage."""
    lineage = folder / "lineage.json"
    return json.loads(lineage.read_text())["segments"] if lineage.exists() else []


def load_shipped(shipped: Path, name: str, model: nn.Module) -> None:
    """Loads the weights ``name`` of a shipped folder. Raises UserError where they are of another architecture."""
    from safetensors.torch import load_file

    # Both of a text encoder's layouts are one, in the file as in the version of transformers that built the model.
    own = {without_text_model(key): key for key in model.state_dict()}
    found = {without_text_model(key): value.float() for key, value in load_file(shipped / name).items()}
    weights = {own.get(key, key): value for key, value in found.items()}
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in model.state_dict().items()}:
        raise UserError(
            f"{shipped / name}: another architecture than this version trains; use an empty folder and fresh=true"
        )
    model.load_state_dict(weights)

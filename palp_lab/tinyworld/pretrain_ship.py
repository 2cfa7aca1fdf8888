"""Writes the pretrained models as stock folders, each with a model card and its lineage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline
from torch import nn

from palp_lab.layouts import name_customarily
from palp_lab.metrics.reader import SIDE, ElementReader
from palp_lab.tinyworld.factors import WORLD_VERSION
from palp_lab.tinyworld.pretrain_card import card
from palp_lab.tinyworld.pretrain_flow_ship import assemble_flow, assemble_flow_unet, save_flow
from palp_lab.tinyworld.pretrain_loop import load_averaged, load_checkpoint
from palp_lab.tinyworld.pretrain_pipeline import assemble
from palp_lab.tinyworld.pretrain_scorers import build_clip_task, build_identity_task, build_reader_task
from palp_lab.types import UserError

PIPELINES = {"tiny": "generator", "tiny_small": "generator_small"}
"""Shipped pipeline folders and the stages they come from."""

FLOWS = {"tiny_flow": "flow", "tiny_flow_unet": "flow_unet"}
"""Shipped folders of flow models and the stages they come from."""

LIMIT = 60_000_000
"""Most bytes of all shipped files together; no file may exceed two thirds of it. Ours."""


def ship(folder: Path, target: Path, scores: dict[str, Any]) -> None:
    """Writes every trained model of ``folder`` below ``target`` with its card; ``scores`` are evaluation's.

    What ``folder`` has not trained stays in ``target`` as it is, its scores too.
    """
    target.mkdir(parents=True, exist_ok=True)
    scores = {**_json(target / "scores.json"), **scores}
    for name, stage in PIPELINES.items():
        if trained_stage(folder, stage):
            pipeline, about = assemble(folder, stage)
            save_pipeline(pipeline, target / name)
            parts = {"unet": about["segments"], "autoencoder": lineage(folder, "autoencoder")}
            if trained_stage(folder, "text"):
                parts["text encoder's start"] = lineage(folder, "text")
            if stage != "generator":
                parts["text_encoder"] = lineage(folder, "generator")
            _describe(target / name, name, about["segments"], scores, parts, count(pipeline.unet))
    for name, stage in FLOWS.items():
        if trained_stage(folder, stage):
            flow, about = assemble_flow(folder) if stage == "flow" else assemble_flow_unet(folder)
            save_flow(flow, target / name)
            forget_origin(target / name)
            parts = {"autoencoder": lineage(folder, "autoencoder")}
            if stage == "flow_unet":
                parts["started_from_tiny_small"] = _begun_from_small(target)
            own = [flow.transformer, flow.text_encoder_2] if stage == "flow" else [flow.unet]
            _describe(target / name, name, about["segments"], scores, parts, sum(map(count, own)))
    if trained_stage(folder, "clip"):
        matching = build_clip_task(folder, 1, False)
        about = load_averaged(matching, folder / "clip")
        matching.model.save_pretrained(target / "clip")
        matching.tokenizer.save_pretrained(target / "clip")
        preprocessing(target / "clip", 64)
        _describe(target / "clip", "clip", about["segments"], scores, {}, count(matching.model))
    if trained_stage(folder, "identity"):
        recognition = build_identity_task(folder, 4, False)
        about = load_averaged(recognition, folder / "identity")
        recognition.model.save_pretrained(target / "identity")
        preprocessing(target / "identity", SIDE)
        begun = _json(target / "identity" / "lineage.json")
        # One that went on from what is there started from that one's reader, not from this folder's.
        on = begun.get("segments") and begun["segments"][0] == about["segments"][0]
        parts = {"started_from_reader": begun["started_from_reader"] if on else lineage(folder, "reader")}
        _describe(target / "identity", "identity", about["segments"], scores, parts, count(recognition.model))
    if trained_stage(folder, "reader"):
        reading = build_reader_task(folder, 1, False)
        about = load_averaged(reading, folder / "reader")
        reading.reader.save(target / "reader")
        _describe(target / "reader", "reader", about["segments"], scores, {}, count(reading.reader))
        ElementReader.from_folder(target / "reader")
    for path in target.rglob("*"):
        # Some savers write for the owner alone; a package is for everyone.
        path.chmod(0o755 if path.is_dir() else 0o644)
    (target / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    check_size(target)


def _begun_from_small(target: Path) -> list[dict]:
    """The lineage of the `tiny_small` that the flow UNet began from: kept from its first shipping on."""
    kept = _json(target / "tiny_flow_unet" / "lineage.json").get("started_from_tiny_small")
    return kept or _json(target / "tiny_small" / "lineage.json").get("segments", [])


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def trained_stage(folder: Path, stage: str) -> bool:
    """Whether ``stage`` has a checkpoint."""
    return (folder / stage / "checkpoint.pt").exists()


def lineage(folder: Path, stage: str) -> list[dict]:
    """The segments of ``stage``: device, ranks, steps, seed, seconds, samples."""
    state = load_checkpoint(folder / stage)
    return state["segments"] if state else []


def save_pipeline(pipeline: StableDiffusionPipeline, target: Path) -> None:
    """Saves UNet and autoencoder in half precision and the text encoder whole, as transformers keeps a file's type."""
    unet, vae = pipeline.unet, pipeline.vae
    try:
        pipeline.unet, pipeline.vae = unet.half(), vae.half()
        pipeline.save_pretrained(target)
    finally:
        pipeline.unet, pipeline.vae = unet.float(), vae.float()
    name_customarily(target)
    forget_origin(target)


def forget_origin(target: Path) -> None:
    """Takes the folder a part was opened from out of its configuration: it names a place on one machine."""
    for path in target.rglob("config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def preprocessing(target: Path, side: int) -> None:
    """The image processor's configuration: enlarge where the network wants it, then to [-1, 1]."""
    values = {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"height": side, "width": side},
        "resample": 2, "do_center_crop": False, "crop_size": {"height": side, "width": side}, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "do_convert_rgb": True,
    }  # fmt: skip
    (target / "preprocessor_config.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def count(module: nn.Module) -> int:
    """Parameters of ``module``."""
    return sum(parameter.numel() for parameter in module.parameters())


def _describe(target: Path, name: str, segments: list[dict], scores: dict, parts: dict, size: int) -> None:
    lines = {"world": WORLD_VERSION, "segments": segments, **{k: v for k, v in parts.items() if k != "unet"}}
    (target / "lineage.json").write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    (target / "README.md").write_text(card(name, segments, scores, size, parts), encoding="utf-8")


def check_size(target: Path) -> None:
    """Raises UserError where the shipped files outgrow what a package may carry."""
    sizes = {path: path.stat().st_size for path in target.rglob("*") if path.is_file()}
    total, (largest, most) = sum(sizes.values()), max(sizes.items(), key=lambda pair: pair[1])
    if total > LIMIT or most > LIMIT * 2 // 3:
        found = f"{total / 1e6:.0f} MB, {largest.name} {most / 1e6:.0f} MB"
        raise UserError(f"{target}: {found}; at most 60 MB and 40 MB a file may ship")
    print(f"ship: {target}, {total / 1e6:.1f} MB", flush=True)

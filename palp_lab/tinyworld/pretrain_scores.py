"""The evaluate stage: every score that the model cards print, measured on held-out renders and prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import AutoencoderKL

from palp_lab.metrics.reader import ElementReader
from palp_lab.tinyworld import pretrain_evaluate as evaluation
from palp_lab.tinyworld.pretrain_autoencoder import decibel
from palp_lab.tinyworld.pretrain_flow_ship import assemble_flow, assemble_flow_unet
from palp_lab.tinyworld.pretrain_loop import load_averaged
from palp_lab.tinyworld.pretrain_pipeline import assemble
from palp_lab.tinyworld.pretrain_scorers import (
    build_clip_task,
    build_identity_task,
    build_reader_task,
    clip_choice,
    identity_retrieval,
    read_by_style,
    reader_accuracy,
)  # fmt: skip
from palp_lab.tinyworld.pretrain_ship import FLOWS, PIPELINES, trained_stage
from palp_lab.tinyworld.pretrain_stages import open_set


def read_scores(folder: Path) -> dict[str, Any]:
    """What was measured so far; empty before the first evaluation."""
    path = folder / "scores.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def evaluate(folder: Path, prompts: int = 0, clip_rows: int = 1000, reader_rows: int = 4000) -> dict[str, Any]:
    """Measures every model that is trained and writes scores.json and sample sheets into ``folder``.

    ``prompts`` > 0 samples so many evaluation prompts, spread over all of them.
    """
    scores = read_scores(folder)

    def note(name: str, found: dict[str, Any]) -> None:
        scores[name] = found
        (folder / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
        print(f"evaluate: {name} {json.dumps(found)[:400]}", flush=True)

    held = open_set(folder, "heldout")
    model = AutoencoderKL.from_pretrained(folder / "autoencoder" / "model").eval()
    note("autoencoder", {"decibel": round(decibel(model, np.asarray(held.images[:512])), 2), "pictures": 512})
    if trained_stage(folder, "clip"):
        matching = build_clip_task(folder, 1, False)
        load_averaged(matching, folder / "clip")
        rows = range(min(clip_rows, len(held)))
        note("clip", clip_choice(matching, held.images, held.meta["seed"], "heldout", rows))
    if trained_stage(folder, "identity"):
        recognition = build_identity_task(folder, 4, False)
        load_averaged(recognition, folder / "identity")
        people = open_set(folder, "identity_heldout")
        note("identity", identity_retrieval(recognition, people.images, people.identities, people.labels["class_"]))
    if not trained_stage(folder, "reader"):
        return scores
    reading = build_reader_task(folder, 1, False)
    load_averaged(reading, folder / "reader")
    reader = reading.reader.eval()
    rows = slice(0, min(reader_rows, len(held)))
    note("reader", reader_accuracy(reader, held.images[rows], {k: v[rows] for k, v in held.labels.items()}))
    if not prompts:  # it takes a minute, and its card speaks of the whole
        note("reader_by_style", read_by_style(reader))
    note("true_renders", read_true_renders(reader, prompts))
    for name, stage in PIPELINES.items():
        if trained_stage(folder, stage):
            note(name, generator_scores(*assemble(folder, stage), folder / f"{stage}_samples.png", reader, prompts))
    for name, stage in FLOWS.items():
        if trained_stage(folder, stage):
            put_together = assemble_flow if stage == "flow" else assemble_flow_unet
            note(name, generator_scores(*put_together(folder), folder / f"{stage}_samples.png", reader, prompts))
    return scores


def read_true_renders(reader: ElementReader, prompts: int = 0) -> dict[str, Any]:
    """Elements found where every one is there: renders of the evaluation prompts."""
    texts = spread(evaluation.prompts(), prompts)
    found = evaluation.elements_found(reader, evaluation.true_renders(texts), texts)
    return {"pictures": len(texts), "found": found, "goal": evaluation.REAL_GOAL}


def generator_scores(
    pipeline: Any, about: dict[str, Any], sheet: Path, reader: ElementReader, prompts: int = 0
) -> dict[str, Any]:
    """Elements found in samples of every evaluation sentence with every class; draws the sample sheet."""
    texts, shown = (spread(all_of, prompts) for all_of in (evaluation.prompts(), evaluation.sheet_prompts()))
    found = evaluation.elements_found(reader, evaluation.sample(pipeline, texts), texts)
    evaluation.sheet(evaluation.sample(pipeline, shown, seed=1), shown, sheet)
    return {
        "guidance": evaluation.GUIDANCE, "steps": evaluation.STEPS, "pictures": len(texts), "found": found,
        "goals": evaluation.GOALS, "trained_steps": about["step"],
        "samples": sum(segment["samples"] for segment in about["segments"]),
    }  # fmt: skip


def spread(texts: list[str], count: int) -> list[str]:
    """``count`` of ``texts``, evenly spread; all of them when ``count`` is 0 or too large."""
    if count <= 0 or count >= len(texts):
        return texts
    return [texts[i * len(texts) // count] for i in range(count)]

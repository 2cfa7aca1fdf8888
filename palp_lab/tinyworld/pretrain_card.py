"""Model cards of the shipped models."""

from __future__ import annotations

from typing import Any

from palp_lab.tinyworld.factors import WORLD_VERSION

TITLES = {
    "tiny": "tiny: text to image, 64 px",
    "tiny_small": "tiny_small: text to image, 64 px, a smaller UNet",
    "tiny_flow": "tiny_flow: text to image, 64 px, by flow matching",
    "tiny_flow_unet": "tiny_flow_unet: text to image, 64 px, a UNet by flow matching",
    "clip": "clip: tiny CLIP, a scorer",
    "identity": "identity: identity encoder in DINO's role, a scorer",
    "reader": "reader: element reader, a scorer",
}

LIBRARIES = ("transformers", "diffusers")

WHAT = {
    "tiny": (
        "A StableDiffusionPipeline in stock classes: AutoencoderKL (64 px to 16 x 16 x 8), CLIPTextModel, "
        "UNet2DConditionModel with cross-attention at 16, 8 and 4, noise prediction, SD's scaled linear schedule. "
        "UNet and autoencoder are stored in half precision, the text encoder whole.\n\n"
        "```python\nfrom diffusers import DiffusionPipeline\n\npipe = DiffusionPipeline.from_pretrained(path)\n"
        'prompt = "a photo of a cat wearing a red hat at night"\n'
        "pipe(prompt, guidance_scale=5, num_inference_steps=25).images[0]\n```"
    ),
    "tiny_small": "Autoencoder, text encoder and schedule of `tiny`, with a UNet of about a third of its size.",
    "tiny_flow": (
        "A StableDiffusion3Pipeline in stock classes: SD3Transformer2DModel (four blocks of joint attention over text "
        "and 64 patches), two CLIPTextModelWithProjection, no T5, FlowMatchEulerDiscreteScheduler without shift, "
        "`tiny`'s autoencoder. The first text encoder is a frozen copy of `tiny`'s, as it was when this training "
        "began; the second, narrow one was trained here. Everything is stored in half precision.\n\n"
        "```python\nfrom diffusers import StableDiffusion3Pipeline\n\n"
        "pipe = StableDiffusion3Pipeline.from_pretrained(path, text_encoder_3=None, tokenizer_3=None)\n"
        'pipe("a photo of a cat at night", guidance_scale=5, num_inference_steps=25).images[0]\n```'
    ),
    "tiny_flow_unet": (
        "A StableDiffusionPipeline in stock classes whose UNet says noise - x0 on straight paths "
        "(UniPCMultistepScheduler with `use_flow_sigmas`): the UNet of `tiny_small`, turned to them by learning the "
        "velocities that `tiny` answers with; `tiny`'s autoencoder and text encoder. Everything is stored in half "
        "precision.\n\n"
        "```python\nfrom diffusers import DiffusionPipeline\n\npipe = DiffusionPipeline.from_pretrained(path)\n"
        'pipe("a photo of a cat at night", guidance_scale=5, num_inference_steps=25).images[0]\n```'
    ),
    "clip": (
        "A `CLIPModel` with patches of 8 x 8, trained contrastively with captions of the same picture in which one "
        "factor is changed; factor heads helped during training and were dropped. Shares no weight with the generator "
        "and was trained on other render seeds."
    ),
    "identity": (
        "A `ResNetModel` whose `pooler_output` tells individuals apart: supervised contrastive (arXiv 2004.11362) over "
        "identities across styles and places. It started from the reader's backbone; neither has seen the generator or "
        "its pictures."
    ),
    "reader": (
        "A `ResNetModel` with one linear head per factor, opened by `palp_lab.metrics.reader.ElementReader`. "
        "Shares no weight with the generator, was trained on other render seeds."
    ),
}

DATA = {
    "tiny": "80 000 renders of the tiny world (render seed 1), five captions each; 10 % empty prompts",
    "tiny_small": "as tiny",
    "tiny_flow": "as tiny",
    "tiny_flow_unet": "48 000 of the renders of tiny's kind (render seed 1), five captions each; 10 % empty prompts",
    "clip": "150 000 renders (render seed 2), captions and full descriptions drawn anew at every step",
    "identity": "3 000 identities with 8 renders each (render seed 3)",
    "reader": "150 000 renders (render seed 2) with mild blur, noise, shift, gain and mirroring",
}


def card(name: str, segments: list[dict], scores: dict[str, Any], size: int, parts: dict[str, Any]) -> str:
    """The README of a shipped folder: what it is, data, training, scores, limits."""
    library = LIBRARIES[name.startswith("tiny")]
    lines = ["---", "license: cc0-1.0", f"library_name: {library}", "---", f"# {TITLES[name]}", "", WHAT[name], ""]
    lines += ["| | |", "|---|---|", f"| parameters | {size / 1e6:.2f} M |", f"| data | {DATA[name]} |"]
    lines += [f"| training | {training(segments)} |"]
    lines += [f"| {part.replace('_', ' ')} | {training(rows)} |" for part, rows in parts.items() if part != "unet"]
    lines += ["| licence | CC0 1.0, see LICENSE-WEIGHTS |", "", "## Scores", "", *table(name, scores), ""]
    lines += ["## Limits", "", LIMITS[name] + _older(segments), ""]
    lines += ["`lineage.json` lists every segment of training.", ""]
    return "\n".join(lines)


LIMITS = {
    "tiny": "Knows the tiny world's words only. Small accessories and two-subject scenes are its weakest points.",
    "tiny_small": "Hardly trained yet; it is here to compare sizes, and to be trained further.",
    "tiny_flow": (
        "Trained for minutes: it is here to show that methods run under flow matching. Styles and places follow "
        "the prompt; patches are painted almost on their own, so that subjects are mosaics, and accessories are "
        "missing."
    ),
    "tiny_flow_unet": (
        "As small as `tiny_small`: it shows methods of UNets, and the alignment term, under flow matching; it ranks no "
        "methods against those on `tiny`."
    ),
    "clip": "Reads the tiny world's language only.",
    "identity": "Tells individuals of the tiny world apart, nothing else.",
    "reader": "Reads the tiny world's factors only; a reading is as good as the picture is sharp.",
}


CHANGED = {2: "other coats, larger far-away and second subjects", 3: "clearer accessories in oil paintings"}
"""What each version of the world draws otherwise than the one before it."""


def _older(segments: list[dict]) -> str:
    """Says where the last training saw an earlier version of the world than this one draws."""
    seen = segments[-1].get("world", 1) if segments else WORLD_VERSION
    changed = [what for version, what in CHANGED.items() if version > seen]
    said = f" Trained last on version {seen} of the world, which is at version {WORLD_VERSION} now: "
    return said + ", ".join(changed) + "." if changed else ""


def by_style(found: dict[str, dict[str, float | None]]) -> list[str]:
    """What is read of real renders of one subject in full view, a row per style."""
    if not found:
        return []
    heads = [name.rstrip("_") for name in next(iter(found.values()))]
    lines = ["", "Real renders by style: one subject in full view that wears or holds one thing, 200 pictures with"]
    lines += ["each thing; whether it is seen, whatever its colour, then all five in their colour, and the coat.", ""]
    lines += [f"| drawn as | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for style, row in found.items():
        shares = ("–" if share is None else f"{share:.3f}" for share in row.values())
        lines.append(f"| {style} | {' | '.join(shares)} |")
    return lines


def training(segments: list[dict]) -> str:
    """One line about the segments of a lineage."""
    if not segments:
        return "not recorded"
    steps, samples = sum(s["to"] - s["from"] for s in segments), sum(s["samples"] for s in segments)
    minutes = sum(s["seconds"] for s in segments) / 60
    devices = sorted({f"{s['device']}, {s['ranks']} rank{'s' * (s['ranks'] > 1)}" for s in segments})
    seeds = sorted({s["seed"] for s in segments})
    return f"{steps} steps, {samples} samples, {minutes:.0f} min on {' then '.join(devices)}; seed {seeds}"


def table(name: str, scores: dict[str, Any]) -> list[str]:
    """The scores of one model as a table."""
    found = scores.get(name)
    if not found:
        return ["Not measured."]
    lines = []
    if name.startswith("tiny"):
        sampler = {"tiny_flow": "Euler", "tiny_flow_unet": "UniPC"}.get(name, "DDIM")
        lines += [
            f"Guidance {found['guidance']:g}, {found['steps']} steps of {sampler}, {found['pictures']} pictures of "
            "prompts never seen in training; the share of prompted elements the reader finds.",
            "",
            "| element | found | of | goal |",
            "|---|---|---|---|",
        ]
        for kind, row in found["found"].items():
            goal = found["goals"].get(kind)
            verdict = "" if goal is None else f"{goal:.2f}, {'reached' if row['found'] >= goal else 'not reached'}"
            lines.append(f"| {kind} | {row['found']:.3f} | {row['n']} | {verdict} |")
        lines += ["", f"Autoencoder: {scores['autoencoder']['decibel']:.2f} dB on held-out renders."]
        return lines
    if name == "reader":
        lines += ["Held-out renders; an accessory is right when its colour is.", ""]
        lines += ["| factor | right | of |", "|---|---|---|"]
        for factor, row in found.items():
            right = "not measured" if row["all"] is None else f"{row['all']:.3f}"
            lines.append(f"| {factor} | {right} | {row['n']} |")
        lines += by_style(scores.get("reader_by_style", {}))
        real = scores.get("true_renders")
        if real:
            lines += ["", f"True renders of {real['pictures']} prompts never seen in training: what the generators are"]
            lines += [f"read by, where every prompted element is there. Goal {real['goal']:.2f}.", ""]
            lines += ["| element | found | of |", "|---|---|---|"]
            lines += [f"| {kind} | {row['found']:.3f} | {row['n']} |" for kind, row in real["found"].items()]
        return lines
    return ["| | |", "|---|---|", *(f"| {key.replace('_', ' ')} | {value} |" for key, value in found.items())]

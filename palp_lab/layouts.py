"""How the weights of CLIP's text encoder are named in files.

Its layers lie below `text_model.` in the files of Stable Diffusion and in what older versions of transformers (5.0 to
5.5) read; newer ones have the level no more, read both and may write either. Files of ours have it, so that all open
them.
"""

from __future__ import annotations

import json
from pathlib import Path

LEVEL = "text_model."


def with_text_model(path: str) -> str:
    """A layer of a CLIP text encoder with the level `text_model.`, which other tools' files have whatever the version
    of transformers."""
    return path if path.startswith((LEVEL, "text_projection")) else f"{LEVEL}{path}"


def without_text_model(path: str) -> str:
    """The same without it, as transformers names its layers now."""
    return path.removeprefix(LEVEL)


def name_customarily(pipeline: Path) -> None:
    """Gives the CLIP text encoders of a saved pipeline the names that every version of transformers opens. Weights keep
    their bytes; parts of other kinds are left alone."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    for config in sorted(pipeline.glob("text_encoder*/config.json")):
        if json.loads(config.read_text(encoding="utf-8")).get("model_type") != "clip_text_model":
            continue
        for file in sorted(config.parent.glob("*.safetensors")):
            with safe_open(file, "pt") as opened:
                told, names = opened.metadata(), list(opened.keys())
            if any(name != with_text_model(name) for name in names):
                save_file({with_text_model(name): tensor for name, tensor in load_file(file).items()}, file, told)
        for file in config.parent.glob("*.safetensors.index.json"):
            index = json.loads(file.read_text(encoding="utf-8"))
            index["weight_map"] = {with_text_model(name): shard for name, shard in index["weight_map"].items()}
            file.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")

"""Captioned pictures: what a protocol measures its network's modality gap on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.metrics.gap import Pairs

CAPTIONS = ("metadata.jsonl", "captions.json")
WORLD_SEED = 930_000
"""Scenes of the tiny world from here on, which neither pretraining nor any reference or bound shows (ours)."""


def folder_pairs(folder: str | None = None, count: int = 5000) -> Pairs | None:
    """Up to `count` captioned pictures of a folder, by name; None where no folder is given. 5,000, as the paper takes
    from MSCOCO (arXiv 2203.02053, section 4.2).

    Captions are in `metadata.jsonl`, a line {"file_name": ..., "text": ...} each as in `imagefolder`, or in
    `captions.json` {file name: caption}. Raises UserError for a folder without them, or a picture that is not there.
    """
    from palp_lab.metrics.gap import Pairs

    if folder is None:
        return None
    place = Path(folder).expanduser()
    captions = read_captions(place)
    names = sorted(captions)[:count]
    if lost := [name for name in names if not (place / name).is_file()]:
        raise UserError(f"{place / lost[0]}: has a caption but is not there ({len(lost)} such)")
    files = [place / name for name in names]
    return Pairs(PicturesOnDisk(files), [captions[name] for name in names], content=hash_of(files))


class PicturesOnDisk(Sequence["Tensor"]):
    """Pictures [3 h w] (uint8) of files, read when they are asked for: thousands would fill a machine. Final."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        from palp_lab.pictures import read_image

        return read_image(self.files[index])


def hash_of(files: Sequence[Path]) -> str:
    """Hash of the content of files, in their order."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def tiny_pairs(count: int = 256) -> Pairs:
    """`count` scenes of the tiny world with a caption each."""
    import torch

    from palp_lab.metrics.gap import Pairs
    from palp_lab.tinyworld import captions_of, render, sample_scene

    scenes = [sample_scene(WORLD_SEED + i, "heldout") for i in range(count)]
    pictures = [torch.from_numpy(render(scene)).permute(2, 0, 1).contiguous() for scene in scenes]
    return Pairs(pictures, [captions_of(scene, 1)[0] for scene in scenes])


def read_captions(folder: Path) -> dict[str, str]:
    """Captions of a folder by file name. Raises UserError where there are none or a line is not one."""
    lines, table = (folder / name for name in CAPTIONS)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of captioned pictures")
    path = lines if lines.is_file() else table
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path == table:
            found = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
            found = {row["file_name"]: row["text"] for row in rows}
    except FileNotFoundError:
        raise UserError(f"{folder}: has neither {' nor '.join(CAPTIONS)}, which say what its pictures show") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path}: each line must be {{"file_name": ..., "text": ...}} ({error!r})') from None
    if not isinstance(found, dict) or not found or not all(isinstance(words, str) for words in found.values()):
        raise UserError(f"{path}: must say {{file name: caption}}, for one picture at least")
    return found

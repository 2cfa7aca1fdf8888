"""The networks that look at pictures and prompts: each loaded once, frozen, float32, known by the hash of its files."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from palp_lab.metrics.preprocessing import Preprocessing, read_preprocessing
from palp_lab.types import UserError

if TYPE_CHECKING:
    from jaxtyping import Float

    from palp_lab.types import Images

SHIPPED = Path(__file__).resolve().parents[1] / "tinyworld" / "weights"
logger = logging.getLogger(__name__)

ROWS = 64
"""Pictures per pass; does not change a feature (ours)."""

_LOADED: dict[tuple[str, ...], Any] = {}


class AbstractEmbedder(ABC):
    """A frozen network with a picture space. `fingerprint` is the hash of its weights and configuration; `remembered`
    says whether a protocol keeps its features (they are small)."""

    fingerprint: str
    preprocessing: Preprocessing
    remembered: bool = True

    @abstractmethod
    def images(self, images: Images) -> Float[Tensor, "b d"]:
        """Features of pictures, on the CPU, not normalised."""

    def texts(self, prompts: Sequence[str]) -> Float[Tensor, "b d"]:
        """Features of prompts in the same space. Raises UserError for a network that has no text side."""
        raise UserError(f"{type(self).__name__} does not read text: give text metrics the space of a ClipEmbedder")


class ClipEmbedder(AbstractEmbedder):
    """A CLIP of transformers (`CLIPModel` with its tokenizer; a folder or a hub id), with the preprocessing of its
    folder unless another is given.

    Prompts longer than the text encoder are cut with the end-of-text token kept, since CLIP reads the sentence there,
    and a warning says so.
    Source: arXiv 2103.00020; in metrics arXiv 2104.08718 and 2208.12242.
    """

    version = 1

    def __init__(
        self, path: str | Path, device: str | torch.device = "cpu", preprocessing: Preprocessing | None = None
    ) -> None:
        folder = network_folder(path)
        self.device = pick_device(device)
        self.preprocessing = preprocessing or read_preprocessing(folder)
        self.fingerprint = folder_fingerprint(folder)
        self.model, self.tokenizer = once(("clip", str(folder), self.fingerprint), lambda: _load_clip(folder))
        self._texts: dict[str, Tensor] = {}

    @torch.no_grad()
    def images(self, images: Images) -> Float[Tensor, "b d"]:
        parts, model = images.split(ROWS), self.model.to(self.device)
        seen = [model.get_image_features(pixel_values=self.preprocessing(p).to(self.device)) for p in parts]
        return torch.cat([features(s).cpu() for s in seen])

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Float[Tensor, "b d"]:
        if new := sorted(set(prompts) - self._texts.keys()):
            config = self.model.config.text_config
            longest = min(int(self.tokenizer.model_max_length), int(config.max_position_embeddings))
            for text in new:
                if len(self.tokenizer(text)["input_ids"]) > longest:
                    logger.warning("text alignment: the scorer reads the first %d tokens of %r only", longest, text)
            read = self.tokenizer(new, truncation=True, max_length=longest, padding=True, return_tensors="pt")
            read = {key: read[key].to(self.device) for key in ("input_ids", "attention_mask")}
            self._texts.update(
                zip(new, features(self.model.to(self.device).get_text_features(**read)).cpu(), strict=True)
            )
        return torch.stack([self._texts[p] for p in prompts])


class VisionEmbedder(AbstractEmbedder):
    """A vision network of transformers: DINO (ViTModel) and DINOv2 (Dinov2Model) by their class token, convolutional
    ones by their pooled map.

    The pooler transformers puts on a ViTModel is no part of DINO, so it is neither loaded nor used; the class token
    after the last layer norm is what DreamBooth's DINO-I compares (arXiv 2208.12242, section 4.2).
    """

    version = 1

    def __init__(
        self, path: str | Path, device: str | torch.device = "cpu", preprocessing: Preprocessing | None = None
    ) -> None:
        folder = network_folder(path)
        self.device = pick_device(device)
        self.preprocessing = preprocessing or read_preprocessing(folder)
        self.fingerprint = folder_fingerprint(folder)
        self.model = once(("vision", str(folder), self.fingerprint), lambda: _load_vision(folder))

    @torch.no_grad()
    def images(self, images: Images) -> Float[Tensor, "b d"]:
        return torch.cat([self._features(part).cpu() for part in images.split(ROWS)])

    def _features(self, images: Images) -> Tensor:
        output = self.model.to(self.device)(pixel_values=self.preprocessing(images).to(self.device))
        last = output.last_hidden_state
        return last[:, 0] if last.ndim == 3 else output.pooler_output.flatten(1)


def features(output: Any) -> Tensor:
    """The projected feature of transformers 5 (an output object) and 4 (a tensor)."""
    return output if isinstance(output, Tensor) else output.pooler_output


def once(key: tuple[str, ...], load: Callable[[], Any]) -> Any:
    """What was loaded under this key before, or else now: no network is loaded twice in a process."""
    if key not in _LOADED:
        _LOADED[key] = load()
    return _LOADED[key]


NETWORKS = ("clip", "vision", "lpips")
"""Keys under which networks are loaded that are large enough to be in the way of a training."""


def rest() -> None:
    """Takes the loaded networks off their accelerator, so that a training has it for itself; the next use brings back
    the one that is used."""
    for key, loaded in _LOADED.items():
        if key[0] in NETWORKS:
            loaded[0].to("cpu") if isinstance(loaded, tuple) else loaded.to("cpu")


def pick_device(name: str | torch.device) -> torch.device:
    """The device a word stands for; auto takes CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def network_folder(path: str | Path) -> Path:
    """The folder of a network: a bare word names a shipped one (`clip`), anything else is a folder or a hub id.
    Raises UserError where it is not there."""
    here = Path(path).expanduser()
    if (folder := _local(here)) is not None:
        return folder
    if here.exists() or len(here.parts) != 2 or here.is_absolute():
        raise UserError(f"{path}: no network there (no config.json); give the folder a transformers model was saved to")
    return _download(str(path))


def network_is_here(path: str | Path) -> bool:
    """Whether a network could be opened without a hub; nothing is downloaded or opened."""
    from huggingface_hub import try_to_load_from_cache

    if _local(Path(path).expanduser()) is not None:
        return True
    if len(Path(path).parts) != 2:
        return False
    kept = {name: try_to_load_from_cache(str(path), name) for name in ("config.json", *WEIGHTS)}
    return isinstance(kept.pop("config.json"), str) and any(isinstance(file, str) for file in kept.values())


def _local(here: Path) -> Path | None:
    for folder in (SHIPPED / here, here) if len(here.parts) == 1 else (here,):
        if (folder / "config.json").is_file():
            return folder.resolve()
    return None


WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of weights, the safe kind first: many repositories hold the same weights twice."""

OUT_OF_REACH = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ConnectionError"}
"""Errors of the hub's client that say nothing of the network that was asked for."""

_REFUSED: dict[str, str] = {}
"""What was said of a hub out of reach: it is not asked again for every cell of a sweep."""


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.utils import logging as hub

    if name in _REFUSED and not isinstance(try_to_load_from_cache(name, "config.json"), str):
        raise UserError(_REFUSED[name])
    logger.info("%s: no folder here; asking the hub, else its cache on this machine", name)
    before = hub.get_verbosity()
    hub.set_verbosity_error()  # not a line for every attempt: the error below is ours
    try:
        for weights in WEIGHTS:
            folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", weights]))
            if (folder / weights).is_file():
                return folder
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        said = (
            f"{name}: neither a folder nor to be had from the hub ({reason}); where there is a network, "
            f"run 'hf download {name} --local-dir my_folder' and give that folder as path"
        )
        if type(error).__name__ in OUT_OF_REACH:
            _REFUSED[name] = said
        raise UserError(said) from error
    finally:
        hub.set_verbosity(before)
    raise UserError(f"{name}: holds neither model.safetensors nor pytorch_model.bin; give a folder with weights")


def folder_fingerprint(folder: Path) -> str:
    """Hash of all files of a folder that decide what the network says; read once per process and state of the files."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin", ".txt", ".model"))
    state = tuple(f"{p.name}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files)
    return once(("hash", str(folder), *state), lambda: _hash(files))


def _hash(files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            total.update(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def _load_clip(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, CLIPModel

    return _frozen(CLIPModel, folder), _load(AutoTokenizer, folder)


def _load_vision(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModel

    kind = _load(AutoConfig, folder).model_type
    # Without the pooler, whose weights DINO's checkpoint does not have.
    model = _frozen(AutoModel, folder, **({"add_pooling_layer": False} if kind == "vit" else {}))
    if model.main_input_name != "pixel_values":
        raise UserError(f"{folder}: a {kind} is not a vision network alone; for a CLIP take embedders.ClipEmbedder")
    return model


def _frozen(kind: Any, folder: Path, **options: Any) -> Any:
    model, found = _load(kind, folder, dtype=torch.float32, output_loading_info=True, **options)
    if lost := sorted(found["missing_keys"]):
        raise UserError(
            f"{folder}: its weights lack {lost[0]} ({len(lost)} such), which would stay random; "
            f"give the folder of a whole {type(model).__name__}"
        )
    return model.eval().requires_grad_(False)


def _load(kind: Any, folder: Path, **options: Any) -> Any:
    from transformers.utils import logging as theirs

    theirs.disable_progress_bar()
    said = theirs.get_verbosity()
    theirs.set_verbosity_error()  # what is missing is an error of ours; what is left over does not matter
    try:
        return kind.from_pretrained(str(folder), local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be opened as {kind.__name__} ({str(error).splitlines()[0]})") from error
    finally:
        theirs.set_verbosity(said)

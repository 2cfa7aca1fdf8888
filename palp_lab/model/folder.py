"""Diffusers folders: where they are, what is in them, and one line of advice when they cannot be opened."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import nn

from palp_lab.layouts import LEVEL
from palp_lab.types import UserError

logger = logging.getLogger(__name__)

LIBRARIES = ("diffusers", "transformers")
WEIGHTY = ("unet", "transformer", "vae", "text_encoder")
"""How the names of parts that have weights begin."""
CONFIGURATIONS = ("*.json", "*.txt", "*.model")
"""Files of a pipeline that are no weights: configurations and vocabularies, in folders below as well."""
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",))
"""The files any of which a tokenizer is read from, beside its tokenizer_config.json."""
SHIPPED = Path(__file__).resolve().parent.parent / "tinyworld" / "weights"


def resolve(path: str | Path) -> str:
    """The folder of a shipped model's name (`tiny`); any other path or hub id as it is."""
    named = SHIPPED / str(path)
    if os.sep not in str(path) and "/" not in str(path) and named.is_dir():
        return str(named)
    return str(Path(path).expanduser()) if Path(path).expanduser().exists() else str(path)


class AbstractParts(ABC):
    """Where the parts of a pipeline are read from: `path` names it in error lines, `index` is its model_index.json."""

    path: str
    index: Mapping[str, Any]

    @abstractmethod
    def load(self, part: str, dtype: torch.dtype | None = None) -> Any:
        """One component, of the class the index names. Raises UserError where it cannot be read."""

    def leave_out(self, *parts: str) -> None:
        """Says which parts will not be asked for: where reading one reads all, they need not be there."""
        del parts

    def expect(self, *classes: str) -> None:
        """Raises UserError unless the pipeline is one of `classes`."""
        found = self.index.get("_class_name")
        if found not in classes:
            raise UserError(
                f"model.path={self.path}: the folder holds a {found}; this model needs {' or '.join(classes)}"
            )


def component_class(name: str) -> Any:
    """The class of diffusers or transformers a part is of. Raises UserError for any other name."""
    for library in LIBRARIES:
        found = getattr(importlib.import_module(library), name, None)
        if getattr(found, "from_pretrained", None) is not None:
            return found
    raise UserError(f"model.dimensions: neither diffusers nor transformers has a part of class {name}")


@dataclass(frozen=True)
class Folder(AbstractParts):
    """A diffusers pipeline on disk or on the hub, with its table of contents `index`. Final."""

    path: str
    index: Mapping[str, Any]
    revision: str | None = None
    variant: str | None = None

    @classmethod
    def find(
        cls, path: str | Path, revision: str | None = None, variant: str | None = None, key: str = "model.path"
    ) -> Folder:
        """Reads model_index.json. Raises UserError, naming `key`, where there is none."""
        return cls(resolve(path), _read_index(path, revision, key)[1], revision, variant)

    @classmethod
    def find_configuration(cls, path: str | Path, revision: str | None = None, key: str = "model.config") -> Folder:
        """A folder whose weights need not be there. Of a hub id the configurations and tokenizers are fetched where the
        cache lacks some. Raises UserError, naming `key` and the parts, where any is missing."""
        folder, index = _read_index(path, revision, key)
        here, failed = Path(resolve(path)).exists(), None
        if not here and _unconfigured(folder, index):
            try:
                folder = Path(_download_configurations(str(path), revision))
            except Exception as error:
                failed = error
        if lost := _unconfigured(folder, index):
            why = f" ({one_line(failed)})" if failed else ""
            words = ([f"--revision {revision}"] if revision else []) + [f"--include '{one}'" for one in CONFIGURATIONS]
            fetch = "" if here else f"run `hf download {path} {' '.join(words)}` where there is a network, or "
            raise UserError(
                f"{key}={path} is here without the configuration of its {', '.join(lost)}{why}; {fetch}give a folder "
                "that has all of them (weights are not needed)"
            ) from failed
        return cls(str(folder), index)

    def load(self, part: str, dtype: torch.dtype | None = None) -> Any:
        """One component, of the class the index names. Raises UserError where it cannot be read."""
        library, name = (self.index.get(part) or (None, None))[:2]
        if library not in LIBRARIES:
            raise UserError(f"model.path={self.path}: model_index.json names no {part}; give a full diffusers folder")
        module = importlib.import_module(library)
        module.utils.logging.disable_progress_bar()  # a line of our own log says that a model is opened
        loader = getattr(module, str(name))
        more: dict[str, Any] = {}
        if dtype is not None:
            more["torch_dtype" if library == "diffusers" else "dtype"] = dtype
            if self.variant:
                more["variant"] = self.variant
        weighty = part.startswith(WEIGHTY)
        if weighty:
            more["output_loading_info"] = True
        try:
            loaded = loader.from_pretrained(self.path, subfolder=part, revision=self.revision, **more)
        except Exception as error:
            if (advice := self._other_variant(part, str(error))) is not None:
                raise UserError(advice) from error
            raise UserError(_advice(f"model.path={self.path} ({part})", self.path, error)) from error
        if not weighty:
            return loaded
        model, found = loaded
        if lost := sorted(found["missing_keys"]):
            raise UserError(
                f"model.path={self.path} ({part}): its weights lack {lost[0]} ({len(lost)} such), which would stay "
                "random; give a folder with all of them, in names that this version of transformers and diffusers reads"
            )
        return model

    def _other_variant(self, part: str, told: str) -> str | None:
        """What to say where a part's weights are there under the names of another variant, by what is on this disk or
        by what the hub has told; None where they are not."""
        index = Path(self.path) / "model_index.json"
        index = index if index.is_file() else in_cache(self.path, index.name) or index
        names = [file.name for file in _weights(index.parent / part)] if index.is_file() else []
        # model.safetensors, model.fp16.safetensors, model.fp16-00001-of-00002.safetensors
        found = {words[1].partition("-")[0] if len(words := name.split(".")) > 2 else None for name in names}
        if self.variant in found or not (found or (self.variant and "variant" in told)):
            return None
        if not found or None in found:
            return f"model.variant={self.variant}: {self.path} has no such files of its {part}; leave it null"
        there = " or ".join(sorted(map(str, found)))
        return f"model.variant={self.variant or 'null'}: of its {part} {self.path} has the variant {there}; give that"


def lacking(path: str | Path) -> list[str]:
    """The parts of a pipeline whose weights are not on this machine, or model_index.json; empty where a model can be
    opened without a network. Nothing is downloaded, opened or checked beyond the names of files."""
    where = resolve(path)
    index = Path(where) / "model_index.json"
    if not index.is_file():
        if (cached := in_cache(where, index.name)) is None:
            return [index.name]
        index = cached
    parts = {name: value for name, value in json.loads(index.read_text()).items() if isinstance(value, list)}
    weighty = [name for name, (library, _) in parts.items() if library in LIBRARIES and name.startswith(WEIGHTY)]
    return [name for name in weighty if not any(_weights(index.parent / name))]


def in_cache(repository: str, name: str) -> Path | None:
    """A file of a hub id in the cache of this machine; None where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name) if repository.count("/") == 1 else None
    return Path(found) if isinstance(found, str) else None


def _weights(folder: Path) -> Iterator[Path]:
    """Files of weights in a folder that are really there: the cache's are links."""
    return (file for kind in ("*.safetensors", "*.bin") for file in folder.glob(kind) if file.exists())


_REFUSED: dict[tuple[str, str, str | None], str] = {}
"""What was said of a hub out of reach, by key, id and revision: it is not asked again for every cell of a sweep."""


def _read_index(path: str | Path, revision: str | None, key: str) -> tuple[Path, Mapping[str, Any]]:
    """The folder of a path or hub id (in the cache) that holds its model_index.json, and what that says."""
    where = resolve(path)
    here = Path(where).exists()
    if (refused := _REFUSED.get((key, where, revision))) is not None and not in_cache(where, "model_index.json"):
        raise UserError(refused)
    if not here:
        logger.info("%s=%s: no folder here; asking the hub, else its cache on this machine", key, path)
    try:
        file = Path(where) / "model_index.json" if here else Path(_download(where, revision))
        return file.parent, json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{key}={path}: model_index.json is damaged ({error}); copy the folder again") from error
    except Exception as error:
        said = _advice(f"{key}={path}", where, error)
        if "the hub cannot be reached" in said:
            _REFUSED[key, where, revision] = said
        raise UserError(said) from error


def _unconfigured(folder: Path, index: Mapping[str, Any]) -> list[str]:
    """The parts of a pipeline that cannot be built from the configurations and vocabularies in a folder."""
    lost = []
    for part, value in index.items():
        if not isinstance(value, list) or value[0] not in LIBRARIES:
            continue
        if part.startswith("tokenizer"):
            ways = [("tokenizer_config.json", *names) for names in VOCABULARIES]
        elif part.startswith("scheduler"):
            ways = [("scheduler_config.json",)]
        elif part.startswith(WEIGHTY):
            ways = [("config.json",)]
        else:
            continue
        if not any(all((folder / part / name).is_file() for name in names) for names in ways):
            lost.append(part)
    return lost


def _download(repository: str, revision: str | None) -> str:
    from huggingface_hub import hf_hub_download

    return hf_hub_download(repository, "model_index.json", revision=revision)


def _download_configurations(repository: str, revision: str | None) -> str:
    """The folder in the cache that holds all of a repository but its weights."""
    from huggingface_hub import snapshot_download

    return snapshot_download(repository, revision=revision, allow_patterns=list(CONFIGURATIONS))


def one_line(error: BaseException) -> str:
    """An error of a library, short enough for an error line of ours."""
    return shorten(f"{type(error).__name__}: {error}", 160, placeholder=" ...")


def _advice(said: str, where: str, error: Exception) -> str:
    """One line: what is wrong with a model's folder and what to do. `said` is the key with its value."""
    if Path(where).is_file():
        return f"{said} is a file; give a diffusers folder (the one with model_index.json)"
    if Path(where).is_dir():
        if not (Path(where) / "model_index.json").is_file():
            return f"{said} has no model_index.json; give a diffusers folder"
        return f"{said} cannot be read; the folder is incomplete or damaged ({one_line(error)})"
    if where.startswith((".", "/", "~")) or where.count("/") != 1:
        return f"{said} does not exist; give a diffusers folder, a hub id such as owner/name, or tiny"
    names = set(_names(error))
    if "GatedRepoError" in names:
        return (
            f"{said} asks for consent: accept its terms on its page of the hub, log in with `hf auth login`, "
            "and run again; or give a folder"
        )
    if unknown := names & {"RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError"}:
        return f"{said} is neither a folder here nor a model on the hub ({min(unknown)}); check the spelling"
    return (
        f"{said} is not here and the hub cannot be reached ({type(error).__name__}); where there is a network, run "
        f"`hf download {where}`, or give a folder"
    )


def _names(error: BaseException | None) -> Iterator[str]:
    """The classes of an error and of what caused it: libraries wrap the hub's."""
    while error is not None:
        yield type(error).__name__
        error = error.__cause__ or error.__context__


def fingerprint(parts: Sequence[nn.Module], config: Mapping[str, Any], *tokenizers: Any) -> str:
    """Hash of weights, their names, the schedule, the vocabularies and how text is padded: 16 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        state = part.state_dict()
        # A level that transformers' CLIPTextModel has in some versions and not in others says nothing.
        level = LEVEL if all(name.startswith(LEVEL) for name in state) else ""
        for name, tensor in sorted((name.removeprefix(level), tensor) for name, tensor in state.items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            if tensor.device.type != "meta":
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    plain = {key: value for key, value in config.items() if not key.startswith("_")}
    words = [one for tokenizer in tokenizers for one in (tokenizer.get_vocab(), tokenizer.model_max_length)]
    # Most pad with the end of text; another padding is another conditioning, of which the vocabulary says nothing.
    padding = [one.pad_token_id if one.pad_token_id != one.eos_token_id else None for one in tokenizers]
    words += [padding] if any(one is not None for one in padding) else []
    digest.update(json.dumps([plain, *words], sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]

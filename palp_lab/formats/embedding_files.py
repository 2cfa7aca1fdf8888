"""Learned word vectors as other tools keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

CLIP = ("clip_l", "clip_g", "t5xxl")
"""Keys of embedding files for models with several text encoders (SDXL, Stable Diffusion 3), in their order."""
MADE_FOR = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 1280: "SDXL's second text encoder"}
"""Bases by the width of their word vectors."""


@dataclass(frozen=True)
class Word:
    """A learned word: `name` as the file says it, None where it does not, and its vectors [k d] per text encoder."""

    name: str | None
    vectors: tuple[Tensor, ...]

    @property
    def count(self) -> int:
        """Vectors of the word."""
        return len(self.vectors[0])


def is_embedding(data: Mapping[str, Any]) -> bool:
    """Whether the content of a file is an embedding's: SDXL's two keys, A1111's, or one word with its vectors."""
    if {"emb_params", "string_to_param", *CLIP} & data.keys():
        return True
    return bool(data) and all(_is_vectors(value) and "." not in key for key, value in data.items())


def _is_vectors(value: Any) -> bool:
    shape = getattr(value, "shape", ())
    return 1 <= len(shape) <= 2 and all(shape)


def read_word(where: str, data: Mapping[str, Any], widths: Sequence[int]) -> Word:
    """The word of a file: diffusers' `{word: vectors}`, A1111's `emb_params` or `string_to_param`, SDXL's `clip_l` and
    `clip_g`.

    Args:
        where: the file in error lines.
        data: its content.
        widths: of the word vectors of the model's text encoders.

    Raises:
        UserError: for several words in one file, or vectors of another width; names the key and the base.
    """
    if set(CLIP) & data.keys():
        return Word(None, _checked(where, {key: data[key] for key in CLIP if key in data}, widths))
    if "emb_params" in data:
        return Word(None, _checked(where, {"emb_params": data["emb_params"]}, widths))
    name: str | None = None
    if "string_to_param" in data:
        data = {f"string_to_param.{key}": value for key, value in dict(data["string_to_param"]).items()}
    else:
        name = next(iter(data))
    if len(data) != 1:
        raise UserError(f"{where}: holds {len(data)} words ({', '.join(sorted(data)[:3])}); give a file with one")
    return Word(name, _checked(where, data, widths))


def half_of(data: Mapping[str, Any], widths: Sequence[int]) -> tuple[str, Tensor] | None:
    """A word of one of several text encoders, as diffusers' script for SDXL writes one file for each: its name and its
    vectors [k d], whose width tells the encoder. None for what is no such file, or where two encoders have one width.
    """
    if len(data) != 1 or len(widths) < 2 or len(set(widths)) < len(widths) or set(CLIP) & data.keys():
        return None
    name, value = next(iter(data.items()))
    if name in ("emb_params", "string_to_param") or value.shape[-1] not in widths:
        return None
    return name, value.float().reshape(-1, value.shape[-1])


def joined(where: str, halves: Mapping[str, Mapping[int, Tensor]], widths: Sequence[int]) -> Word:
    """The word whose vectors are given by name and width, those of every text encoder in a file of their own.

    Raises UserError for several words, an encoder without vectors, or different numbers of them.
    """
    if len(halves) > 1:
        raise UserError(f"{where}: holds {len(halves)} words ({', '.join(sorted(halves)[:3])}); give a folder with one")
    name, found = next(iter(halves.items()))
    if missing := [str(width) for width in widths if width not in found]:
        own = " and ".join(str(width) for width in found)
        made = " and ".join(MADE_FOR.get(width, "another text encoder") for width in found)
        raise UserError(
            f"{where}: {name} holds vectors of width {own}, and the model's text encoders also read "
            f"{' and '.join(missing)}; give the folder with the files of both, or the model= it was made for ({made})"
        )
    return Word(name, _checked(where, {f"{name} ({width})": found[width] for width in widths}, widths))


def _checked(where: str, found: Mapping[str, Tensor], widths: Sequence[int]) -> tuple[Tensor, ...]:
    vectors = {key: value.float().reshape(-1, value.shape[-1]) for key, value in found.items()}
    own = [value.shape[1] for value in vectors.values()]
    if own != list(widths):
        keys, shape = " and ".join(vectors), " and ".join(str(width) for width in own)
        made = " and ".join(MADE_FOR.get(width, "another text encoder") for width in own)
        raise UserError(
            f"{where}: {keys} holds vectors of width {shape}, and the model's text encoders read "
            f"{' and '.join(str(width) for width in widths)}; it seems made for {made}, choose that model="
        )
    counts = {len(value) for value in vectors.values()}
    if len(counts) > 1:
        raise UserError(f"{where}: {' and '.join(vectors)} hold different numbers of vectors; the file is damaged")
    return tuple(vectors.values())


def to_embedding(name: str, vectors: Sequence[Tensor]) -> dict[str, Tensor]:
    """The content of an embedding file: `{word: vectors}`, or a key for each of several text encoders."""
    own = [value.detach().cpu().float().contiguous() for value in vectors]
    return {name: own[0]} if len(own) == 1 else dict(zip(CLIP, own, strict=False))


def by_site_names(sites: Sequence[str], encoders: int) -> dict[str, str]:
    """What vectors by cross-attention site (P+) are called in a file: kohya's names, one per site; with several text
    encoders (ours) those names behind the encoder's key. Maps to `<site>.<number of the encoder>`."""
    if encoders == 1:
        return {site: f"{site}.0" for site in sites}
    return {f"{CLIP[number]}.{site}": f"{site}.{number}" for number in range(encoders) for site in sites}

"""Shape vocabulary and the small values every other module speaks in.

Letters in the annotations: b batch, c channels, h and w height and width, n tokens, d width of a token,
p width of the pooled text vector, k concepts, s cross-attention sites.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt8
    from torch import Tensor

    Images: TypeAlias = UInt8[Tensor, "b 3 h w"]
    """The one canonical picture type outside the network: 8 bit RGB."""
    Pixels: TypeAlias = Float[Tensor, "b 3 h w"]
    """Pictures as the autoencoder takes them, in [-1, 1]."""
    Latents: TypeAlias = Float[Tensor, "b c h w"]
    Timesteps: TypeAlias = Float[Tensor, " b"] | Int[Tensor, " b"]
    """Position on the model's own clock: 0 (clean) to T - 1 (noise)."""
    Vectors: TypeAlias = Float[Tensor, "k d"]
    TokenIds: TypeAlias = Int[Tensor, "b n"]
    Masks: TypeAlias = Bool[Tensor, "b h w"]


class UserError(Exception):
    """Something the user can mend. The message is one line that names the file or key and the fix; exit status 2."""


class Capability(StrEnum):
    """What a model offers or a part of a recipe needs. `build.py` checks that requires is a subset of provides."""

    CROSS_ATTENTION = "cross_attention"
    """Keys and values of the text at named sites."""
    PER_SITE_TEXT = "per_site_text"
    """A text conditioning of its own at every cross-attention site (P+, arXiv 2303.09522)."""
    TOKEN_VECTORS = "token_vectors"
    """Word vectors can be laid over the text encoder's embeddings."""
    LINEAR_LAYERS = "linear_layers"
    """Linear projections that peft can adapt."""
    TRAINABLE_COPY = "trainable_copy"
    """The denoiser can be copied and trained whole."""
    TRAINABLE_TEXT = "trainable_text"
    """The text encoders can be trained."""


class Kind(StrEnum):
    """What the denoiser's native output is."""

    EPS = "eps"
    V = "v"
    FLOW = "flow"


class Role(StrEnum):
    """Which data stream a row belongs to; streams are never told apart by their position in a batch."""

    SUBJECT = "subject"
    PRIOR = "prior"

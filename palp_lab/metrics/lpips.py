"""LPIPS with AlexNet: how different two pictures look, by a small network of ours that loads the published weights.

d(x, y) = sum over layers l of mean over places h, w of || w_l * (x_l - y_l) ||^2, where x_l are the activations of
layer l with their channels normalised to length 1, and w_l^2 the weights of a 1x1 convolution.
Source: arXiv 1801.03924, Eq. 1.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from palp_lab.metrics.embedders import AbstractEmbedder, once, pick_device
from palp_lab.metrics.preprocessing import Preprocessing
from palp_lab.types import UserError

if TYPE_CHECKING:
    from jaxtyping import Float

    from palp_lab.types import Images

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for pictures in [-1, 1]. Source: the authors' code, version 0.1."""
CONVOLUTIONS = {
    0: (3, 64, 11, 4, 2), 3: (64, 192, 5, 1, 2), 6: (192, 384, 3, 1, 1), 8: (384, 256, 3, 1, 1),
    10: (256, 256, 3, 1, 1),
}  # fmt: skip
"""AlexNet's convolutions by their number in torchvision's layout: channels in and out, kernel, stride, padding.
Source: arXiv 1404.5997 (the one-column AlexNet whose weights torchvision publishes)."""
POOLED = (0, 3)
"""Convolutions after whose ReLU the places are pooled, 3 x 3 with stride 2."""
SIDE = 256
"""Shorter side pictures are resized to (ours: LPIPS was trained on 64 x 64 patches, DreamBooth gives no size)."""
TINY = 1e-10
"""Added to lengths before dividing. Source: the authors' code."""
SHOWN = 8
"""Pictures per pass; does not change a distance (ours)."""


class Lpips(nn.Module):
    """AlexNet's features and the five heads. Pictures go in as 8 bit RGB divided by 127.5 minus 1."""

    def __init__(self) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {}
        for number, (before, after, kernel, stride, padding) in CONVOLUTIONS.items():
            layers[str(number)] = nn.Conv2d(before, after, kernel, stride, padding)
        self.features = nn.ModuleDict(layers)
        self.heads = nn.ParameterList(nn.Parameter(torch.zeros(shape[1])) for shape in CONVOLUTIONS.values())

    def layers(self, pixels: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c y x"]]:
        """The activations after every ReLU."""
        shape = (-1, 1, 1)
        here = (pixels - pixels.new_tensor(SHIFT).view(shape)) / pixels.new_tensor(SCALE).view(shape)
        found = []
        for number in CONVOLUTIONS:
            here = self.features[str(number)](here).relu()
            found.append(here)
            if number in POOLED:
                here = nn.functional.max_pool2d(here, 3, 2)
        return found

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Coordinates whose squared Euclidean distance is LPIPS, for pictures of one size."""
        parts = []
        for layer, head in zip(self.layers(pixels), self.heads, strict=True):
            unit = layer / (layer.square().sum(1, keepdim=True).sqrt() + TINY)
            places = layer.shape[-1] * layer.shape[-2]
            parts.append((unit * (head / places).sqrt().view(-1, 1, 1)).flatten(1))
        return torch.cat(parts, 1)


class LpipsEmbedder(AbstractEmbedder):
    """LPIPS as a space: its features are coordinates whose squared distance it is. They are as large as pictures, so a
    protocol does not remember them."""

    remembered = False

    def __init__(self, network: Lpips, fingerprint: str, device: torch.device, side: int = SIDE) -> None:
        self.network, self.fingerprint, self.device = network, fingerprint, device
        self.preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, shortest=side)

    @torch.no_grad()
    def images(self, images: Images) -> Float[Tensor, "b d"]:
        shown = [self.preprocessing(part).to(self.device) for part in images.split(SHOWN)]
        network = self.network.to(self.device)
        return torch.cat([network(pixels).cpu() for pixels in shown])


def open_lpips(
    alexnet: str | None = None, heads: str | None = None, device: str = "cpu", side: int = SIDE
) -> LpipsEmbedder | None:
    """LPIPS with the weights of two files, loaded once; None where neither is given, and then it is not measured.

    `alexnet` holds AlexNet in torchvision's layout (`features.0.weight`, ...; what else it holds is not read), `heads`
    the 1x1 convolutions in LPIPS' own (`lin0.model.1.weight`, ...), both as safetensors or as a .pth of tensors alone.
    Raises UserError for one file without the other, or files that hold something else.
    """
    if alexnet is None and heads is None:
        return None
    if alexnet is None or heads is None:
        raise UserError("lpips: needs alexnet= and heads=, the files of AlexNet and of its heads; give both or neither")
    place = pick_device(device)
    files = (Path(alexnet).expanduser(), Path(heads).expanduser())
    state = [f"{path}:{path.stat().st_mtime_ns}" if path.is_file() else str(path) for path in files]
    network, fingerprint = once(("lpips", *state), lambda: _load(*files))
    return LpipsEmbedder(network, fingerprint, place, side)


def _load(alexnet: Path, heads: Path) -> tuple[Lpips, str]:
    network = Lpips()
    theirs, lin = read_tensors(alexnet), read_tensors(heads)
    with torch.no_grad():
        for number, convolution in network.features.items():
            for name, mine in convolution.named_parameters():
                mine.copy_(_tensor(theirs, f"features.{number}.{name}", mine.shape, alexnet))
        for i, mine in enumerate(network.heads):
            weights = _tensor(lin, f"lin{i}.model.1.weight", torch.Size((1, len(mine), 1, 1)), heads)
            if bool((weights < 0).any()):
                raise UserError(f"{heads}: lin{i}.model.1.weight has negative weights, which those of LPIPS never have")
            mine.copy_(weights.flatten())
    total = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in (alexnet, heads)))
    return network.eval().requires_grad_(False), total.hexdigest()[:16]


def _tensor(tensors: dict[str, Tensor], key: str, shape: torch.Size, path: Path) -> Tensor:
    if key not in tensors:
        raise UserError(f"{path}: has no {key}; give AlexNet in torchvision's layout, and LPIPS' heads in its own")
    if tensors[key].shape != shape:
        raise UserError(f"{path}: {key} is {list(tensors[key].shape)}, must be {list(shape)}")
    return tensors[key].float()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a .pth that holds nothing but tensors; nothing is unpickled that runs.
    Raises UserError for any other file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: cannot be read as tensors ({reason}); give safetensors or a .pth of tensors"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{path}: holds something else than tensors by name; save its state_dict")
    return found

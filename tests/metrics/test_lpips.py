"""LPIPS: its equation computed another way, the layouts of published weights, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from palp_lab.metrics.diversity import squared_distances
from palp_lab.metrics.lpips import CONVOLUTIONS, Lpips, LpipsEmbedder, open_lpips
from palp_lab.types import UserError
from tests.metrics.conftest import noise_pictures


def alexnet(seed: int = 0) -> dict[str, Tensor]:
    """Random weights in torchvision's layout, with a classifier nobody asks for."""
    generator = torch.Generator().manual_seed(seed)
    found = {"classifier.6.bias": torch.zeros(1000)}
    for number, (before, after, kernel, _, _) in CONVOLUTIONS.items():
        scale = (2 / (before * kernel**2)) ** 0.5
        found[f"features.{number}.weight"] = torch.randn((after, before, kernel, kernel), generator=generator) * scale
        found[f"features.{number}.bias"] = torch.randn(after, generator=generator) * 0.1
    return found


def heads(seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    widths = [shape[1] for shape in CONVOLUTIONS.values()]
    return {f"lin{i}.model.1.weight": torch.rand((1, c, 1, 1), generator=generator) for i, c in enumerate(widths)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("lpips")
    torch.save(alexnet(), folder / "alexnet.pth")
    save_file(heads(), folder / "heads.safetensors")
    return folder / "alexnet.pth", folder / "heads.safetensors"


def convolve(pixels: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """A convolution as sums over windows, in float64."""
    kernel = weight.shape[-1]
    padded = np.pad(pixels, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]
    return np.einsum("cyxij,ocij->oyx", windows, weight, optimize=True) + bias[:, None, None]


def by_the_equation(a: np.ndarray, b: np.ndarray, net: dict[str, np.ndarray], lin: dict[str, np.ndarray]) -> float:
    """arXiv 1801.03924, Eq. 1, for two pictures [3 h w] in [-1, 1]."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    here = [(x - shift[:, None, None]) / scale[:, None, None] for x in (a, b)]
    total = 0.0
    for layer, (number, (_, _, _, stride, padding)) in enumerate(CONVOLUTIONS.items()):
        weight, bias = net[f"features.{number}.weight"], net[f"features.{number}.bias"]
        here = [np.maximum(convolve(x, weight, bias, stride, padding), 0) for x in here]
        one, two = (x / (np.sqrt((x**2).sum(0)) + 1e-10) for x in here)
        weighted = lin[f"lin{layer}.model.1.weight"][0] * (one - two) ** 2
        total += weighted.sum(0).mean()
        if number in (0, 3):
            here = [np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((3, 4)) for x in here]
    return total


def test_distances_are_those_of_the_equation(files: tuple[Path, Path]) -> None:
    images = noise_pictures(3, size=(72, 80))
    network = open_lpips(str(files[0]), str(files[1]), side=72)
    assert network is not None
    net = {k: v.double().numpy() for k, v in alexnet().items()}
    lin = {k: v.double().numpy() for k, v in heads().items()}
    pixels = images.numpy().astype(np.float64) / 127.5 - 1
    expected = [by_the_equation(pixels[i], pixels[j], net, lin) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert squared_distances(network.images(images)).numpy() == pytest.approx(expected, rel=1e-4)


def test_pictures_are_resized_and_equal_ones_have_no_distance(files: tuple[Path, Path]) -> None:
    network = open_lpips(str(files[0]), str(files[1]))
    assert network is not None and network.preprocessing.target(512, 512) == (256, 256)
    same = noise_pictures(1, size=(96, 96)).repeat(2, 1, 1, 1)
    assert float(squared_distances(network.images(same))) == 0


def test_nothing_is_loaded_twice_and_the_fingerprint_follows_the_files(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two = (open_lpips(str(files[0]), str(files[1])) for _ in range(2))
    assert one is not None and two is not None and one.network is two.network
    save_file(heads(seed=2), tmp_path / "heads.safetensors")
    other = open_lpips(str(files[0]), str(tmp_path / "heads.safetensors"))
    assert other is not None and other.fingerprint != one.fingerprint


def test_the_heads_that_torchmetrics_carries_are_the_public_layout(files: tuple[Path, Path]) -> None:
    """LPIPS' own weights of version 0.1, not ours: the real file has the keys and shapes that are asked for."""
    import torchmetrics

    public = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    network = open_lpips(str(files[0]), str(public))
    assert network is not None
    assert [len(head) for head in network.network.heads] == [64, 192, 384, 256, 256]
    assert all(bool((head >= 0).all()) and float(head.sum()) > 0 for head in network.network.heads)


def test_true_size() -> None:
    """AlexNet's features as torchvision publishes them have 2,469,696 numbers; LPIPS adds one per channel."""
    with torch.device("meta"):
        network = Lpips()
    assert sum(p.numel() for p in network.features.parameters()) == 2_469_696
    assert sum(p.numel() for p in network.heads.parameters()) == 1_152


def test_without_weights_there_is_no_network() -> None:
    assert open_lpips() is None


@pytest.mark.parametrize("given", ["alexnet", "heads"])
def test_one_file_is_not_enough(files: tuple[Path, Path], given: str) -> None:
    with pytest.raises(UserError, match="both or neither"):
        open_lpips(**{given: str(files[0])})


class Evil:
    """What a pickle could run."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("ran",)


def test_other_files_are_refused_in_one_line(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(word: str, net: Path = files[0], lin: Path = files[1]) -> None:
        with pytest.raises(UserError, match=word) as error:
            open_lpips(str(net), str(lin))
        assert "\n" not in str(error.value)

    there = tmp_path / "weights.pth"
    refused("no such file", net=there)
    torch.save({"features.0.weight": Evil()}, there)
    refused("cannot be read as tensors", net=there)
    assert "ran" not in capsys.readouterr().out
    torch.save([torch.zeros(1)], there)
    refused("state_dict", net=there)
    refused(r"has no features\.0\.weight", net=files[1])
    refused(r"has no lin0\.model\.1\.weight", lin=files[0])
    torch.save(alexnet() | {"features.3.bias": torch.zeros(7)}, tmp_path / "narrow.pth")
    refused(r"features\.3\.bias is \[7\], must be \[192\]", net=tmp_path / "narrow.pth")
    save_file({k: -v for k, v in heads().items()}, tmp_path / "negative.safetensors")
    refused("negative", lin=tmp_path / "negative.safetensors")


def test_a_protocol_does_not_keep_what_is_as_large_as_pictures() -> None:
    assert LpipsEmbedder.remembered is False

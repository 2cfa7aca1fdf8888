"""A denoiser of a few hundred weights in float64, for any kind and path: what the mathematics is proved on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from palp_lab.adapter import Adapter
from palp_lab.dataset.concept import AbstractDataset, Concept
from palp_lab.diffusion.path import AbstractPath, RectifiedFlow, VariancePreserving
from palp_lab.diffusion.prediction import Prediction
from palp_lab.edits.base import AbstractEdits
from palp_lab.losses.base import StepContext
from palp_lab.losses.passes import Pass
from palp_lab.model.base import AbstractModel, LatentDistribution, Site, TextCond, Words
from palp_lab.tokens.base import AbstractTokens
from palp_lab.types import Capability, Kind, Role

SHAPE = (2, 2, 2)
WIDTH = 6


def path_of(kind: Kind) -> AbstractPath:
    """The path a kind lives on: Stable Diffusion's schedule, or rectified flow."""
    if kind is Kind.FLOW:
        return RectifiedFlow(1000)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return VariancePreserving((1 - betas).cumprod(0))


class Denoiser(nn.Module):
    """Two layers over latent, time and text; `delta` is a low-rank change of the first."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        inner, size = 16, SHAPE[0] * SHAPE[1] * SHAPE[2]
        draw = lambda *shape: nn.Parameter(  # noqa: E731
            torch.randn(shape, generator=generator, dtype=torch.float64) * 0.4, requires_grad=False
        )
        self.into, self.out = draw(inner, size + 1 + WIDTH), draw(size, inner)
        self.delta: Tensor | None = None
        self.calls: list[tuple[int, bool, bool]] = []
        """Per pass: rows, whether the change was on, whether a graph was made."""

    def forward(self, x_t: Tensor, t: Tensor, words: Tensor) -> Tensor:
        weight = self.into if self.delta is None else self.into + self.delta
        rows = torch.cat([x_t.flatten(1), (t.double() / 1000)[:, None], words], 1)
        self.calls.append((len(x_t), self.delta is not None, torch.is_grad_enabled()))
        return (torch.tanh(rows @ weight.T) @ self.out.T).view_as(x_t)


class ToyModel(AbstractModel):
    """Words are vectors drawn from their hash; a prompt is the mean of its words. Final."""

    provides = frozenset(Capability)
    sites: tuple[Site, ...] = ()
    resolution = 2
    latent_shape = SHAPE
    device = torch.device("cpu")
    dtype = torch.float64

    def __init__(self, kind: Kind, seed: int = 0) -> None:
        self.kind = kind
        self.path = path_of(kind)
        self.denoiser = Denoiser(seed)
        self.fingerprint = f"toy/{kind}/{seed}"

    def encode_image(self, pixels: Tensor) -> LatentDistribution:
        mean = pixels[:, : SHAPE[0]].double()
        return LatentDistribution(mean, torch.full_like(mean, 0.1))

    def decode_image(self, latents: Tensor) -> Tensor:
        return latents[:, [0, 1, 0]].clamp(-1, 1).float()

    def tokenize(self, prompts: Sequence[str], placeholders: Mapping[str, Sequence[int]] | None = None) -> Words:
        longest = 16
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        slot = torch.full((len(prompts), longest), -1)
        for row, prompt in enumerate(prompts):
            for place, word in enumerate(prompt.split()):
                if placeholders and word in placeholders:
                    slot[row, place] = placeholders[word][0]
                ids[row, place] = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little") + 1
        return Words((ids,), (slot,))

    def encode_text(self, words: Words, vectors: tuple[Tensor, ...] = ()) -> TextCond:
        rows = torch.stack([torch.stack([self._vector(int(i)) for i in row]) for row in words.ids[0]])
        if vectors:
            own = vectors[0][words.slot[0].clamp_min(0)]
            rows = torch.where((words.slot[0] >= 0)[..., None], own, rows)
        at = torch.where(words.slot[0] >= 0, torch.arange(rows.shape[1]), -1).amax(1)
        return TextCond(rows, at)

    def word_vectors(self, word: str) -> tuple[Tensor, ...]:
        return (self._vector(int(self.tokenize([word]).ids[0][0, 0]))[None].clone(),)

    def pieces(self, text: str) -> tuple[list[int], ...]:
        return ([int(i) for i in self.tokenize([text]).ids[0][0] if i],)

    def keys(self, cond: TextCond) -> tuple[Tensor, ...]:
        return (cond.tokens,)

    def predict(self, x_t: Tensor, t: Tensor, cond: TextCond) -> Prediction:
        return Prediction(self.denoiser(x_t, t, cond.tokens.mean(1)), x_t, t, self.kind, self.path)

    def scheduler(self, name: str) -> Any:
        raise NotImplementedError("the toy draws no pictures")

    def pipeline_parts(self) -> dict[str, Any]:
        raise NotImplementedError("the toy is no pipeline")

    @staticmethod
    def _vector(number: int) -> Tensor:
        if number == 0:
            return torch.zeros(WIDTH, dtype=torch.float64)
        return torch.randn(WIDTH, generator=torch.Generator().manual_seed(number), dtype=torch.float64)


class ToyTokens(AbstractTokens):
    """One learned vector. Final."""

    requires = frozenset({Capability.TOKEN_VECTORS})
    phrase = "{placeholder}"

    def bind(self, model: AbstractModel, concept: Concept) -> None:
        self.model = model
        self.placeholder = concept.placeholder
        self.vector = nn.Parameter(model.word_vectors(concept.superclass)[0])

    def encode(self, prompts: Sequence[str]) -> TextCond:
        return self.model.encode_text(self.model.tokenize(prompts, {self.placeholder: [0]}), (self.vector,))

    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        yield "vector", self.vector


class ToyEdits(AbstractEdits):
    """A low-rank change of the denoiser's first layer; away from zero unless `start` is 0. Final."""

    requires = frozenset()

    def __init__(self, start: float = 0.5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        inner, outer = 16, SHAPE[0] * SHAPE[1] * SHAPE[2] + 1 + WIDTH
        self.down = nn.Parameter(torch.randn(2, outer, generator=generator, dtype=torch.float64) * 0.3)
        self.up = nn.Parameter(torch.randn(inner, 2, generator=generator, dtype=torch.float64) * start)

    def attach(self, model: AbstractModel) -> None:
        self.model = model
        self._lay()

    def detach(self) -> None:
        self.model.denoiser.delta = None

    def _lay(self) -> None:
        edits = self
        original = type(self.model.denoiser).forward

        def forward(x_t: Tensor, t: Tensor, words: Tensor) -> Tensor:
            denoiser = edits.model.denoiser
            denoiser.delta = None if edits.off else edits.up @ edits.down
            return original(denoiser, x_t, t, words)

        self.off = False
        self.model.denoiser.forward = forward

    @contextmanager
    def disabled(self) -> Iterator[None]:
        self.off = True
        try:
            yield
        finally:
            self.off = False

    def parts(self) -> Iterable[tuple[str, nn.Parameter]]:
        yield "down", self.down
        yield "up", self.up


class ToyDataset(AbstractDataset):
    """Three random pictures of a cat. Final."""

    def concept(self) -> Concept:
        return CONCEPT


CONCEPT = Concept(
    name="toy",
    superclass="cat",
    placeholder="<v>",
    photos=torch.randint(0, 256, (3, 3, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8),
    digest="toy",
)


def toy_adapter(kind: Kind, start: float = 0.5, moved: bool = True) -> Adapter:
    """A toy whose word has moved away from the class word."""
    adapter = Adapter(ToyModel(kind), ToyTokens(), ToyEdits(start), CONCEPT)
    if moved:
        with torch.no_grad():
            adapter.tokens.vector.add_(0.3)
    return adapter


def toy_context(
    adapter: Adapter,
    step: int = 3,
    batch: int = 4,
    target: str | None = "a sketch of {} in Paris",
    centre: float = 0.0,
    caption: str = "a photo of {}",
) -> StepContext:
    """One step on random latents of unit variance around `centre`, t over the whole clock."""
    generator = torch.Generator().manual_seed(step)
    model = adapter.model
    x0 = centre + torch.randn(batch, *SHAPE, generator=generator, dtype=torch.float64)
    noise = torch.randn(batch, *SHAPE, generator=generator, dtype=torch.float64)
    t = model.path.draw_t(batch, generator)
    sentences = (caption,) * batch
    cond = adapter.encode(sentences)
    x_t = model.path.add_noise(x0, noise, t)
    data = Pass(x0, noise, t, x_t, sentences, cond, model.predict(x_t, t, cond))
    return StepContext(adapter, {Role.SUBJECT: data}, seed=0, step=step, target=target)


def gradients(value: Tensor, adapter: Adapter) -> Tensor:
    """The parameter gradient of a value, flat; what does not take part is 0."""
    parameters = [p for _, p in adapter.parts()]
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found, strict=True)]
    )

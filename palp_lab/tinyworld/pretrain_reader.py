"""Trains the element reader and the identity encoder: residual networks that share nothing with the generator."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ResNetConfig, ResNetModel

from palp_lab.metrics.reader import SIDE, ElementReader
from palp_lab.tinyworld.factors import ACCESSORIES
from palp_lab.tinyworld.oracle import LABELS
from palp_lab.tinyworld.pretrain_autoencoder import to_pixels
from palp_lab.tinyworld.pretrain_loop import AbstractTask, Batch

WEIGHTS = dict.fromkeys((*ACCESSORIES, "colour", "second_colour", "pattern"), 2.0)
"""Small things are learned last: their losses count double. Ours."""

REPEATS = 3
"""How many times as often as others pictures are read in which things are small. Ours."""

SMALL = ("far away", "small")
"""Framings in which things are small."""

UNSEEN = 255
"""A label that does not count: the coat and accessories of an artwork have lost their colours."""


def backbone_config() -> ResNetConfig:
    """The residual network of both scorers: 1.5 M parameters. Ours."""
    return ResNetConfig(
        num_channels=3, embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[1, 2, 2, 1], layer_type="basic"
    )


def augment(x: Tensor, rng: torch.Generator) -> Tensor:
    """What an autoencoder and a sampler do to a picture, mildly: a shift, a little blur, noise, gain and offset; and
    for every second one a mirror image, which no caption tells apart."""
    n = len(x)
    x = torch.where(torch.rand(n, 1, 1, 1, generator=rng) < 0.5, x.flip(3), x)
    shift = torch.randint(-2, 3, (2,), generator=rng).tolist()
    x = functional.pad(x, (2, 2, 2, 2), mode="replicate")[
        :, :, 2 + shift[0] : 66 + shift[0], 2 + shift[1] : 66 + shift[1]
    ]
    soft = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = torch.rand(n, 1, 1, 1, generator=rng) * 0.8 * (torch.rand(n, 1, 1, 1, generator=rng) < 0.5)
    x = x + share * (soft - x)
    noisy = torch.rand(n, 1, 1, 1, generator=rng) * 0.06 * (torch.rand(n, 1, 1, 1, generator=rng) < 0.5)
    x = x + noisy * torch.randn(x.shape, generator=rng)
    gain = 1 + 0.08 * (torch.rand(n, 1, 1, 1, generator=rng) * 2 - 1)
    return x * gain + 0.04 * (torch.rand(n, 1, 1, 1, generator=rng) * 2 - 1)


def label_table(labels: dict[str, np.ndarray]) -> np.ndarray:
    """Labels of a set as uint8 [n factors] in the order of :data:`LABELS`, :data:`UNSEEN` where they do not count."""
    table = np.stack([labels[name].astype(np.uint8) for name in LABELS], 1)
    names = list(LABELS)
    art = labels["style"] == LABELS["style"].index("artwork")
    bare = labels["class_"] == 0
    for name in ("hat", "crown", "sunglasses", "scarf", "balloon", "colour", "second_colour", "pattern"):
        table[art, names.index(name)] = UNSEEN
    table[bare, names.index("place")] = UNSEEN
    # Side by side nobody is first: the classes stand in their own order, and the coats of either have no column.
    beside = labels["relation"] == LABELS["relation"].index("next to")
    pair = [names.index("class_"), names.index("second_class")]
    table[np.ix_(beside, pair)] = np.sort(table[np.ix_(beside, pair)], 1)
    for name in ("colour", "second_colour", "pattern"):
        table[beside, names.index(name)] = UNSEEN
    # A plain coat shows no second colour.
    plain = labels["pattern"] == LABELS["pattern"].index("plain")
    table[plain, names.index("second_colour")] = UNSEEN
    return table


def often(labels: dict[str, np.ndarray]) -> np.ndarray:
    """Row numbers to draw from: pictures with two subjects or a small one stand :data:`REPEATS` times, for what is
    worn there is a few pixels large and was learned last."""
    framing = np.isin(labels["framing"], [LABELS["framing"].index(word) for word in SMALL])
    hard = (labels["second_class"] > 0) | framing
    return np.repeat(np.arange(len(hard)), np.where(hard, REPEATS, 1))


def factor_loss(logits: dict[str, Tensor], y: Tensor) -> Tensor:
    """Weighted sum of the cross-entropies of all factors, per picture; ``y`` [n factors] as :func:`label_table`."""
    losses = [
        WEIGHTS.get(name, 1.0)
        * functional.cross_entropy(logits[name].float(), y[:, i], ignore_index=UNSEEN, reduction="sum")
        for i, name in enumerate(LABELS)
    ]
    return torch.stack(losses).sum() / len(y)


class Reading(AbstractTask):
    """Cross-entropy of every factor."""

    def __init__(self, images: np.ndarray, labels: dict[str, np.ndarray], batch: int = 32, bf16: bool = True) -> None:
        super().__init__()
        self.rows = often(labels)
        self.reader = ElementReader(LABELS, backbone_config())
        self.images, self.table, self.batch, self.bf16 = images, label_table(labels), batch, bf16

    def draw(self, rng: torch.Generator) -> Batch:
        rows = np.sort(self.rows[torch.randint(0, len(self.rows), (self.batch,), generator=rng).numpy()])
        x = augment(to_pixels(self.images[rows]), rng)
        return {"x": x, "y": torch.from_numpy(self.table[rows].astype(np.int64))}

    def forward(self, batch: Batch) -> Tensor:
        with torch.autocast(batch["x"].device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.reader(batch["x"])
        return factor_loss(logits, batch["y"])


class Recognition(AbstractTask):
    """Supervised contrastive loss over identities across styles, places and poses.

    Source: 2004.11362, Eq. 2. Half of the identities of a batch are of one class: the class alone must not suffice.
    """

    def __init__(
        self, images: np.ndarray, identities: np.ndarray, classes: np.ndarray, batch: int = 48, views: int = 4,
        temperature: float = 0.1, bf16: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model = ResNetModel(backbone_config())
        self.images, self.views, self.temperature, self.bf16 = images, views, temperature, bf16
        self.people = batch // views
        self.rows = [np.flatnonzero(identities == i) for i in np.unique(identities[identities >= 0])]
        kinds = np.asarray([classes[rows[0]] for rows in self.rows])
        self.of_class = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]

    def draw(self, rng: torch.Generator) -> Batch:
        def below(limit: int, count: int) -> np.ndarray:
            return torch.randperm(limit, generator=rng)[:count].numpy()

        kind = self.of_class[int(torch.randint(0, len(self.of_class), (1,), generator=rng))]
        alike = kind[below(len(kind), self.people // 2)]
        others = below(len(self.rows), 2 * self.people)
        people = [*alike, *[p for p in others if p not in set(alike.tolist())]][: self.people]
        rows = [self.rows[person][below(len(self.rows[person]), self.views)] for person in people]
        x = augment(to_pixels(self.images[np.concatenate(rows)]), rng)
        who = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
        return {"x": x, "who": torch.from_numpy(who)}

    def embed(self, x: Tensor) -> Tensor:
        """Unit embeddings of pictures in [-1, 1]."""
        x = functional.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return functional.normalize(self.model(x).pooler_output.flatten(1).float(), dim=-1)

    def forward(self, batch: Batch) -> Tensor:
        with torch.autocast(batch["x"].device.type, torch.bfloat16, enabled=self.bf16):
            z = self.embed(batch["x"])
        scores = (z.float() @ z.float().T) / self.temperature
        own = torch.eye(len(z), dtype=torch.bool, device=z.device)
        alike = (batch["who"][:, None] == batch["who"][None]) & ~own
        logp = scores - scores.masked_fill(own, -torch.inf).logsumexp(1, keepdim=True)
        return -(logp.masked_fill(~alike, 0.0).sum(1) / alike.sum(1).clamp_min(1)).mean()


def start_from(backbone: ResNetModel, reader: ElementReader) -> None:
    """Starts the identity encoder from the reader's backbone: both are scorers, neither knows the generator."""
    backbone.load_state_dict(reader.backbone.state_dict())


__all__ = ["Reading", "Recognition", "augment", "backbone_config", "label_table", "nn", "start_from"]

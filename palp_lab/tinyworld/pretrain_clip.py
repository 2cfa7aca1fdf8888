"""Trains the tiny CLIP: contrastive, with captions of the same picture in which one factor is changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from palp_lab.metrics.reader import SIDE, ElementReader
from palp_lab.tinyworld.captions import caption, describe
from palp_lab.tinyworld.factors import ACCESSORIES, CLASSES, COLOUR_NAMES, FRAMINGS, PATTERNS, PLACES, RELATIONS, STYLES
from palp_lab.tinyworld.oracle import LABELS
from palp_lab.tinyworld.pretrain_autoencoder import to_pixels
from palp_lab.tinyworld.pretrain_loop import AbstractTask, Batch
from palp_lab.tinyworld.pretrain_reader import augment, factor_loss, label_table, often
from palp_lab.tinyworld.pretrain_text import encode_captions, text_config
from palp_lab.tinyworld.pretrain_wording import NO_NOUN, SAID, Nouns
from palp_lab.tinyworld.scene import Scene
from palp_lab.tinyworld.sets import scene_of

FACTORS = (
    "style",
    "place",
    "class",
    "accessory",
    "accessory colour",
    "colour",
    "pattern",
    "framing",
    "partner",
    "relation",
)
"""What a hard negative changes."""

WEIGHTS = {"style": 0.5, "place": 0.5, "class": 2.0, "accessory": 2.0, "pattern": 2.0, "partner": 2.0, "relation": 0.5}
"""How often training changes a factor, 1 where none is given: what was confused most is asked most. Ours."""


def changed(scene: Scene, factor: str, rng: np.random.Generator) -> Scene | None:
    """``scene`` with one factor drawn anew, or None where the scene (or its caption) does not show that factor."""

    def other(options: list[str], now: str) -> str:
        left = [option for option in options if option != now]
        return left[rng.integers(0, len(left))]

    if not scene.subjects:
        return None
    first, rest = scene.subjects[0], scene.subjects[1:]
    worn = list(scene.accessories)
    pick = int(rng.integers(0, len(worn))) if worn else 0
    if factor == "style" and not scene.artwork:
        return replace(scene, style=other(STYLES, scene.style))
    if factor == "place" and not scene.artwork:
        return replace(scene, place=other(PLACES, scene.place))
    if factor == "class":
        return replace(scene, subjects=(replace(first, superclass=other(CLASSES, first.superclass)), *rest))
    if factor == "accessory":
        free = [name for name in ACCESSORIES if name not in {name for name, _ in worn}]
        name = free[rng.integers(0, len(free))]
        word = COLOUR_NAMES[rng.integers(0, len(COLOUR_NAMES))]
        chance = rng.random()
        if not worn or (len(worn) < 2 and chance < 0.34):
            worn.append((name, word))
        elif chance < 0.67:
            worn[pick] = (name, worn[pick][1])
        else:
            worn.pop(pick)
        return replace(scene, accessories=tuple(worn))
    if factor == "accessory colour" and worn and not scene.artwork:
        worn[pick] = (worn[pick][0], other(COLOUR_NAMES, worn[pick][1]))
        return replace(scene, accessories=tuple(worn))
    if factor == "colour" and not scene.artwork:
        word = other([c for c in COLOUR_NAMES if c != first.second], first.colour)
        return replace(scene, subjects=(replace(first, colour=word), *rest))
    if factor == "pattern" and not scene.artwork and first.pattern != "plain":
        word = other([p for p in PATTERNS if p != "plain"], first.pattern)
        return replace(scene, subjects=(replace(first, pattern=word), *rest))
    if factor == "framing" and scene.framing != "none":
        return replace(scene, framing=other(FRAMINGS[1:], scene.framing))
    if factor == "partner" and rest:
        return replace(scene, subjects=(first, replace(rest[0], superclass=other(CLASSES, rest[0].superclass))))
    if factor == "relation" and rest:
        return replace(scene, relation=other(RELATIONS[1:], scene.relation))
    return None


def eight_captions(scene: Scene, seed: int, count: int = 8) -> list[str]:
    """The full description of ``scene`` and ``count`` - 1 others that differ from it in one factor each."""
    rng = np.random.default_rng([919, seed])
    texts = [describe(scene)]
    for _ in range(1000):
        if len(texts) == count:
            return texts
        other = changed(scene, FACTORS[rng.integers(0, len(FACTORS))], rng)
        if other is not None and describe(other) not in texts:
            texts.append(describe(other))
    return texts


def build_clip(tokenizer: CLIPTokenizer, width: int = 160, layers: int = 5) -> CLIPModel:
    """A randomly initialised CLIP: patches of 8 × 8, a small causal text tower."""
    text = text_config(tokenizer, 128, 2, 4)
    vision = {
        "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "image_size": 64,
        "num_attention_heads": width // 32, "patch_size": 8, "projection_dim": 128,
    }  # fmt: skip
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision, projection_dim=128)
    # The plain form of attention is faster to differentiate on a CPU than the fused one.
    config._attn_implementation = "eager"
    model = CLIPModel(config)
    _place_patches(model, width)
    return model


@torch.no_grad()
def _place_patches(model: CLIPModel, width: int) -> None:
    """Positions start as sines of row and column: nearby patches then look alike from the first step."""
    grid = torch.arange(8).float()
    quarter = width // 4
    rates = 1.0 / (20.0 ** (torch.arange(quarter) / quarter))
    waves = torch.cat([(grid[:, None] * rates).sin(), (grid[:, None] * rates).cos()], 1)
    table = torch.cat([waves[:, None].expand(8, 8, -1), waves[None].expand(8, 8, -1)], -1).reshape(64, width)
    model.vision_model.embeddings.position_embedding.weight[1:] = 0.1 * table


class Matching(AbstractTask):
    """Contrastive loss over pictures and captions, hard negatives, and helps that are dropped afterwards: factor
    heads on pictures and captions, heads that read off a noun what is said of it, and the element reader as a teacher
    whose feature maps the patches learn to predict (a transformer alone needs ten times the pictures a convolutional
    network needs).

    Source: 2103.00020, Figure 3; hard negatives as in 2210.01936, section 4; the helps are ours.
    """

    def __init__(
        self, images: np.ndarray, labels: dict[str, np.ndarray], seed: int, tokenizer: CLIPTokenizer, batch: int = 64,
        teacher: ElementReader | None = None, negatives: int = 3, bf16: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model = build_clip(tokenizer)
        width = self.model.config.vision_config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(words)) for name, words in LABELS.items()})
        kinds, told = {**LABELS, **SAID}, self.model.config.text_config.hidden_size
        self.words = nn.ModuleDict({name: nn.Linear(told, len(words)) for name, words in kinds.items()})
        self.maps = nn.ModuleDict({"features": nn.Linear(width, 128), "elements": nn.Linear(width, _elements())})
        # Not a submodule: the teacher is neither trained nor saved.
        self.teacher = (teacher,)
        self.images, self.table, self.seed, self.tokenizer = images, label_table(labels), seed, tokenizer
        self.batch, self.negatives, self.bf16 = batch, negatives, bf16
        self.rows, self.nouns = often(labels), Nouns(tokenizer)
        self.chances = np.asarray([WEIGHTS.get(factor, 1.0) for factor in FACTORS])
        self.chances /= self.chances.sum()

    def draw(self, rng: torch.Generator) -> Batch:
        rows = np.sort(self.rows[torch.randint(0, len(self.rows), (self.batch,), generator=rng).numpy()])
        draws = np.random.default_rng(int(torch.randint(0, 2**62, (1,), generator=rng)))
        texts, own = [], []
        for i, row in enumerate(rows):
            scene = scene_of(self.seed, int(row))
            full, voice = draws.random() < 0.5, int(draws.integers(0, 2**31))
            speak = describe if full else (lambda s, v=voice: caption(s, np.random.default_rng(v)))
            true = speak(scene)
            texts.append(true)
            own.append(i)
            for factor in draws.choice(FACTORS, self.negatives + 3, replace=False, p=self.chances):
                wrong = changed(scene, str(factor), draws)
                text = speak(wrong) if wrong is not None else true
                if text != true and sum(o == i for o in own) <= self.negatives:
                    texts.append(text)
                    own.append(i)
        ids = encode_captions(self.tokenizer, texts).astype(np.int64)
        ids = ids[:, : int((ids != self.tokenizer.pad_token_id).sum(1).max()) + 1]
        tokens = torch.from_numpy(ids)
        first = np.unique(np.asarray(own), return_index=True)[1]
        same = np.asarray([[texts[a] == texts[b] for b in first] for a in first])
        return {
            "x": augment(to_pixels(self.images[rows]), rng),
            "y": torch.from_numpy(self.table[rows].astype(np.int64)),
            "ids": tokens,
            **self.nouns.said(tokens),
            "own": torch.as_tensor(own),
            "first": torch.from_numpy(first),
            "same": torch.from_numpy(same),
        }

    def forward(self, batch: Batch) -> Tensor:
        with torch.autocast(batch["x"].device.type, torch.bfloat16, enabled=self.bf16):
            output = self.model.vision_model(pixel_values=batch["x"], output_hidden_states=True)
            seen = output.pooler_output
            z = self.model.visual_projection(seen)
            mask = torch.ones_like(batch["ids"])
            text = self.model.text_model(input_ids=batch["ids"], attention_mask=mask)
            read, hidden = text.pooler_output, text.last_hidden_state
            w = self.model.text_projection(read)
            said = {name: self.words[name](hidden).flatten(0, 1).float() for name in SAID}
            told = {name: self.words[name](read[batch["first"]]) for name in LABELS}
            logits = {name: head(seen) for name, head in self.heads.items()}
        z, w = functional.normalize(z.float(), dim=-1), functional.normalize(w.float(), dim=-1)
        scale = self.model.logit_scale.exp().clamp_max(100)
        scores = scale * z @ w.T
        first, own = batch["first"], batch["own"]
        row = torch.arange(len(z), device=z.device)
        # Its own hard negatives and the true captions of others; another picture's identical caption does not count.
        shown = torch.zeros_like(scores, dtype=torch.bool)
        shown[:, first] = ~batch["same"]
        shown[row, first] = True
        shown |= own[None] == row[:, None]
        by_picture = functional.cross_entropy(scores.masked_fill(~shown, -torch.inf), first)
        texts = scores[:, first].T
        alone = batch["same"] & (row[:, None] != row[None])
        by_text = functional.cross_entropy(texts.masked_fill(alone, -torch.inf), row)
        loss = by_picture + 0.5 * by_text + 0.3 * factor_loss(logits, batch["y"]) + 0.1 * factor_loss(told, batch["y"])
        for name, scores in said.items():
            loss = loss + functional.cross_entropy(scores, batch[name].flatten(), ignore_index=NO_NOUN)
        return loss + self._dense(batch["x"], output.hidden_states)

    def _dense(self, x: Tensor, hidden: tuple[Tensor, ...]) -> Tensor:
        """Squared error of two maps of the teacher, predicted from the patches: its features half-way, and what its
        heads would read at every place, where small things weigh as much as large.

        Source: 1512.04150, Eq. 1 (class activation maps).
        """
        (teacher,) = self.teacher
        if teacher is None:
            return x.new_zeros(())
        with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            large = functional.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)
            features, last = teacher.backbone(large, output_hidden_states=True).hidden_states[-2:]
            weights = torch.cat([head.weight for head in teacher.heads.values()])
            elements = torch.einsum("nchw,kc->nkhw", last.float(), weights.float())
        error = x.new_zeros(())
        for name, layer, stage in (("features", 3, features.float()), ("elements", 5, elements)):
            wanted = functional.interpolate(stage, (8, 8), mode="bilinear", align_corners=False)
            wanted = wanted.flatten(2).transpose(1, 2)
            wanted = (wanted - wanted.mean((0, 1))) / (wanted.std((0, 1)) + 0.05)
            error = error + (self.maps[name](hidden[layer][:, 1:].float()) - wanted).square().mean()
        return 3.0 * error


def _elements() -> int:
    return sum(len(words) for words in LABELS.values())

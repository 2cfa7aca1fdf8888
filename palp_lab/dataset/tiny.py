"""Held-out identities of the tiny world, addressed by class and seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from palp_lab import tinyworld
from palp_lab.dataset.concept import AbstractDataset, Concept
from palp_lab.dataset.picture_file import digest
from palp_lab.types import UserError

if TYPE_CHECKING:
    from palp_lab.types import Images

HELD_OUT = 4
"""Further photos of the subject that are never trained on (ours)."""


TARGET = "a photo of a {} wearing a red hat at night"
"""What an aligned method tunes for where no target is given (ours; the first of the quickstart's)."""


class TinyDataset(AbstractDataset):
    """One identity of the tiny world that no pretraining picture shows. Final.

    `superclass` and `seed` name it; `shots` photos are trained on, in `places` varied or the same. Every true picture
    of it can be rendered, so nothing about it is unknown.
    """

    version = 1

    def __init__(
        self,
        superclass: str = "cat",
        seed: int = 1234,
        shots: int = 4,
        places: str = "varied",
        placeholder: str = "<v>",
    ) -> None:
        if superclass not in tinyworld.CLASSES:
            raise UserError(f"dataset.superclass={superclass}: the tiny world has {', '.join(tinyworld.CLASSES)}")
        if not 1 <= shots <= 6:
            raise UserError(f"dataset.shots={shots}: must be 1 to 6")
        if places not in ("varied", "same"):
            raise UserError(f"dataset.places={places}: must be varied or same")
        self.superclass = superclass
        self.seed = seed
        self.shots = shots
        self.places = places
        self.placeholder = placeholder
        self.identity = tinyworld.sample_identity(superclass, seed, "heldout")

    def default_target(self) -> str | None:
        """One of the standard sentences, in the photos' own style."""
        return TARGET

    def concept(self) -> Concept:
        taken = tinyworld.photos(self.superclass, self.seed, self.shots, self.places)
        photos = stack([picture for picture, _ in taken])
        seen = {scene.place for _, scene in taken}
        masks = torch.from_numpy(np.stack([tinyworld.subject_mask(scene) for _, scene in taken]))
        return Concept(
            name=f"{self.superclass}_{self.seed}",
            superclass=self.superclass,
            placeholder=self.placeholder,
            photos=photos,
            digest=digest(photos),
            masks=masks,
            held_out=self._others(seen),
            description=self._description(),
            notes={"world": f"tiny world, version {tinyworld.WORLD_VERSION}", "places": ", ".join(sorted(seen))},
        )

    def true_renders(self, sentence: str, seeds: Sequence[int]) -> Images | None:
        """The subject itself in the scene of a sentence with a slot; None where the sentence asks for what this world
        does not have."""
        prompt = sentence.replace("{}", self.superclass)
        if tinyworld.parse(prompt).unknown:
            return None
        return stack([tinyworld.render(tinyworld.scene_for(self.identity, prompt, seed)) for seed in seeds])

    def redrawn(self, sentences: Sequence[str]) -> dict[str, int]:
        """What is worn in an oil painting changed in version 3 of the world. Version 2 changed photos too, and is told
        by their hashes."""
        asked = {said: tinyworld.parse(said.replace("{}", self.superclass)) for said in sentences}
        return {said: 3 for said, what in asked.items() if what.style == "oil painting" and what.accessories}

    def class_renders(self, seeds: Sequence[int]) -> Images:
        """Other members of the class, each in a place of its own."""
        made = []
        for seed in seeds:
            prompt = f"a photo of a {self.superclass} {self._place(seed)}"
            made.append(tinyworld.render(tinyworld.scene_from(prompt, 1_000_000 + seed)))
        return stack(made)

    def _others(self, seen: set[str]) -> Images:
        """Photos of the subject in places the training photos do not show."""
        phrases = [phrase for place, phrase in PLACES.items() if place not in seen]
        prompts = [f"a photo of a {self.superclass} {phrases[i % len(phrases)]}" for i in range(HELD_OUT)]
        scenes = [tinyworld.scene_for(self.identity, prompt, 2_000_000 + i) for i, prompt in enumerate(prompts)]
        return stack([tinyworld.render(scene) for scene in scenes])

    def _description(self) -> str:
        """What the world's own captions would say of the subject when they leave nothing out."""
        told = tinyworld.describe(tinyworld.scene_for(self.identity, f"a photo of a {self.superclass}", 0))
        return told.removeprefix("a photo of ").split(" ", 1)[1]

    @staticmethod
    def _place(seed: int) -> str:
        return list(PLACES.values())[seed % len(PLACES)]


def stack(pictures: Sequence[np.ndarray]) -> Images:
    """Pictures [h w 3] as one batch [n 3 h w]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def _phrases() -> dict[str, str]:
    from palp_lab.tinyworld.captions import PLACE_PHRASES

    return {place: options[0] for place, options in PLACE_PHRASES.items()}


PLACES = _phrases()
"""How a sentence names each place."""

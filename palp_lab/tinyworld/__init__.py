"""The tiny world: a procedural, captioned image world at 64 px with known factors. Needs numpy only."""

from palp_lab.tinyworld.artworks import Artwork, named_artwork, sample_artwork
from palp_lab.tinyworld.captions import WORDS, caption, describe
from palp_lab.tinyworld.factors import (
    ACCESSORIES,
    ARTWORKS,
    CLASSES,
    COLOUR_NAMES,
    FRAMINGS,
    NEGATIVE_WORDS,
    PATTERNS,
    PLACES,
    RELATIONS,
    SIZE,
    STYLES,
    WORLD_VERSION,
)  # fmt: skip
from palp_lab.tinyworld.identity import Identity, is_heldout, nearest_pretraining_identity, sample_identity
from palp_lab.tinyworld.oracle import LABELS, labels, photos, scene_for, scene_from
from palp_lab.tinyworld.parse import Elements, elements_of, parse
from palp_lab.tinyworld.render import render, subject_mask
from palp_lab.tinyworld.scene import Scene, combination_heldout, elements_heldout, sample_scene
from palp_lab.tinyworld.sets import RenderSet, captions_of, render_set, scene_of

__all__ = [
    "ACCESSORIES", "ARTWORKS", "CLASSES", "COLOUR_NAMES", "FRAMINGS", "LABELS", "NEGATIVE_WORDS", "PATTERNS", "PLACES",
    "RELATIONS", "SIZE", "STYLES", "WORDS", "WORLD_VERSION", "Artwork", "Elements", "Identity", "RenderSet", "Scene",
    "caption", "captions_of", "combination_heldout", "describe", "elements_heldout", "elements_of", "is_heldout",
    "labels", "named_artwork", "nearest_pretraining_identity", "parse", "photos", "render", "render_set",
    "sample_artwork", "sample_identity", "sample_scene", "scene_for", "scene_from", "scene_of", "subject_mask",
]  # fmt: skip

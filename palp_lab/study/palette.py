"""Colours, marks and words shared by every figure, so that a method looks the same wherever it appears.

Colours are those of Okabe and Ito (2008), which readers with any colour vision can tell apart; each method has a mark
of its own as well, so that nothing is said by colour alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#4D4D4D")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "p")
FIRST = ("palp", "ti_db")
"""The two methods of the central claim keep their colours in every study."""
BOUND_WORDS = {
    "class_word": "class word",
    "described": "described",
    "held_out_photos": "held-out photos",
    "training_photos": "copies of training photos",
    "true_renders": "true renders",
}
BOUND_SENTENCES = {
    "class_word": "The untuned model asked for the class alone: all the text, none of this subject.",
    "described": "The untuned model asked with the subject's full true description: a method that does not beat it has "
    "learned nothing that words could not say.",
    "held_out_photos": "Photos of the subject that were never trained on: how alike two real photos of it are.",
    "training_photos": "The training photos handed back unchanged: all the subject, none of the prompt.",
    "true_renders": "The true subject in the prompted scene: as good as the scorers can tell.",
}
METHOD_WORDS = {
    "palp": "PALP",
    "ti_db": "TI + DB",
    "palp_sds": "PALP, SDS",
    "palp_nfsd": "PALP, NFSD",
    "palp_control": "PALP without target",
    "palp_fresh_noise": "PALP with fresh noise",
    "palp_no_rescale": "PALP without re-scaling",
    "target_as_caption": "target as caption",
    "textual_inversion": "Textual Inversion",
    "dreambooth": "DreamBooth",
    "dreambooth_lora": "DreamBooth-LoRA",
    "custom_diffusion": "Custom Diffusion",
    "p_plus": "P+",
    "rare_adjective": "Rare Adjective",
}
INK, MUTED, FAINT = "#1f2328", "#6a7178", "#d9dde1"


@dataclass(frozen=True)
class Style:
    """How one series is drawn."""

    colour: str
    mark: str


def styles(series: Iterable[str]) -> dict[str, Style]:
    """A colour and a mark per series: palp and ti_db have theirs, with a part or setting in their names too where they
    are there once; the others follow by name. Where there are more than colours they come round again with another mark
    each, so that no two series of up to 64 look alike."""
    names = sorted(set(series))
    methods = Counter(name.split(" · ")[0] for name in names)
    own = {name: name.split(" · ")[0] for name in names if methods[name.split(" · ")[0]] == 1}
    others = [name for name in names if own.get(name, name) not in FIRST]
    slots = {name: FIRST.index(own.get(name, name)) for name in names if name not in others}
    slots |= {name: len(FIRST) + i for i, name in enumerate(others)}
    found = {}
    for name in names:
        lap, place = divmod(slots[name], len(COLOURS))
        found[name] = Style(COLOURS[place], MARKS[(place + lap) % len(MARKS)])
    return found


def words(series: str) -> str:
    """A series' name for people: the method's name in the papers, further axes by the last word of their key."""
    method, *rest = series.split(" · ")
    return " · ".join([METHOD_WORDS.get(method, method), *(_short(axis) for axis in rest)])


def _short(axis: str) -> str:
    key, _, value = axis.partition(" ")
    if key == "losses":  # "[reconstruction,prompt_alignment]": the names say what they are
        return value.strip("[]").replace("_", " ").replace(",", " + ")
    return f"{key.rpartition('.')[2].replace('_', ' ')} {value}"

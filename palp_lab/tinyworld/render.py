"""Renders a scene to a picture and to the masks of its subjects."""

from __future__ import annotations

import numpy as np

from palp_lab.tinyworld import animals, artworks, things
from palp_lab.tinyworld.accessories import WEAR
from palp_lab.tinyworld.creatures import WHITE, Wear, kit_for
from palp_lab.tinyworld.draw import Canvas, X, Y, blur, noise
from palp_lab.tinyworld.factors import SIZE, colour
from palp_lab.tinyworld.places import LIGHT, paint_place, rgb
from palp_lab.tinyworld.scene import Scene
from palp_lab.tinyworld.styles import FINISH, LOOKS, coverage

SUBJECTS = {
    "cat": animals.cat, "dog": animals.dog, "rabbit": animals.rabbit, "bear": animals.bear, "bird": animals.bird,
    "fish": animals.fish, "turtle": animals.turtle, "robot": things.robot, "teapot": things.teapot, "car": things.car,
}  # fmt: skip
"""The painter of every class."""

_SPREAD = {
    "bear": 0.97,
    "rabbit": 1.02,
    "cat": 1.06,
    "robot": 1.03,
    "fish": 1.06,
    "turtle": 0.98,
    "teapot": 1.10,
    "car": 1.04,
}
"""Size of a class relative to others, so that all cover about the same area."""
_MIDDLE = {"dog": -0.04, "fish": -0.04, "turtle": 0.08, "cat": 0.10, "bird": 0.0, "teapot": 0.0}
"""How far the middle of a class lies to the right of its feet, in its units."""

_HEAD = {"dog": 0.24, "turtle": 0.20, "bird": 0.10, "fish": 0.08, "car": 0.10}
"""How far the head of a class lies to the right of its middle, in its units."""

_HEIGHT = {"bird": 0.60, "fish": 0.45, "turtle": 0.38, "teapot": 0.36, "car": 0.38}
"""How high the head of a low class lies above its feet, in its units."""


def render(scene: Scene) -> np.ndarray:
    """The picture of ``scene``, uint8 [64, 64, 3]."""
    picture, _ = _paint(scene)
    return picture


def subject_mask(scene: Scene, index: int = 0) -> np.ndarray:
    """Where subject ``index`` is visible, accessories included; bool [64, 64]."""
    _, canvas = _paint(scene)
    if canvas is None or index >= len(canvas.subjects):
        raise IndexError(f"the scene has {len(scene.subjects)} subjects, there is no subject {index}")
    mask = canvas.subjects[index] > 0.5
    for later in range(len(canvas.subjects)):
        if _order(scene).index(later) > _order(scene).index(index):
            mask &= canvas.subjects[later] <= 0.5
    return mask


def detail_map(scene: Scene, cells: int = 16) -> np.ndarray:
    """Where small things are: uint8 [cells, cells], 255 where all of a cell is worn or held, 102 where all of it is
    subject, 0 where neither is. What a generator's loss weighs more (ours)."""
    _, canvas = _paint(scene)
    detail = np.zeros((SIZE, SIZE), np.float32)
    if canvas is not None:
        for mask in canvas.subjects:
            detail = np.maximum(detail, 0.4 * (mask > 0.5))
        if canvas.worn is not None:
            detail = np.maximum(detail, canvas.worn.astype(np.float32))
    side = SIZE // cells
    return (detail.reshape(cells, side, cells, side).mean((1, 3)) * 255.0 + 0.5).astype(np.uint8)


def _order(scene: Scene) -> list[int]:
    """Back to front."""
    return list(range(len(scene.subjects)))[::-1]


def _paint(scene: Scene) -> tuple[np.ndarray, Canvas | None]:
    rng = np.random.default_rng([555, scene.seed])
    pose = rng.uniform(-1.0, 1.0, 12)
    flips = rng.random(2) < 0.5
    if not scene.subjects:
        return _to_bytes(artworks.abstract_painting(artworks.by_name(scene.artwork), rng)), None
    canvas = Canvas(LOOKS[scene.style])
    paint_place(canvas, scene.place, rng)
    if canvas.look.shading >= 0.8:
        canvas.rgb = blur(canvas.rgb)
    placed: dict[int, np.ndarray] = {}
    for index in _order(scene):
        _paint_subject(canvas, scene, index, pose[4 * index : 4 * index + 4], bool(flips[index]), pose[8:])
        placed[index] = canvas.subjects[-1]
    canvas.subjects = [placed[i] for i in range(len(scene.subjects))]
    if scene.framing == "clean":
        _sparkle(canvas, rng)
    out = FINISH[scene.style](canvas, rng)
    if canvas.stain is not None:
        out = out + canvas.stain[..., None] * (rgb(98, 70, 38) - out)
    if scene.artwork:
        out = artworks.recolour(np.clip(out, 0.0, 1.0), coverage(canvas), artworks.by_name(scene.artwork), rng)
    if scene.framing == "dark":
        out = out * 0.42
    elif scene.framing == "bright":
        out = 1.0 - (1.0 - np.clip(out, 0.0, 1.0)) * 0.6 + 0.06
    elif canvas.look.shading >= 0.8:
        out = out * (1.0 + 0.06 * pose[11])
    if scene.degradation:
        out = _degrade(np.clip(out, 0.0, 1.0), scene.degradation, rng)
    return _to_bytes(out), canvas


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return (np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _paint_subject(
    canvas: Canvas, scene: Scene, index: int, pose: np.ndarray, flip: bool, together: np.ndarray
) -> None:
    identity = scene.subjects[index]
    size = 46.5 * _SPREAD.get(identity.superclass, 1.0) * (1.0 + 0.08 * pose[0])
    x, y, angle, stretch = 32.0 + 3.5 * pose[1], 57.5 + 1.5 * pose[2], 0.07 * pose[3], (1.0, 1.0)
    worn = scene.accessories if index == 0 else ()
    if any(name in ("hat", "crown") for name, _ in worn):
        size *= 0.94
    if scene.relation == "next to":
        side = (-1.0 if together[0] < 0 else 1.0) * (1.0 if index == 0 else -1.0)
        size, x = size * 0.70, 32.0 + side * 14.5 + 1.2 * pose[1]
    elif scene.relation == "in front of":
        side = -1.0 if together[0] < 0 else 1.0
        if index == 0:
            size, x, y = size * 0.70, 32.0 - side * 11.0 + 1.0 * pose[1], y + 2.0
        else:
            size, x, y = size * 0.88, 32.0 + side * 9.0 + 1.0 * pose[1], y - 9.0
    elif scene.framing == "close-up":
        size *= 1.65
        y = min(77.0, 30.0 + _HEIGHT.get(identity.superclass, 1.0) * size) + 2.0 * pose[2]
        y += 7.0 if any(name in ("hat", "crown") for name, _ in worn) else 0.0
        # The head is what a close-up shows: wide subjects step back so that it is in the middle.
        x -= _HEAD.get(identity.superclass, 0.0) * size * (-1.0 if flip else 1.0)
    elif scene.framing == "far away":
        size, x, y = size * 0.54, x + 5.0 * pose[1], 50.0 + 2.0 * pose[2]
    elif scene.framing == "small":
        size = size * 0.66
    elif scene.framing == "large":
        size, y = size * 1.2, y + 2.0
    elif scene.framing == "cropped":
        # Those in profile keep their head in the picture.
        side = (1.0 if flip else -1.0) if identity.superclass in _HEAD else (1.0 if together[0] < 0 else -1.0)
        size, x = size * 1.15, 32.0 + 23.0 * side + 2.0 * pose[1]
    elif scene.framing == "weird":
        stretch, angle = ((1.38, 0.66) if together[0] < 0 else (0.66, 1.15)), angle * 3.0
    x -= _MIDDLE.get(identity.superclass, 0.0) * size * (-1.0 if flip else 1.0)
    canvas.subject_frame(x, y, size, angle, flip, stretch)
    if canvas.look.shading >= 0.8:
        _shadow(canvas, x, y, size * stretch[0], lifted=identity.superclass == "fish")
    kit = kit_for(canvas, identity, float(pose[3]))
    wear: Wear = SUBJECTS[identity.superclass](canvas, kit)
    if scene.framing == "dirty":
        canvas.stain = _mud(canvas, np.random.default_rng([557, scene.seed]))
    bare = canvas.rgb.copy()
    for name, word in sorted(worn, key=lambda pair: pair[0] == "balloon", reverse=True):
        WEAR[name](canvas, wear, colour(word))
    if worn:
        canvas.worn = np.abs(canvas.rgb - bare).max(-1) > 0.02
    light = LIGHT.get(scene.place)
    if light is not None and canvas.look.shading >= 0.8:
        canvas.rgb *= 1.0 + canvas.mask[..., None] * (light - 1.0)  # type: ignore[index]


def _shadow(canvas: Canvas, x: float, y: float, size: float, lifted: bool) -> None:
    """A soft contact shadow on the ground."""
    spread = np.hypot((X - x) / (0.42 * size), (Y - y - (2.0 if lifted else 0.0)) / 3.6)
    canvas.rgb *= (1.0 - (0.22 if lifted else 0.38) * np.clip(1.3 - spread, 0.0, 1.0))[..., None]


def _mud(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Coverage of mud blotches over the subjects, under what they wear; float32 [64, 64]."""
    field = noise(rng, 9) + 0.5 * noise(rng, 5)
    return coverage(canvas)[..., 0] * np.clip((field - 0.12) * 6.0, 0.0, 1.0) * 0.85


def _sparkle(canvas: Canvas, rng: np.random.Generator) -> None:
    """Four-pointed white glints around the subject."""
    canvas.place_frame()
    for x, y in ((11, 30), (53, 26), (46, 12)):
        x, y = x + rng.uniform(-3, 3), y + rng.uniform(-3, 3)
        points = [(0, -6), (1.2, -1.2), (6, 0), (1.2, 1.2), (0, 6), (-1.2, 1.2), (-6, 0), (-1.2, -1.2)]
        canvas.polygon([(x + a, y + b) for a, b in points], WHITE, shade=False)


def _degrade(out: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    if kind == "blur":
        return blur(out, 9)
    if kind == "low contrast":
        return 0.46 + 0.24 * (blur(out, 1) - 0.46)
    if kind == "noise":
        return out + 0.11 * rng.standard_normal((SIZE, SIZE, 3)).astype(np.float32)
    if kind == "darkness":
        gray = out.mean(axis=-1, keepdims=True)
        return 0.26 * (0.4 * out + 0.6 * gray)
    coarse = out.reshape(SIZE // 4, 4, SIZE // 4, 4, 3).mean(axis=(1, 3))
    return np.repeat(np.repeat(coarse, 4, axis=0), 4, axis=1)

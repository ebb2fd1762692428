"""The furnished room of the demo: 6 m along x, 4.5 m along y, 2.7 m high, z up, one corner at the origin.

The wall at y = 4.5 is one rectangle with nothing before it, so that a camera facing it sees a plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import cv2
import numpy as np
from numpy.typing import ArrayLike

from feature_matcher_ros.datatypes import Image
from feature_matcher_ros.evaluation import procedural_textures as textures
from feature_matcher_ros.evaluation.scene_renderer import Quad

Paint = Callable[[int, int, np.random.Generator], Image]  # (width, height, rng) in texels

ROOM_M = (6.0, 4.5, 2.7)
TEXELS_PER_M = 340.0
# How much light falls on a face: a lamp in the middle of the ceiling, a window in the west.
_LIGHT = {"up": 1.0, "west": 0.95, "north": 0.85, "south": 0.75, "east": 0.65, "down": 0.5}
_SIDES = ("north", "south", "west", "east")


def demo_room(seed: int = 0, *, texels_per_m: float = TEXELS_PER_M) -> list[Quad]:
    """The room as textured rectangles; the same seed gives the same room."""
    rng = np.random.default_rng(seed)
    quads = _box((0, 0, 0), ROOM_M, _walls(texels_per_m), rng, texels_per_m, inside=True)
    for low, size, paint in _furniture(texels_per_m):
        quads += _box(low, size, paint, rng, texels_per_m)
    return quads


def _box(
    low: ArrayLike,
    size: ArrayLike,
    paint: Mapping[str, Paint],
    rng: np.random.Generator,
    texels_per_m: float,
    *,
    inside: bool = False,
) -> list[Quad]:
    """A box at its lowest corner, seen from outside or from inside; faces without paint are left out."""
    low = np.asarray(low, np.float64)
    x, y, z = np.diag(np.asarray(size, np.float64))
    faces = {  # top-left corner, way to the right and way down, seen from outside
        "south": (low + z, x, -z),
        "north": (low + x + y + z, -x, -z),
        "west": (low + y + z, -y, -z),
        "east": (low + x + z, y, -z),
        "up": (low + y + z, x, -y),
        "down": (low, x, y),
    }
    quads = []
    for name, paint_face in paint.items():
        corner, right, down = faces[name]
        if inside:
            corner, right = corner + right, -right
        width, height = (max(4, round(float(np.linalg.norm(edge)) * texels_per_m)) for edge in (right, down))
        texture = paint_face(width, height, rng)
        if not inside:
            texture = textures.shaded(texture, np.full((height, width), _LIGHT[name], np.float32))
        quads.append(Quad(corner, right, down, texture))
    return quads


def _walls(texels_per_m: float) -> dict[str, Paint]:
    unit = texels_per_m / TEXELS_PER_M
    posters = partial(_with_posters, base=textures.plaster, num_posters=9, side=0.5 * texels_per_m)
    brick = partial(textures.bricks, course=26.0 * unit)
    walls: dict[str, Paint] = {
        "north": partial(_with_posters, base=brick, num_posters=7, side=0.4 * texels_per_m),
        "south": posters,
        "west": posters,
        "east": partial(posters, num_posters=5),
        "up": partial(textures.plaster, color=(225, 230, 232)),  # the ceiling
        "down": partial(textures.planks, board=round(46 * unit)),  # the floor
    }
    return {name: partial(_dim_corners, base=paint, reach=60.0 * unit) for name, paint in walls.items()}


def _furniture(texels_per_m: float) -> Iterator[tuple[ArrayLike, ArrayLike, dict[str, Paint]]]:
    """Lowest corner, size and paint of every box in the room."""
    unit = texels_per_m / TEXELS_PER_M
    wood: Paint = partial(textures.planks, board=round(60 * unit), color=(84, 130, 176))
    books: Paint = partial(textures.book_spines, shelf=round(0.33 * texels_per_m))
    leaves: Paint = partial(textures.dead_leaves, min_radius=4.0 * unit, max_radius=70.0 * unit)
    desk: Paint = partial(_with_posters, base=wood, num_posters=6, side=0.2 * texels_per_m)
    stone: Paint = partial(textures.bricks, course=40.0 * unit)
    yield (5.65, 1.1, 0.0), (0.35, 2.0, 2.05), _sides(wood) | {"west": books, "up": wood}
    yield (2.9, 0.6, 0.005), (2.4, 1.9, 0.005), {"up": textures.rug}
    yield (3.7, 1.1, 0.68), (1.25, 0.75, 0.05), _sides(wood) | {"up": desk}
    for x, y in ((3.72, 1.12), (4.87, 1.12), (3.72, 1.77), (4.87, 1.77)):
        yield (x, y, 0.0), (0.06, 0.06, 0.68), _sides(wood)
    yield (4.55, 1.2, 0.73), (0.06, 0.55, 0.38), _sides(textures.plaster) | {"west": leaves}
    yield (4.05, 1.5, 0.73), (0.22, 0.16, 0.2), _sides(_crate) | {"up": _crate}
    yield (3.95, 1.15, 0.73), (0.16, 0.24, 0.07), _sides(books) | {"up": textures.poster}
    yield (2.3, 0.02, 0.0), (1.1, 0.45, 0.85), _sides(wood) | {"up": desk}
    yield (2.6, 0.1, 0.85), (0.4, 0.25, 0.3), _sides(_crate) | {"up": _crate}
    yield (5.2, 0.35, 0.0), (0.32, 0.32, 2.7), _sides(stone)
    yield (5.35, 3.45, 0.0), (0.6, 0.6, 0.55), _sides(_crate) | {"up": _crate}
    yield (5.45, 3.55, 0.55), (0.42, 0.38, 0.4), _sides(_crate) | {"up": _crate}
    yield (4.6, 2.55, 0.0), (0.5, 0.45, 0.45), _sides(leaves) | {"up": leaves}
    yield (3.3, 2.1, 2.15), (0.35, 0.35, 0.22), _sides(textures.poster) | {"down": leaves}


def _sides(paint: Paint) -> dict[str, Paint]:
    return dict.fromkeys(_SIDES, paint)


def _with_posters(
    width: int, height: int, rng: np.random.Generator, *, base: Paint, num_posters: int, side: float
) -> Image:
    """Spread posters over a wall, one to a column, so that none hides another."""
    wall = base(width, height, rng)
    column = width / num_posters
    for number in range(num_posters):
        poster_width = int(min(side * rng.uniform(0.7, 1.3), 0.9 * column))
        poster_height = int(min(poster_width * rng.uniform(0.8, 1.5), 0.7 * height))
        left = int(number * column + rng.uniform(0, 1) * (column - poster_width))
        top = int(rng.uniform(0.1, 0.75) * (height - poster_height))
        textures.paste(wall, textures.poster(poster_width, poster_height, rng), left, top)
    return wall


def _crate(width: int, height: int, rng: np.random.Generator) -> Image:
    """A cardboard box with tape and a label."""
    side = textures.plaster(width, height, rng, color=(104, 148, 188))
    tape = int(height * rng.uniform(0.3, 0.6))
    cv2.rectangle(side, (0, tape), (width, tape + height // 12), (150, 186, 204), -1)
    label = textures.poster(max(width // 2, 20), max(height // 2, 20), rng)
    textures.paste(side, label, int(width * rng.uniform(0.1, 0.4)), int(height * rng.uniform(0.05, 0.4)))
    return side


def _dim_corners(width: int, height: int, rng: np.random.Generator, *, base: Paint, reach: float) -> Image:
    return textures.darkened_borders(base(width, height, rng), reach=reach)

"""Textures made of numbers alone: seeded, rich in distinct features, without repetition.

Each function returns a BGR image (height, width, 3) and draws every random choice from ``rng``.
"""

from __future__ import annotations

import string

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Image

Color = tuple[int, int, int]  # blue, green, red
Noise = NDArray[np.float32]
Rng = np.random.Generator

_SHIFT = 4  # drawing positions are given in sixteenths of a pixel
_BORDER_SHADE = 0.45  # of a wall at its borders
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)


def fractal_noise(width: int, height: int, rng: Rng, *, cell: float, octaves: int = 5, stretch: float = 1.0) -> Noise:
    """Noise (height, width) in [0, 1]: random grids, each half as coarse and 0.6 as strong as the one before.

    ``cell`` is the size in pixels of the coarsest grid, ``stretch`` how much longer it is along x.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        size = max(1.0, cell / 2**octave)
        grid = rng.random((int(height / size) + 2, int(width / (size * stretch)) + 2), dtype=np.float32) - 0.5
        total += 0.6**octave * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    low, high = np.percentile(total[::4, ::4], (1, 99))
    return np.clip((total - low) / max(high - low, 1e-6), 0.0, 1.0).astype(np.float32)


def blend(weight: Noise, dark: Color, light: Color) -> Image:
    """Mix two colours by a weight (H, W) in [0, 1]."""
    ramp = np.linspace(0.0, 1.0, 256)[:, None] * (np.array(light) - np.array(dark)) + np.array(dark)
    return np.asarray(np.take(np.rint(ramp).astype(np.uint8), np.rint(weight * 255).astype(np.uint8), axis=0))


def shaded(image: Image, weight: Noise) -> Image:
    """Multiply an image by a weight (H, W)."""
    return np.asarray(np.clip(image * weight[..., None], 0, 255).astype(np.uint8))


def plaster(width: int, height: int, rng: Rng, color: Color = (196, 214, 222)) -> Image:
    """A painted wall with stains, cracks and pits."""
    stains = fractal_noise(width, height, rng, cell=180.0, octaves=7)
    wall = blend(stains, _darker(color, 0.72), color)
    for _ in range(width * height // 40_000):
        crack = np.cumsum(rng.normal(0, 5, (14, 2)), axis=0) + rng.random(2) * (width, height)
        cv2.polylines(wall, [np.int32(crack * 16)], False, _darker(color, 0.5), 1, cv2.LINE_AA, _SHIFT)
    return _speckled(wall, rng, density=1 / 1500, max_radius=3.5)


def bricks(width: int, height: int, rng: Rng, *, course: float = 24.0) -> Image:
    """A brick wall in which no brick has the shade and size of another; ``course`` is the height of a row."""
    wall = blend(fractal_noise(width, height, rng, cell=9.0, octaves=3), (120, 128, 132), (170, 178, 182))
    for top in np.arange(0.0, height, course):
        left = -rng.random() * 3 * course
        while left < width:
            length = course * rng.uniform(1.9, 3.3)
            shade = rng.uniform(0.55, 1.25)
            color = tuple(int(np.clip(c * shade + rng.normal(0, 8), 0, 255)) for c in (62, 78, 142))
            corners = np.array([[left, top], [left + length, top], [left + length, top + course], [left, top + course]])
            inset = np.array([[2, 2], [-2, 2], [-2, -2], [2, -2]]) + rng.normal(0, 0.9, (4, 2))
            cv2.fillConvexPoly(wall, np.int32((corners + inset) * 16), color, cv2.LINE_AA, _SHIFT)
            left += length
    wear = fractal_noise(width, height, rng, cell=60.0, octaves=6)
    return _speckled(shaded(wall, 0.65 + 0.55 * wear), rng, density=1 / 700, max_radius=3.0)


def planks(width: int, height: int, rng: Rng, *, board: int = 48, color: Color = (70, 110, 158)) -> Image:
    """A floor of boards along x, each with its own grain, shade and knots."""
    floor = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, board):
        left = -int(rng.integers(0, 6 * board))
        while left < width:
            length = int(board * rng.uniform(5, 11))
            right, bottom = min(left + length, width), min(top + board, height)
            if right > 0:
                floor[top:bottom, max(left, 0) : right] = _board(right - max(left, 0), bottom - top, rng, color)
            left += length
    return _speckled(floor, rng, density=1 / 2500, max_radius=4.0)


def dead_leaves(width: int, height: int, rng: Rng, *, min_radius: float = 5.0, max_radius: float = 60.0) -> Image:
    """Overlapping shapes with the sizes of natural images.

    Source: A. B. Lee, D. Mumford, J. Huang, Occlusion Models for Natural Images, IJCV 2001: the density
    of a radius r goes with r^-3.
    """
    image = blend(fractal_noise(width, height, rng, cell=40.0), (40, 40, 40), (200, 200, 200))
    num_leaves = int(6.0 * width * height / (np.pi * min_radius * max_radius))
    share = rng.random(num_leaves)
    radii = 1.0 / np.sqrt((1 - share) / min_radius**2 + share / max_radius**2)
    for radius in -np.sort(-radii):
        _leaf(image, radius, rng)
    return shaded(image, 0.8 + 0.35 * fractal_noise(width, height, rng, cell=16.0, octaves=4))


def poster(width: int, height: int, rng: Rng) -> Image:
    """A printed sheet: a picture, a headline and lines of text."""
    paper = _random_color(rng, low=150)
    sheet = blend(fractal_noise(width, height, rng, cell=width / 2.0, octaves=3), _darker(paper, 0.85), paper)
    margin, split = max(2, width // 14), int(height * rng.uniform(0.4, 0.6))
    picture = dead_leaves(width - 2 * margin, split, rng, max_radius=width / 6)
    sheet[margin : margin + split, margin : width - margin] = picture
    _write(sheet, _words(rng, 9), margin, split + 3 * margin, 1.6 * margin, (20, 20, int(rng.integers(20, 160))))
    for row in np.arange(split + 4.5 * margin, height - margin, 1.1 * margin):
        _write(sheet, _words(rng, 60), margin, row, 0.8 * margin, (40, 40, 40))
    edge = margin // 2  # text ends before it
    sheet[:, width - edge :] = sheet[:, :edge]
    return cv2.rectangle(sheet, (0, 0), (width - 1, height - 1), _darker(paper, 0.3), 2)


def book_spines(width: int, height: int, rng: Rng, *, shelf: int = 110) -> Image:
    """Shelves full of books."""
    image = blend(fractal_noise(width, height, rng, cell=30.0), (10, 16, 24), (34, 46, 60))
    for bottom in range(height, 0, -shelf):
        image[max(bottom - 8, 0) : bottom] = _board(width, bottom - max(bottom - 8, 0), rng, (60, 96, 136))
        left = 3.0
        while left < width:
            thickness = rng.uniform(0.08, 0.26) * shelf
            tall = int(rng.uniform(0.6, 0.86) * shelf)
            top, foot, right = max(bottom - 8 - tall, 0), bottom - 8, min(int(left + thickness), width)
            if foot > top and right - int(left) > 2:
                image[top:foot, int(left) : right] = _spine(right - int(left), foot - top, rng)
            left += thickness + (rng.uniform(0, 0.15) * shelf if rng.random() < 0.15 else 0)
    return image


def rug(width: int, height: int, rng: Rng) -> Image:
    """Woven nested frames around a field of random patches."""
    image = dead_leaves(width, height, rng, min_radius=6.0, max_radius=34.0)
    for inset in range(0, min(width, height) // 5, 14):
        color = _random_color(rng)
        cv2.rectangle(image, (inset, inset), (width - 1 - inset, height - 1 - inset), color, int(rng.integers(3, 11)))
    return shaded(image, 0.75 + 0.45 * rng.random((height, width), dtype=np.float32))


def paste(wall: Image, picture: Image, left: int, top: int) -> None:
    """Put a picture onto a wall, with the shadow that it throws; what does not fit is cut off."""
    height, width = picture.shape[:2]
    for grow in (5, 3, 1):
        shadow = wall[top + grow : top + height + grow, left + grow : left + width + grow]
        np.multiply(shadow, 0.85, out=shadow, casting="unsafe")
    part = wall[top : top + height, left : left + width]
    part[:] = picture[: part.shape[0], : part.shape[1]]


def darkened_borders(image: Image, *, reach: float) -> Image:
    """Darken towards the borders, as walls are towards the corners of a room; ``reach`` is in pixels."""
    height, width = image.shape[:2]
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    fade_x = 1 - _BORDER_SHADE * (np.exp(-x / reach) + np.exp(-(width - 1 - x) / reach))
    fade_y = 1 - _BORDER_SHADE * (np.exp(-y / reach) + np.exp(-(height - 1 - y) / reach))
    return shaded(image, np.maximum(fade_y[:, None] * fade_x[None, :], 0.0))


def _speckled(image: Image, rng: Rng, *, density: float, max_radius: float) -> Image:
    """Add round spots, each a little darker or lighter than what is below it."""
    height, width = image.shape[:2]
    for x, y, radius, level in rng.random((int(width * height * density), 4)):
        below = image[int(y * height), int(x * width)].tolist()
        color = _darker((below[0], below[1], below[2]), 0.35 + 0.45 * level if level < 0.75 else 0.75 + 0.9 * level)
        center = int(x * width * 16), int(y * height * 16)
        cv2.circle(image, center, int((0.8 + radius * max_radius) * 16), color, -1, cv2.LINE_AA, _SHIFT)
    return image


def _board(width: int, height: int, rng: Rng, color: Color) -> Image:
    grain = fractal_noise(width, height, rng, cell=max(height / 3.0, 2.0), octaves=4, stretch=8.0)
    shade = rng.uniform(0.65, 1.2)
    board = blend(grain, _darker(color, 0.5 * shade), _darker(color, shade))
    board[:, -1:] = board[-1:] = _darker(color, 0.25)
    return board


def _leaf(image: Image, radius: float, rng: Rng) -> None:
    height, width = image.shape[:2]
    center, color = rng.random(2) * (width, height), _random_color(rng)
    if rng.random() < 0.4:
        axes = int(radius * 16), int(radius * rng.uniform(0.4, 1.0) * 16)
        angle = float(rng.uniform(0, 180))
        cv2.ellipse(image, np.int32(center * 16).tolist(), axes, angle, 0, 360, color, -1, cv2.LINE_AA, _SHIFT)
        return
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
    corners = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cv2.fillConvexPoly(image, np.int32(corners * 16), color, cv2.LINE_AA, _SHIFT)


def _spine(width: int, height: int, rng: Rng) -> Image:
    color = _random_color(rng)
    spine = np.full((width, height, 3), color, np.uint8)  # lying, so that the title can be written along it
    ink = (235, 235, 235) if sum(color) < 380 else (20, 20, 20)
    for place in rng.uniform(0.02, 0.98, 3):
        spine[:, int(place * height) :][:, : int(rng.integers(1, 5))] = _random_color(rng)
    _write(spine, _words(rng, 12), int(0.1 * height), 0.72 * width, 0.62 * width, ink)
    return np.ascontiguousarray(np.rot90(spine, 3))


def _write(image: Image, text: str, left: int, baseline: float, size: float, color: Color) -> None:
    font = _FONTS[len(text) % len(_FONTS)]
    cv2.putText(image, text, (left, int(baseline)), font, size / 22.0, color, max(1, int(size / 12)), cv2.LINE_AA)


def _words(rng: Rng, length: int) -> str:
    letters = rng.choice(list(string.ascii_letters + string.digits + "     "), length)
    return "".join(letters)


def _random_color(rng: Rng, low: int = 10) -> Color:
    level = rng.uniform(low, 245)
    blue, green, red = np.clip(level + rng.normal(0, 28, 3), 0, 255).astype(int).tolist()
    return blue, green, red


def _darker(color: Color, factor: float) -> Color:
    blue, green, red = (int(np.clip(c * factor, 0, 255)) for c in color)
    return blue, green, red

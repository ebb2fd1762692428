"""A small renderer of textured rectangles: images with exact depth, for scenes whose truth is known.

The ray through every pixel centre is intersected with every rectangle, and the nearest hit wins. In the
axes of the camera, a rectangle with corner ``o`` and edges ``a`` and ``b`` is hit by ``r = (x, y, 1)``
where ``z r = o + s a + t b``; hence ``(s, t, 1) / z = inverse([a b o]) r``: one 3x3 matrix per rectangle
gives the place on it and the inverse depth. Textures are read from a pyramid of halved images
(L. Williams, Pyramidal Parametrics, SIGGRAPH 1983), and the pixels along outlines are rendered again
with several rays each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Camera, Float, Image
from feature_matcher_ros.errors import ImageError
from feature_matcher_ros.geometry import normalize_points

Map = NDArray[np.float32]
Part = tuple[slice, slice] | EllipsisType

PYRAMID_LEVELS = 6
GUTTER = 2 ** (PYRAMID_LEVELS - 1)  # texels around each texture, so that no level mixes it with its neighbours
ATLAS_WIDTH = 8192
MAX_ATLAS_HEIGHT = 16000  # the pyramid takes twice that, and cv2.remap reads no more than 32767 rows
NEAREST_M = 0.01  # what lies closer to the camera may be left out
SEAM = 0.01  # texels by which quads reach over their border, lest a ray slip between two that meet there
# Where the rays of a pixel on an outline pass, seen from its centre: a rotated grid.
SUBPIXELS = ((-0.375, -0.125), (-0.125, 0.375), (0.125, -0.375), (0.375, 0.125))
_BATCH = 8192  # outline pixels at a time


@dataclass(frozen=True, slots=True, eq=False)
class Quad:
    """A textured rectangle in the world, visible from the side from which its texture reads correctly.

    Seen from there, ``edge_s`` runs along the rows of the texture and ``edge_t`` down its columns.
    """

    corner: Float  # (3,), metres; the top-left corner of the top-left texel
    edge_s: Float  # (3,), metres
    edge_t: Float  # (3,), metres
    texture: Image  # (H, W) grey or (H, W, 3) BGR


@dataclass(frozen=True, slots=True, eq=False)
class RenderedView:
    """What a camera sees."""

    image: Image  # (H, W) grey or (H, W, 3) BGR; black where nothing is
    depth_m: Map  # (H, W) along the optical axis, at the pixel centres; NaN where nothing is
    quad_index: NDArray[np.int16]  # (H, W), into the quads of the scene; -1 where nothing is


class Scene:
    """Rectangles, with their textures packed into one atlas and its pyramid.

    Raises:
        ImageError: the textures do not fit the atlas.
    """

    def __init__(self, quads: Sequence[Quad], *, color: bool = False) -> None:
        self.quads = tuple(quads)
        textures = {id(quad.texture): _as_color(quad.texture, color) for quad in quads}
        places, height = _pack(textures)
        self.level_start = np.cumsum([0] + [height >> level for level in range(PYRAMID_LEVELS - 1)])  # rows
        self.pyramid = _build_pyramid([(textures[key], places[key]) for key in textures], height)
        self._geometry = np.array([[quad.corner, quad.edge_s, quad.edge_t] for quad in quads], np.float64)
        size = np.array([quad.texture.shape[1::-1] for quad in quads])
        start = np.array([places[id(quad.texture)] for quad in quads])
        self._start, self._size = start, size  # (N, 2) texels in the atlas

    def atlas_from_ray(self, world_from_cam: Float) -> Float:
        """Matrices (N, 3, 3), ray to (atlas x, atlas y, 1) / depth; NaN where a quad shows its back."""
        rotation, center = world_from_cam[:3, :3], world_from_cam[:3, 3]
        corner = (self._geometry[:, 0] - center) @ rotation
        edge_s, edge_t = self._geometry[:, 1] @ rotation, self._geometry[:, 2] @ rotation
        plane = np.stack([edge_s, edge_t, corner], axis=2)
        visible = np.linalg.det(plane) > 1e-9
        matrices = np.full(plane.shape, np.nan)
        matrices[visible] = np.linalg.inv(plane[visible])
        matrices[:, :2] = matrices[:, :2] * self._size[:, :, None] + matrices[:, 2:] * self._start[:, :, None]
        return matrices

    def loops(self, world_from_cam: Float) -> Float:
        """The corners (N, 4, 3) of the quads in the axes of a camera, each in the order of a loop."""
        corner, edge_s, edge_t = self._geometry.transpose(1, 0, 2)
        loop = np.stack([corner, corner + edge_s, corner + edge_s + edge_t, corner + edge_t], axis=1)
        return (loop - world_from_cam[:3, 3]) @ world_from_cam[:3, :3]

    def texels(self, quad: int) -> Map:
        """The part of the atlas (x0, y0, x1, y1) that belongs to a quad, and the seam around it."""
        start = self._start[quad]
        return np.concatenate([start - SEAM, start + self._size[quad] + SEAM]).astype(np.float32)

    def read(self, x: Map, y: Map, level: Map) -> Image:
        """Colours at atlas positions (H, W), blended between the two nearest pyramid levels."""
        level = np.clip(level, 0.0, PYRAMID_LEVELS - 1.001)
        finer = level.astype(np.int8)
        weight = level - finer
        image = cv2.blendLinear(self._at_level(x, y, finer), self._at_level(x, y, finer + 1), 1 - weight, weight)
        return np.asarray(image, dtype=np.uint8)

    def _at_level(self, x: Map, y: Map, level: NDArray[np.int8]) -> Image:
        scale = np.take(0.5 ** np.arange(PYRAMID_LEVELS, dtype=np.float32), level)
        row = np.take((self.level_start - 0.5).astype(np.float32), level)
        return np.asarray(cv2.remap(self.pyramid, x * scale - 0.5, y * scale + row, cv2.INTER_LINEAR))


class RayGrid:
    """The rays of a camera's pixels, computed once; its lens may distort."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        pixels = np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), axis=-1).reshape(-1, 2)
        rays = normalize_points(pixels.astype(np.float64), camera).reshape(camera.height, camera.width, 2)
        self.x, self.y = rays[..., 0].astype(np.float32), rays[..., 1].astype(np.float32)
        self._right = np.asarray(np.gradient(rays, axis=1), np.float32)  # change of the ray per pixel
        self._down = np.asarray(np.gradient(rays, axis=0), np.float32)
        self._columns = self.x.min(axis=0), self.x.max(axis=0)
        self._rows = self.y.min(axis=1), self.y.max(axis=1)
        self.pixel_area = float(1.0 / (camera.K[0, 0] * camera.K[1, 1]))  # of a pixel, at unit depth

    def region(self, loop: Float) -> tuple[slice, slice] | None:
        """Rows and columns that hold all of a planar loop (4, 3) in the axes of the camera."""
        outline = _clip_near(loop)
        if len(outline) == 0:
            return None
        low, high = outline.min(axis=0), outline.max(axis=0)
        rows = _overlap(self._rows, low[1], high[1])
        columns = _overlap(self._columns, low[0], high[0])
        return None if rows is None or columns is None else (rows, columns)

    def around(self, pixels: tuple[NDArray[np.intp], NDArray[np.intp]]) -> tuple[Map, Map]:
        """Rays (len(SUBPIXELS), N) spread over each of N pixels, given by rows and columns."""
        rays = np.stack([self.x[pixels], self.y[pixels]], axis=-1)
        right, down = self._right[pixels], self._down[pixels]
        spread = np.stack([rays + dx * right + dy * down for dx, dy in SUBPIXELS])
        return np.ascontiguousarray(spread[..., 0]), np.ascontiguousarray(spread[..., 1])


class _Hits:
    """What a set of rays meets, filled in one quad after the other."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.inverse_depth = np.zeros(shape, np.float32)
        self.quad = np.full(shape, -1, np.int16)
        self.x = np.zeros(shape, np.float32)  # atlas position divided by depth
        self.y = np.zeros(shape, np.float32)

    def add(self, quad: int, rays: tuple[Map, Map], matrix: Map, texels: Map, part: Part = ...) -> None:
        """Intersect the rays of one part with a quad, and keep what is nearer than before."""
        x, y, inverse_depth = (row[0] * rays[0] + (row[1] * rays[1] + row[2]) for row in matrix)
        seen = inverse_depth > self.inverse_depth[part]
        seen &= (x >= texels[0] * inverse_depth) & (x < texels[2] * inverse_depth)
        seen &= (y >= texels[1] * inverse_depth) & (y < texels[3] * inverse_depth)
        for kept, new in ((self.inverse_depth, inverse_depth), (self.x, x), (self.y, y), (self.quad, quad)):
            np.copyto(kept[part], new, where=seen, casting="unsafe")


def render_view(scene: Scene, grid: RayGrid, world_from_cam: Float) -> RenderedView:
    """Render what a camera at a place sees."""
    matrices = scene.atlas_from_ray(world_from_cam)
    hits = _Hits(grid.x.shape)
    for quad, loop in enumerate(scene.loops(world_from_cam)):
        part = None if np.isnan(matrices[quad, 2, 2]) else grid.region(loop)
        if part is not None:
            rays = grid.x[part], grid.y[part]
            hits.add(quad, rays, matrices[quad].astype(np.float32), scene.texels(quad), part)
    image = _shade(scene, hits, matrices, grid)
    _smooth_outlines(image, scene, hits, matrices, grid)
    with np.errstate(divide="ignore"):
        depth = np.where(hits.quad >= 0, 1.0 / hits.inverse_depth, np.nan).astype(np.float32)
    return RenderedView(image, depth, hits.quad)


def expose(image: Image, rng: np.random.Generator, *, gain: float = 1.0, noise_sigma: float = 2.0) -> Image:
    """What a sensor makes of an image: brighter or darker by ``gain``, with noise in grey levels."""
    noisy = rng.standard_normal(image.shape, dtype=np.float32)
    noisy *= noise_sigma
    noisy += image * np.float32(gain)
    return np.rint(np.clip(noisy, 0.0, 255.0, out=noisy), out=noisy).astype(np.uint8)


def _shade(scene: Scene, hits: _Hits, matrices: Float, grid: RayGrid) -> Image:
    # The area of a pixel in texels is det(matrix) * pixel_area * depth^3, the Jacobian of a homography;
    # half its binary logarithm is the level at which a texel is as large as the pixel.
    with np.errstate(invalid="ignore"):
        base = 0.5 * np.log2(np.linalg.det(matrices) * grid.pixel_area)
    inverse_depth: Map = np.where(hits.quad >= 0, hits.inverse_depth, np.float32(1.0))
    level = np.take(np.append(base, 0.0).astype(np.float32), hits.quad)  # -1 takes the appended one
    level -= np.float32(1.5) * np.log2(inverse_depth)
    depth: Map = np.reciprocal(inverse_depth)
    image = scene.read(hits.x * depth, hits.y * depth, level)
    image[hits.quad < 0] = 0
    return image


def _smooth_outlines(image: Image, scene: Scene, hits: _Hits, matrices: Float, grid: RayGrid) -> None:
    """Replace the pixels where two quads meet by the mean of several rays each."""
    outline = outlines(hits.quad)
    candidates = np.unique(hits.quad[outline])
    for pixels in _batches(outline):
        rays = grid.around(pixels)
        fine = _Hits(rays[0].shape)
        for quad in candidates[candidates >= 0]:
            fine.add(int(quad), rays, matrices[quad].astype(np.float32), scene.texels(quad))
        image[pixels] = np.rint(_shade(scene, fine, matrices, grid).mean(axis=0, dtype=np.float32))


def outlines(quads: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Pixels with another quad to the right, left, above or below."""
    outline = np.zeros(quads.shape, np.bool_)
    across, down = quads[:, 1:] != quads[:, :-1], quads[1:] != quads[:-1]
    outline[:, 1:] |= across
    outline[:, :-1] |= across
    outline[1:] |= down
    outline[:-1] |= down
    return outline


def _batches(marked: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows and columns of the marked pixels, some thousand at a time."""
    rows, columns = np.nonzero(marked)
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH], columns[start : start + _BATCH]


def _clip_near(loop: Float) -> Float:
    """The part of a planar loop (N, 3) in front of the camera, as normalised coordinates (M, 2)."""
    depth = loop[:, 2] - NEAREST_M
    following, following_depth = np.roll(loop, -1, axis=0), np.roll(depth, -1)
    crossing = (depth > 0) != (following_depth > 0)
    share = depth[crossing] / (depth[crossing] - following_depth[crossing])
    cut = loop[crossing] + share[:, None] * (following[crossing] - loop[crossing])
    outline = np.concatenate([loop[depth > 0], cut])
    return outline[:, :2] / outline[:, 2:]


def _overlap(spans: tuple[Map, Map], low: float, high: float) -> slice | None:
    """The rows, or columns, with a ray between low and high."""
    touched = np.flatnonzero((spans[0] <= high) & (spans[1] >= low))
    return slice(int(touched[0]), int(touched[-1]) + 1) if len(touched) else None


def _as_color(texture: Image, color: bool) -> Image:
    if color and texture.ndim == 2:
        return np.asarray(cv2.cvtColor(texture, cv2.COLOR_GRAY2BGR))
    if not color and texture.ndim == 3:
        return np.asarray(cv2.cvtColor(texture, cv2.COLOR_BGR2GRAY))
    return texture


def _pack(textures: Mapping[int, Image]) -> tuple[dict[int, tuple[int, int]], int]:
    """Place textures on shelves, the tallest first; returns their top-left texels and the height used."""
    places: dict[int, tuple[int, int]] = {}
    x = y = shelf = 0
    for key in sorted(textures, key=lambda key: -textures[key].shape[0]):
        height, width = (_aligned(side + 2 * GUTTER) for side in textures[key].shape[:2])
        if x + width > ATLAS_WIDTH:
            x, y, shelf = 0, y + shelf, 0
        if width > ATLAS_WIDTH or y + height > MAX_ATLAS_HEIGHT:
            raise ImageError(
                f"a texture of {width}x{height} texels does not fit the atlas of {ATLAS_WIDTH}x{MAX_ATLAS_HEIGHT} "
                "any more: use smaller textures."
            )
        places[key] = (x + GUTTER, y + GUTTER)
        x, shelf = x + width, max(shelf, height)
    return places, y + shelf


def _aligned(texels: int) -> int:
    """Round up, so that halving the atlas never mixes the texels of two textures."""
    return -(-texels // GUTTER) * GUTTER


def _build_pyramid(placed: Iterable[tuple[Image, tuple[int, int]]], height: int) -> Image:
    """All levels of the atlas below one another."""
    placed = list(placed)
    pyramid = np.zeros((2 * height, ATLAS_WIDTH, *placed[0][0].shape[2:]), np.uint8)
    for texture, (x, y) in placed:
        padded = cv2.copyMakeBorder(texture, GUTTER, GUTTER, GUTTER, GUTTER, cv2.BORDER_REPLICATE)
        pyramid[y - GUTTER :, x - GUTTER :][: padded.shape[0], : padded.shape[1]] = padded
    level, row = pyramid[:height], height
    for _ in range(PYRAMID_LEVELS - 1):
        level = cv2.resize(level, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        pyramid[row : row + level.shape[0], : level.shape[1]] = level
        row += level.shape[0]
    return pyramid

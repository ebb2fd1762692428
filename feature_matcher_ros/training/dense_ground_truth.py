"""Which cells, and which pixels of their windows, of two views show the same place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Float, Pixels
from feature_matcher_ros.matchers.detector_free import cell_places
from feature_matcher_ros.models.dense_config import CELL_PX
from feature_matcher_ros.training.dense_views import WINDOW_PIXELS, DenseView, window_offsets
from feature_matcher_ros.training.ground_truth import IGNORED, UNMATCHABLE
from feature_matcher_ros.training.views import ScenePoints, project

_SAME_DEPTH = 0.1  # relative difference; more, and one cell hides what the other shows
NO_PIXEL = -1


@dataclass(frozen=True, slots=True, eq=False)
class CellTargets:
    """What the cells of image 0 are to be matched with."""

    partner: NDArray[np.int64]  # (L,) cell of image 1, ``UNMATCHABLE`` or ``IGNORED``
    place: Pixels  # (L, 2), place in image 1; NaN where unknown, infinite outside


@dataclass(frozen=True, slots=True, eq=False)
class WindowTargets:
    """What the pixels in the windows of M matching cells are to be matched with."""

    cell0: NDArray[np.int64]  # (M,)
    cell1: NDArray[np.int64]  # (M,)
    pixel1: NDArray[np.int64]  # (M, 64) which one of window 1 each pixel of window 0 matches, or ``NO_PIXEL``
    fraction: NDArray[np.float32]  # (M, 64, 2) from there to the true place, in pixels


def cell_targets(view0: DenseView, view1: DenseView) -> CellTargets:
    """Mutually nearest cells: the place of either one, seen in the other image, is nearest to the other one.

    A cell is unmatchable if its place lies outside of image 1 or is hidden there by something of another depth.
    """
    place = project(view0.cell_points, view1.projection, view1.size)
    nearest = _nearest_cells(place, view1)
    returned = _nearest_cells(project(view1.cell_points, view0.projection, view0.size), view0)
    depth = _depths(view0.cell_points, view1.projection)
    seen = _depths(view1.cell_points, view1.projection)[nearest]
    with np.errstate(invalid="ignore"):
        is_hidden = (nearest >= 0) & (np.abs(seen - depth) > _SAME_DEPTH * depth)
        is_same = (nearest >= 0) & (np.abs(seen - depth) <= _SAME_DEPTH * depth)
    is_match = is_same & (returned[nearest] == np.arange(len(nearest)))
    partner = np.full(len(nearest), IGNORED, np.int64)
    partner[is_hidden | np.isinf(place).any(axis=1)] = UNMATCHABLE
    partner[is_match] = nearest[is_match]
    return CellTargets(partner, place)


def _nearest_cells(places: Pixels, view: DenseView) -> NDArray[np.int64]:
    """Numbers (N,) of the cells nearest to places (N, 2); -1 where there is none within half a cell."""
    grid = np.array((view.columns, view.size[1] // CELL_PX))
    near = np.floor(places / CELL_PX + 0.5)
    inside = np.less(near, grid).all(axis=1)  # as NaN and infinity are not
    column, row = np.where(inside[:, None], near, 0.0).astype(np.int64).T
    return np.where(inside, row * view.columns + column, -1)


def _depths(points: ScenePoints, projection: Float) -> Float:
    return np.asarray(points.astype(np.float64) @ projection[2, :3] + projection[2, 3], np.float64)


def window_targets(
    view0: DenseView, view1: DenseView, cells: CellTargets, count: int, rng: np.random.Generator
) -> WindowTargets:
    """Mutually nearest pixels, of up to ``count`` random ones of the matching cells whose pixels are located."""
    usable = np.flatnonzero(cells.partner[view0.windows] >= 0)
    chosen = np.sort(rng.permutation(usable)[:count])
    cell0 = view0.windows[chosen].astype(np.int64)
    cell1 = cells.partner[cell0]
    places = project(view0.window_points[chosen].reshape(-1, 3), view1.projection, view1.size).reshape(-1, 64, 2)
    first = cell_places(cell1, view1.columns) + window_offsets()[0]
    return WindowTargets(cell0, cell1, *_nearest_pixels(places - first[:, None]))


def _nearest_pixels(places: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pixels (M, 64) of window 1 and what is left to places (M, 64, 2), which count from its first pixel.

    A pixel matches if it is nearest to a place that is nearest to it, at most half a pixel away in both directions.
    """
    grid = window_offsets() - window_offsets()[0]
    with np.errstate(invalid="ignore"):
        distance = np.square(places[:, :, None] - grid).sum(axis=3)  # (M, 64, 64)
        distance[~np.isfinite(distance)] = np.inf
        pixel, returned = distance.argmin(axis=2), distance.argmin(axis=1)
        fraction = np.where(np.isfinite(places), places - grid[pixel], 0.0)
    is_near = np.isfinite(places).all(axis=2) & (np.abs(fraction) <= 0.5).all(axis=2)
    is_mutual = np.take_along_axis(returned, pixel, axis=1) == np.arange(WINDOW_PIXELS)
    return np.where(is_near & is_mutual, pixel, NO_PIXEL), fraction.astype(np.float32)

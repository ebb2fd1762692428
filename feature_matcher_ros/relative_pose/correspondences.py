"""Matches in the form in which two-view geometry is computed: without distortion, in pixels, contiguous."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Camera, Float
from feature_matcher_ros.geometry import mean_focal_length, normalize_points

Mask = NDArray[np.bool_]

_MAX_NORMALIZED_RADIUS = 6.0  # 80 degrees off the axis; beyond, a pixel of noise has no measure on the image plane


@dataclass(frozen=True, slots=True, eq=False)
class Correspondences:
    """Matches as homogeneous pixels (x, y, f) of cameras without distortion, the principal point at (0, 0).

    They are rays times the focal length of their camera, so that matrices of normalised coordinates act
    on them unchanged, while derivatives by x and y are derivatives by pixels.
    """

    rays0: Float  # (3, M)
    rays1: Float  # (3, M)
    image_area: float  # px², over which a wrong match may fall
    image_diagonal: float  # px

    def __len__(self) -> int:
        return self.rays0.shape[1]

    @property
    def pixels0(self) -> Float:
        """(M, 2), relative to the principal point."""
        return np.ascontiguousarray(self.rays0[:2].T)

    @property
    def pixels1(self) -> Float:
        """(M, 2), relative to the principal point."""
        return np.ascontiguousarray(self.rays1[:2].T)

    @property
    def focal0(self) -> float:
        return float(self.rays0[2, 0])

    @property
    def focal1(self) -> float:
        return float(self.rays1[2, 0])

    def only(self, chosen: Mask | NDArray[np.intp]) -> Correspondences:
        """Part of the matches, by mask or by number."""
        numbers = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        # Indexing with [:, numbers] would give columns in memory, and half the speed ever after.
        return replace(self, rays0=np.take(self.rays0, numbers, axis=1), rays1=np.take(self.rays1, numbers, axis=1))


def make_correspondences(
    points0: NDArray[np.floating], points1: NDArray[np.floating], camera0: Camera, camera1: Camera
) -> tuple[Correspondences, Mask]:
    """Undistort matches (M, 2), (M, 2); also return which of them (M,) can be used and were kept."""
    usable = np.isfinite(points0[:, 0] + points0[:, 1] + points1[:, 0] + points1[:, 1])
    if not np.all(usable):
        points0, points1 = points0[usable], points1[usable]
    x0, x1 = normalize_points(points0, camera0), normalize_points(points1, camera1)
    radius2 = np.maximum(x0[:, 0] ** 2 + x0[:, 1] ** 2, x1[:, 0] ** 2 + x1[:, 1] ** 2)
    seen = radius2 < _MAX_NORMALIZED_RADIUS**2  # not so where undistortion failed
    if not np.all(seen):
        usable[usable] = seen
        x0, x1 = x0[seen], x1[seen]
    rays0 = _homogeneous_pixels(x0, mean_focal_length(camera0))
    rays1 = _homogeneous_pixels(x1, mean_focal_length(camera1))
    area, diagonal = float(camera1.width * camera1.height), float(np.hypot(camera1.width, camera1.height))
    return Correspondences(rays0, rays1, area, diagonal), usable


def _homogeneous_pixels(normalized: Float, focal: float) -> Float:
    rays = np.full((3, len(normalized)), focal)
    rays[:2] = normalized.T * focal
    return rays


def are_distinct(matches: Correspondences, count: int) -> bool:
    """Whether at least ``count`` matches differ by more than a quarter of a pixel from each other, about."""
    some = np.arange(0, len(matches), max(len(matches) // (4 * count), 1))
    return _count_distinct(matches.only(some)) >= count or _count_distinct(matches) >= count


def _count_distinct(matches: Correspondences) -> int:
    quarters = np.round(4.0 * np.concatenate([matches.rays0[:2], matches.rays1[:2]])).astype(np.int64)
    return len(np.unique(((quarters[0] * 65599 + quarters[1]) * 65599 + quarters[2]) * 65599 + quarters[3]))

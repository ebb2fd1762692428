"""Matches in the form in which two-view geometry is computed: without distortion, in pixels, contiguous."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Camera, Float
from feature_matcher_ros.geometry import mean_focal_length

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
        rays0, rays1 = self.rays0.take(numbers, axis=1), self.rays1.take(numbers, axis=1)
        return Correspondences(rays0, rays1, self.image_area, self.image_diagonal)

    def first(self, count: int) -> Correspondences:
        """At most ``count`` of the matches."""
        return Correspondences(self.rays0[:, :count], self.rays1[:, :count], self.image_area, self.image_diagonal)


def make_correspondences(
    normalized0: Float, normalized1: Float, camera0: Camera, camera1: Camera
) -> tuple[Correspondences, Mask]:
    """From undistorted matches (M, 2), (M, 2); also return which of them (M,) can be used and were kept."""
    rays0 = _homogeneous_pixels(normalized0, mean_focal_length(camera0))
    rays1 = _homogeneous_pixels(normalized1, mean_focal_length(camera1))
    area, diagonal = float(camera1.width * camera1.height), math.hypot(camera1.width, camera1.height)
    matches = Correspondences(rays0, rays1, area, diagonal)
    usable = _is_measurable(rays0) & _is_measurable(rays1)
    return (matches if usable.all() else matches.only(usable)), usable


def _homogeneous_pixels(normalized: Float, focal: float) -> Float:
    rays = np.empty((3, len(normalized)))
    np.multiply(normalized.T, focal, out=rays[:2])
    rays[2] = focal
    return rays


def _is_measurable(rays: Float) -> Mask:
    """(M,), false where undistortion failed or a coordinate is not finite."""
    x, y, focal = rays
    return x * x + y * y < (_MAX_NORMALIZED_RADIUS * focal) ** 2


def are_distinct(matches: Correspondences, numbers: NDArray[np.intp], count: int) -> bool:
    """Whether at least ``count`` of the matches with these numbers differ by more than about a quarter of a pixel."""
    some = numbers[:: max(len(numbers) // (4 * count), 1)]
    if len(set(np.rint(4.0 * matches.rays0[0].take(some)).tolist())) >= count:
        return True  # they differ in one coordinate already
    return any(_count_distinct(matches.only(part)) >= count for part in (some, numbers))


def _count_distinct(matches: Correspondences) -> int:
    quarters = np.round(4.0 * np.concatenate([matches.rays0[:2], matches.rays1[:2]])).astype(np.int64)
    return len(set((((quarters[0] * 65599 + quarters[1]) * 65599 + quarters[2]) * 65599 + quarters[3]).tolist()))

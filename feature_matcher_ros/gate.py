"""The gate: a cheap look at how much the view has changed since the keyframe.

Pyramidal Lucas-Kanade flow follows some corners of the keyframe into each frame, so that the costly
matcher runs only on pairs that are worth it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Camera, Float, Frame, GateMeasurement, Image, Pixels
from feature_matcher_ros.geometry import mean_focal_length, normalize_points, rotation_angle_deg, to_rays
from feature_matcher_ros.images import to_grey, to_original_pixels

_LEVELS = 4
_WINDOW = (15, 15)
_MIN_CORNER_DISTANCE_PX = 8
_MAX_ROUND_TRIP_PX = 1.0
_BORDER_PX = 4
# Corners are detected in an image that is halved this often, as long as its shorter side keeps this length.
_MAX_HALVINGS = 2
_MIN_SMALL_PX = 120
_REWEIGHTINGS = 4
_MIN_SEEN = 12  # a rotation fitted to fewer points says nothing


class OpticalFlowGate:
    """Follows corners of the keyframe; made anew for every keyframe."""

    def __init__(self, keyframe: Frame, max_points: int) -> None:
        grey = to_grey(keyframe.image)
        self._camera = keyframe.camera
        self._points = _corners(grey, keyframe.mask, max_points)
        self._rays = to_rays(normalize_points(self._points, keyframe.camera))
        self._grey = grey
        self._displacement = np.zeros(2, np.float32)

    def measure(self, frame: Frame) -> GateMeasurement:
        """Compare ``frame`` with the keyframe; nothing survives if its size differs."""
        same_size = (frame.camera.width, frame.camera.height) == (self._camera.width, self._camera.height)
        if len(self._points) == 0 or not same_size:
            return GateMeasurement(parallax_px=0.0, displacement_px=0.0, survival=0.0, rotation_deg=0.0)
        points, seen = self._follow(to_grey(frame.image))
        if np.count_nonzero(seen) < _MIN_SEEN:
            self._displacement[:] = 0.0
            return GateMeasurement(parallax_px=0.0, displacement_px=0.0, survival=float(seen.mean()), rotation_deg=0.0)
        return self._summarize(points, seen, frame.camera)

    def _follow(self, grey: Image) -> tuple[Pixels, NDArray[np.bool_]]:
        """Positions of the corners in ``grey`` (N, 2), and which of them came back when followed in reverse."""
        guess = self._points + self._displacement
        points, found = _flow(self._grey, grey, self._points, guess, _LEVELS)
        back, found_back = _flow(grey, self._grey, points, self._points.copy(), 1)
        returned = np.linalg.norm(back - self._points, axis=1) < _MAX_ROUND_TRIP_PX
        height, width = grey.shape
        inside = np.all((points >= _BORDER_PX) & (points < np.array([width, height]) - _BORDER_PX), axis=1)
        return points, returned & inside & found & found_back

    def _summarize(self, points: Pixels, seen: NDArray[np.bool_], camera: Camera) -> GateMeasurement:
        moved = points[seen] - self._points[seen]
        self._displacement = np.median(moved, axis=0)
        rays0, rays1 = self._rays[seen], to_rays(normalize_points(points[seen], camera))
        rotation = _robust_rotation(rays0, rays1)
        parallax = np.linalg.norm(rays1 - rays0 @ rotation.T, axis=1) * mean_focal_length(camera)
        return GateMeasurement(
            parallax_px=float(np.median(parallax)),
            displacement_px=float(np.median(np.linalg.norm(moved, axis=1))),
            survival=float(seen.mean()),
            rotation_deg=rotation_angle_deg(rotation),
        )


def _corners(grey: Image, mask: Image | None, max_points: int) -> Pixels:
    """Corners (N, 2), detected in a small image: as good to follow, in a fraction of the time."""
    size = (grey.shape[1], grey.shape[0])
    small, small_size = grey, size
    for _ in range(_MAX_HALVINGS):
        if min(small_size) < 2 * _MIN_SMALL_PX:
            break
        small_size = (small_size[0] // 2, small_size[1] // 2)
        small = cv2.resize(small, small_size, interpolation=cv2.INTER_AREA)
    small_mask = None if mask is None else cv2.resize(mask, small_size, interpolation=cv2.INTER_NEAREST)
    distance = _MIN_CORNER_DISTANCE_PX * small_size[0] / size[0]
    corners = cv2.goodFeaturesToTrack(small, max_points, 0.01, distance, mask=small_mask)
    if corners is None:
        return np.zeros((0, 2), np.float32)
    return to_original_pixels(corners.reshape(-1, 2), small_size, size)


def _flow(grey0: Image, grey1: Image, points0: Pixels, guess1: Pixels, levels: int) -> tuple[Pixels, NDArray[np.bool_]]:
    """Follow ``points0`` (N, 2) from one image to the other, starting at ``guess1``; which were found."""
    points1, found, _ = cv2.calcOpticalFlowPyrLK(
        grey0,
        grey1,
        points0,
        guess1,
        winSize=_WINDOW,
        maxLevel=levels,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return points1, found.ravel() == 1


def _robust_rotation(rays0: Float, rays1: Float) -> Float:
    """Rotation (3, 3) that turns ``rays0`` into ``rays1``, by reweighted least squares (Kabsch 1976)."""
    weights = np.ones(len(rays0))
    rotation = np.eye(3)
    for _ in range(_REWEIGHTINGS):
        u, _, vt = np.linalg.svd((rays1 * weights[:, None]).T @ rays0)
        rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
        error = np.linalg.norm(rays1 - rays0 @ rotation.T, axis=1)
        weights = 1.0 / np.maximum(error, np.median(error) + 1e-9)
    return rotation

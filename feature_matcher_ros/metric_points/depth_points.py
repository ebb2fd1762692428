"""Depth of single pixels from a depth map, of the camera itself or of one beside it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Camera, DepthView, Float, Pixels
from feature_matcher_ros.geometry import (
    is_pinhole,
    mean_focal_length,
    normalize_points,
)

DepthMap = NDArray[np.float32]

# Random error of a structured-light sensor, sigma = 1.4e-3 / m * z**2 (Khoshelham and Oude Elberink, Sensors
# 2012, section 4.3), and what remains close by, where depth is also rounded to millimetres.
_SIGMA_PER_SQUARE_METRE = 1.4e-3
_MIN_SIGMA_M = 2e-3
# Neighbours that differ by more belong to different surfaces, or to one that is seen nearly edge-on.
_MAX_STEP_SHARE = 0.05  # of the depth
_MIN_NEIGHBOURS = 6  # of the 9 about a pixel that must be known
_MIN_WEIGHT = 0.25  # of the known among the four nearest pixels

_MAX_STRETCH = 0.15  # by which the camera may resolve more than the sensor before its pixels are split
_MARGIN_SHARE = 0.25  # of the width and height, that a distorting lens may see beyond the edges
_MAX_SHIFT_PX = 1e-3


def measure_by_depth(camera: Camera, depth: DepthView, pixels: Pixels, normalized: Float) -> tuple[Float, Float]:
    """Points (N, 3) in the camera's axes and the standard deviations (N,) of their depths, NaN where unknown.

    ``pixels`` (N, 2) are as seen, ``normalized`` (N, 2) the same undistorted.
    """
    if _is_registered(camera, depth):
        z = sample_depth(depth.depth_m, pixels)
    else:
        pinhole = _pinhole_like(camera)
        z = sample_depth(register_depth(pinhole, depth), normalized @ pinhole.K[:2, :2].T + pinhole.K[:2, 2])
    points = np.column_stack([normalized * z[:, None], z])
    return points, np.maximum(_SIGMA_PER_SQUARE_METRE * z**2, _MIN_SIGMA_M)


def sample_depth(depth_m: DepthMap, pixels: NDArray[np.floating]) -> Float:
    """Depth (N,) at pixels (N, 2) between the centres of the map's pixels; NaN where it is not certain.

    That is where less than six of the nine pixels about the place are known (finite and positive), or
    where they differ so much that they cannot be of one surface. Elsewhere the known ones of the four
    nearest pixels are interpolated.
    """
    height, width = depth_m.shape
    inside = np.all((pixels > -0.5) & (pixels < np.array([width, height]) - 0.5), axis=1)
    x, y = np.where(inside[:, None], pixels, 0.0).astype(np.float64).T
    column, row = np.rint(x).astype(np.intp), np.rint(y).astype(np.intp)
    step = np.array([-1, 0, 1])
    columns, rows = column[:, None, None] + step, row[:, None, None] + step[:, None]  # (N, 1, 3), (N, 3, 1)
    known = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)  # (N, 3, 3)
    z = depth_m[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)].astype(np.float64)
    known &= np.isfinite(z) & (z > 0)

    nearest = np.where(known, z, np.inf).min(axis=(1, 2))
    farthest = np.where(known, z, 0.0).max(axis=(1, 2))
    certain = inside & (known.sum(axis=(1, 2)) >= _MIN_NEIGHBOURS) & (farthest - nearest <= _MAX_STEP_SHARE * nearest)
    weight = np.maximum(1 - np.abs(columns - x[:, None, None]), 0) * np.maximum(1 - np.abs(rows - y[:, None, None]), 0)
    weight = np.where(known, weight, 0.0)
    total = weight.sum(axis=(1, 2))
    certain &= total > _MIN_WEIGHT
    interpolated = (weight * np.where(known, z, 0.0)).sum(axis=(1, 2)) / np.where(total > 0, total, 1.0)
    return np.where(certain, interpolated, np.nan)


def register_depth(pinhole: Camera, depth: DepthView) -> DepthMap:
    """Depth (H, W) as an undistorted camera would see it, NaN where unknown; the nearest point hides others.

    Where the camera has more pixels to the radian than the sensor, each pixel of the sensor is split
    into as many as it covers.
    """
    split = max(1, math.ceil(mean_focal_length(pinhole) / mean_focal_length(depth.camera) - _MAX_STRETCH))
    z = np.repeat(np.repeat(depth.depth_m, split, axis=0), split, axis=1).ravel()
    known = np.isfinite(z) & (z > 0)
    points = _pixel_rays(depth.camera, split)[:, known] * z[known]
    pixels_from_depth = (pinhole.K @ depth.cam_from_depth[:3]).astype(np.float32)  # (3, 4)
    u, v, z = pixels_from_depth[:, :3] @ points + pixels_from_depth[:, 3:]
    with np.errstate(invalid="ignore", divide="ignore"):
        column, row = np.rint(u / z), np.rint(v / z)
        seen = (z > 0) & (column >= 0) & (column < pinhole.width) & (row >= 0) & (row < pinhole.height)
    registered = np.full(pinhole.height * pinhole.width, np.inf, dtype=np.float32)
    pixel = row[seen].astype(np.intp) * pinhole.width + column[seen].astype(np.intp)
    np.minimum.at(registered, pixel, z[seen])
    registered[np.isinf(registered)] = np.nan
    return registered.reshape(pinhole.height, pinhole.width)


@lru_cache(maxsize=4)
def _pixel_rays(camera: Camera, split: int) -> NDArray[np.float32]:
    """Rays (3, H * W * split**2) with z = 1 through the parts of all pixels, row by row."""
    x = (np.arange(camera.width * split) + 0.5) / split - 0.5
    y = (np.arange(camera.height * split) + 0.5) / split - 0.5
    normalized = normalize_points(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2), camera)
    return np.stack([normalized[:, 0], normalized[:, 1], np.ones(len(normalized))]).astype(np.float32)


def _pinhole_like(camera: Camera) -> Camera:
    """A camera without distortion that sees as much, and some more about the edges if the lens distorts."""
    if is_pinhole(camera):
        return Camera(camera.K, camera.width, camera.height)
    right, down = round(_MARGIN_SHARE * camera.width), round(_MARGIN_SHARE * camera.height)
    shift = np.array([[0.0, 0.0, right], [0.0, 0.0, down], [0.0, 0.0, 0.0]])
    return Camera(camera.K + shift, camera.width + 2 * right, camera.height + 2 * down)


def _is_registered(camera: Camera, depth: DepthView) -> bool:
    """Whether the pixels of the depth map are those of the camera."""
    other = depth.camera
    same_model = camera.distortion_model is other.distortion_model
    same_lens = same_model and np.array_equal(camera.distortion, other.distortion)
    return (
        (camera.width, camera.height) == (other.width, other.height)
        and np.allclose(camera.K, other.K, rtol=0.0, atol=_MAX_SHIFT_PX)
        and (same_lens or (is_pinhole(camera) and is_pinhole(other)))
        and np.allclose(depth.cam_from_depth, np.eye(4), rtol=0.0, atol=1e-9)
    )

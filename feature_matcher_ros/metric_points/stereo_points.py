"""Depth of single pixels from a calibrated stereo pair that need not be rectified."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Float, Image, Pixels, StereoView
from feature_matcher_ros.geometry import (
    essential_from_pose,
    mean_focal_length,
    normalize_points,
    project_points,
    sampson_error,
    transform_points,
    triangulate,
)
from feature_matcher_ros.images import to_grey

# Standard deviation of a disparity found by Lucas-Kanade, as seen in rendered scenes and, across the
# epipolar line, in real ones.
DISPARITY_SIGMA_PX = 0.25
_MAX_RELATIVE_SIGMA = 0.2  # farther points say nothing about lengths
_MAX_ROUND_TRIP_PX = 0.5
_MAX_EPIPOLAR_ERROR_PX = 1.0
# Mean difference of grey values of even contrast: nearly all true matches have less, nearly all chance ones more.
_MAX_DIFFERENCE = 13.0

_CONTRAST_WINDOW = (21, 21)
_CONTRAST_FLOOR = 2.0  # grey values; less contrast than this is noise and is not stretched to the full range
_CONTRAST_GAIN = 40.0

_MAX_DISPARITY_SHARE = 1.0 / 8.0  # of the width of the image
_STEP_PX = 4  # of the search along a curve
_NUM_KNOTS = 4
_SHRINK_FACTOR = 3
_PATCH_RADIUS = 3  # in the shrunk image

_LK_WINDOW = (11, 11)
_LK_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)


def measure_by_stereo(image: Image, stereo: StereoView, pixels: Pixels, normalized: Float) -> tuple[Float, Float]:
    """Points (N, 3) in the camera's axes and the standard deviations (N,) of their depths, NaN where unknown.

    ``pixels`` (N, 2) are as seen by the left camera, ``normalized`` (N, 2) the same undistorted.

    Each pixel is sought along its epipolar curve in a small image, then followed to a fraction of a
    pixel and back by Lucas-Kanade flow. The flow is free to leave the curve, so that its distance
    from the curve tells right from wrong. A depth has a standard deviation of
    ``DISPARITY_SIGMA_PX / |du/dz|``, u being the pixel in the right image: ``z**2 / (f * b)`` per pixel
    for a rectified pair of focal length f and baseline b.
    """
    if len(pixels) == 0:
        return np.zeros((0, 3)), np.zeros(0)
    left, right = _even_contrast(to_grey(image)), _even_contrast(to_grey(stereo.image))
    guess = _coarse_search(left, right, pixels, _epipolar_curves(normalized, stereo))
    right_pixels, found = _follow(left, right, pixels, guess)

    right_normalized = normalize_points(right_pixels, stereo.camera)
    points = triangulate(stereo.right_from_left, normalized, right_normalized)
    sigma_m = _depth_sigma(points, stereo)
    with np.errstate(invalid="ignore"):
        known = found & (points[:, 2] > 0) & (sigma_m < _MAX_RELATIVE_SIGMA * points[:, 2])
    known &= np.abs(_epipolar_error_px(normalized, right_normalized, stereo)) < _MAX_EPIPOLAR_ERROR_PX
    return np.where(known[:, None], points, np.nan), np.where(known, sigma_m, np.nan)


def _even_contrast(grey: Image) -> Image:
    """Bring every neighbourhood to the same mean and contrast, since each camera has its own exposure."""
    mean = cv2.boxFilter(grey, cv2.CV_32F, _CONTRAST_WINDOW)
    deviation = cv2.sqrBoxFilter(grey, cv2.CV_32F, _CONTRAST_WINDOW)
    # In place, since fresh memory for images costs more than the arithmetic.
    deviation -= mean * mean
    np.sqrt(cv2.max(deviation, 0.0, dst=deviation), out=deviation)
    deviation += _CONTRAST_FLOOR
    even = np.subtract(grey, mean, out=mean)
    even /= deviation
    even *= _CONTRAST_GAIN
    even += 128.0
    return np.clip(even, 0.0, 255.0, out=even).astype(np.uint8)


def _epipolar_curves(normalized: Float, stereo: StereoView) -> NDArray[np.float32]:
    """Where points at evenly spaced inverse depths, from 0 on, appear in the right image: (N, S, 2) pixels.

    Only a few are projected and the others interpolated, to within half a pixel even for a lens with
    strong distortion. A point that would be behind the camera is NaN.
    """
    rotation, translation = stereo.right_from_left[:3, :3], stereo.right_from_left[:3, 3]
    max_disparity_px = _MAX_DISPARITY_SHARE * stereo.camera.width
    max_inverse_depth = max_disparity_px / (mean_focal_length(stereo.camera) * np.linalg.norm(translation))
    inverse_depths = np.linspace(0.0, max_inverse_depth, _NUM_KNOTS)
    rays = np.column_stack([normalized, np.ones(len(normalized))]) @ rotation.T
    points = rays[:, None] + inverse_depths[:, None] * translation  # (N, knots, 3)
    knots = project_points(points.reshape(-1, 3), stereo.camera).reshape(-1, _NUM_KNOTS, 2).astype(np.float32)

    num_steps = 1 + int(np.ceil(max_disparity_px / _STEP_PX))
    position = np.linspace(0.0, _NUM_KNOTS - 1, num_steps, dtype=np.float32)
    knot = np.minimum(position.astype(np.intp), _NUM_KNOTS - 2)
    weight = (position - knot)[:, None]
    return knots[:, knot] * (1 - weight) + knots[:, knot + 1] * weight


def _coarse_search(left: Image, right: Image, pixels: Pixels, curves: NDArray[np.float32]) -> Pixels:
    """The place (N, 2) on each curve (N, S, 2) that looks most like the surroundings of the pixel."""
    wanted, _ = _patches(left, pixels[:, None])
    candidates, inside = _patches(right, curves)
    candidates -= wanted
    cost = np.where(inside, np.einsum("nsp,nsp->ns", candidates, candidates), np.inf)
    row, last = np.arange(len(cost)), cost.shape[1] - 1
    best = cost.argmin(axis=1)
    before, after = cost[row, np.maximum(best - 1, 0)], cost[row, np.minimum(best + 1, last)]
    # The vertex of the parabola through three neighbours; the ends of a curve have no such neighbours.
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = 0.5 * (before - after) / (before - 2 * cost[row, best] + after)
    shift = np.where(np.isfinite(shift) & (best > 0) & (best < last), shift, 0.0).astype(np.float32)
    neighbour = np.clip(best + np.sign(shift).astype(np.intp), 0, last)
    weight = np.abs(shift)[:, None]
    guess = curves[row, best] * (1 - weight) + curves[row, neighbour] * weight
    return np.where(np.isfinite(guess), guess, pixels).astype(np.float32)


def _patches(image: Image, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Grey values (..., P) about pixels (..., 2) in the shrunk image, and which of these lie inside."""
    small, radius = _shrunk(image), _PATCH_RADIUS
    height, width = small.shape
    padded = cv2.copyMakeBorder(small, radius, radius, radius, radius, cv2.BORDER_REPLICATE)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1, 2 * radius + 1))
    places = np.nan_to_num(np.rint((pixels + 0.5) / _SHRINK_FACTOR - 0.5), nan=-1.0)
    columns, rows = places[..., 0], places[..., 1]
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    columns = np.clip(columns, 0, width - 1).astype(np.intp)
    rows = np.clip(rows, 0, height - 1).astype(np.intp)
    return windows[rows, columns].reshape(*rows.shape, -1), inside


def _shrunk(image: Image) -> NDArray[np.float32]:
    """Means of blocks of pixels; left-over rows and columns are dropped."""
    means = cv2.boxFilter(image, cv2.CV_32F, (_SHRINK_FACTOR, _SHRINK_FACTOR))  # far quicker than resizing
    (height, first_row), (width, first_column) = (
        (max(1, side // _SHRINK_FACTOR), min(_SHRINK_FACTOR // 2, side - 1)) for side in image.shape
    )
    centers = means[first_row::_SHRINK_FACTOR, first_column::_SHRINK_FACTOR]
    return np.asarray(centers[:height, :width], dtype=np.float32)


def _follow(left: Image, right: Image, pixels: Pixels, guess: Pixels) -> tuple[Pixels, NDArray[np.bool_]]:
    """Refine the guesses (N, 2), and say which points look alike and lead back to where they started."""
    left, right = _padded_alike(left, right)
    flags = cv2.OPTFLOW_USE_INITIAL_FLOW

    def flow(start: Image, end: Image, points: Pixels, guess: Pixels) -> tuple[Pixels, NDArray[np.bool_]]:
        moved, status, difference = cv2.calcOpticalFlowPyrLK(
            start, end, points, guess, winSize=_LK_WINDOW, maxLevel=0, criteria=_LK_CRITERIA, flags=flags
        )
        return moved, (status.ravel() > 0) & (difference.ravel() < _MAX_DIFFERENCE)

    found, is_found = flow(left, right, pixels, guess.copy())
    if is_found.any():
        # The way back starts as far from its end as the way there, or it would prove nothing.
        back, is_back = flow(right, left, found[is_found], (pixels + (found - guess))[is_found])
        returned = np.linalg.norm(back - pixels[is_found], axis=1) < _MAX_ROUND_TRIP_PX
        is_found[is_found] = is_back & returned
    return found, is_found


def _padded_alike(left: Image, right: Image) -> tuple[Image, Image]:
    """Add black pixels at the right and the bottom until both images have the same size."""
    if left.shape == right.shape:
        return left, right
    height, width = np.maximum(left.shape, right.shape)
    padded = [np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]))) for image in (left, right)]
    return padded[0], padded[1]


def _epipolar_error_px(normalized: Float, right_normalized: Float, stereo: StereoView) -> Float:
    """Signed distance (N,) of the right pixels from their epipolar lines.

    Sampson's error splits the distance between both images, half of its square to each.
    """
    error = sampson_error(essential_from_pose(stereo.right_from_left), normalized, right_normalized)
    return np.sqrt(2.0) * mean_focal_length(stereo.camera) * error


def _depth_sigma(points: Float, stereo: StereoView) -> Float:
    """Standard deviation (N,) of the depths of points (N, 3) that were triangulated.

    With ``y = z * R @ ray + t`` a point in the right camera and ``u = (y0, y1) / y2``, the derivative of
    u by z is ``(d - u * d2) / y2``, d being ``R @ ray``.
    """
    in_right = transform_points(stereo.right_from_left, points)
    direction = (points / points[:, 2:]) @ stereo.right_from_left[:3, :3].T
    u = in_right[:, :2] / in_right[:, 2:]
    slope = np.linalg.norm((direction[:, :2] - u * direction[:, 2:]) / in_right[:, 2:], axis=1)
    return DISPARITY_SIGMA_PX / (mean_focal_length(stereo.camera) * np.maximum(slope, 1e-12))

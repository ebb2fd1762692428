"""Rigid motions, cameras and two-view geometry in plain numpy."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_matcher_ros.datatypes import Camera, DistortionModel, Float

# OpenCV 5 takes the criteria in undistortPoints itself; OpenCV 4 has a second function for it.
_undistort = getattr(cv2, "undistortPointsIter", cv2.undistortPoints)
# Undistortion is iterated until the point, distorted again, is within this many pixels of where it was seen: float32
# holds a pixel no better than that.
_MAX_UNDISTORTED_PX = 1e-4
_UNDISTORT_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, _MAX_UNDISTORTED_PX)
_MAX_COUNTED_STEPS = 15
_GRID_SIDE = 9
_NUM_COEFFICIENTS = 8  # of radial and tangential distortion; thin prisms and tilted sensors follow


def is_pinhole(camera: Camera) -> bool:
    """Whether the lens does not distort; an equidistant one always does, its coefficients being zero or not."""
    return camera.distortion_model is not DistortionModel.EQUIDISTANT and not camera.distortion.any()


def normalize_points(pixels: NDArray[np.floating], camera: Camera) -> Float:
    """Turn pixels (N, 2) into undistorted normalised coordinates (N, 2), the ray's x/z and y/z."""
    points = np.ascontiguousarray(pixels, dtype=np.float64).reshape(-1, 1, 2)
    if len(points) == 0:
        return np.zeros((0, 2))
    if is_pinhole(camera):
        K = camera.K
        y = (points[:, 0, 1] - K[1, 2]) / K[1, 1]
        x = (points[:, 0, 0] - K[0, 2] - K[0, 1] * y) / K[0, 0]
        return np.stack([x, y], axis=1)
    if camera.distortion_model is DistortionModel.EQUIDISTANT:
        undistorted = cv2.fisheye.undistortPoints(points, camera.K, camera.distortion, criteria=_UNDISTORT_CRITERIA)
    else:
        undistorted = _undistort(
            points, camera.K, camera.distortion, R=None, P=None, criteria=_undistort_criteria(camera)
        )
    return np.asarray(undistorted, dtype=np.float64).reshape(-1, 2)


@lru_cache(maxsize=32)
def _undistort_criteria(camera: Camera) -> tuple[int, int, float]:
    """The number of steps that suffices all over the image; to check after each one of a point takes twice the time."""
    sides = np.linspace(0.0, camera.width - 1.0, _GRID_SIDE), np.linspace(0.0, camera.height - 1.0, _GRID_SIDE)
    pixels = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 1, 2)
    for steps in range(1, _MAX_COUNTED_STEPS):
        criteria = (cv2.TERM_CRITERIA_COUNT, steps, 0.0)
        undistorted = _undistort(pixels, camera.K, camera.distortion, R=None, P=None, criteria=criteria)
        again = project_points(homogeneous(undistorted.reshape(-1, 2)).T, camera)
        if np.abs(again - pixels[:, 0]).max() < _MAX_UNDISTORTED_PX:
            return criteria
    return _UNDISTORT_CRITERIA


def project_points(points: Float, camera: Camera) -> Float:
    """Project points (N, 3) in the camera's axes to distorted pixels (N, 2); NaN where not in front."""
    front = points[:, 2] > 1e-9
    is_plain = not camera.distortion[_NUM_COEFFICIENTS:].any()
    if camera.distortion_model is not DistortionModel.EQUIDISTANT and is_plain:
        # OpenCV would compute all derivatives too, which takes ten times as long.
        K, z = camera.K, np.where(front, points[:, 2], np.nan)
        x, y, skew_px = points[:, 0] / z, points[:, 1] / z, K[0, 1]
        if not is_pinhole(camera):
            (x, y), skew_px = _distorted(x, y, camera.distortion), 0.0  # which undistortion does not know either
        return np.stack([K[0, 0] * x + skew_px * y + K[0, 2], K[1, 1] * y + K[1, 2]], axis=1)
    pixels = np.full((len(points), 2), np.nan)
    if not np.any(front):
        return pixels
    visible = np.ascontiguousarray(points[front], dtype=np.float64).reshape(-1, 1, 3)
    zero = np.zeros(3)
    if camera.distortion_model is DistortionModel.EQUIDISTANT:
        projected, _ = cv2.fisheye.projectPoints(visible, zero, zero, camera.K, camera.distortion)
    else:
        projected, _ = cv2.projectPoints(visible, zero, zero, camera.K, camera.distortion)
    pixels[front] = projected.reshape(-1, 2)
    return pixels


def _distorted(x: Float, y: Float, distortion: Float) -> tuple[Float, Float]:
    """Normalised coordinates as the lens shows them: radial and tangential distortion, in OpenCV's notation."""
    k1, k2, p1, p2, k3, k4, k5, k6 = np.pad(distortion, (0, _NUM_COEFFICIENTS))[:_NUM_COEFFICIENTS].tolist()
    r2, double_xy = x * x + y * y, 2.0 * x * y
    radial = (1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1.0 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return (
        x * radial + p1 * double_xy + p2 * (r2 + 2.0 * x * x),
        y * radial + p1 * (r2 + 2.0 * y * y) + p2 * double_xy,
    )


def mean_focal_length(camera: Camera) -> float:
    """Pixels per radian near the centre of the image."""
    return float(camera.K[0, 0] + camera.K[1, 1]) / 2.0


def homogeneous(normalized: Float) -> Float:
    """Rays (3, N) with z = 1 of normalised coordinates (N, 2)."""
    rays = np.ones((3, len(normalized)))
    rays[:2] = normalized.T
    return rays


def to_rays(normalized: Float) -> Float:
    """Unit rays (N, 3) of normalised coordinates (N, 2)."""
    rays = homogeneous(normalized)
    return np.ascontiguousarray((rays / np.sqrt(np.einsum("in,in->n", rays, rays))).T)


def transform_points(b_from_a: Float, points: Float) -> Float:
    """Apply a (4, 4) pose to points (N, 3)."""
    return points @ b_from_a[:3, :3].T + b_from_a[:3, 3]


def pose_from(rotation: ArrayLike, translation: ArrayLike) -> Float:
    """Build a (4, 4) pose."""
    pose = np.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = translation
    return pose


def invert_pose(b_from_a: Float) -> Float:
    """Return ``a_from_b``."""
    rotation = b_from_a[:3, :3].T
    return pose_from(rotation, -rotation @ b_from_a[:3, 3])


def move_covariance(b_from_a: Float, covariance: Float) -> Float:
    """Covariance (6, 6) of a small motion, translation before rotation, in the axes of b instead of a.

    By the adjoint of the pose; source: Barfoot, State Estimation for Robotics, section 7.1.4.
    """
    rotation, translation = b_from_a[:3, :3], b_from_a[:3, 3]
    adjoint = np.zeros((6, 6))
    adjoint[:3, :3] = adjoint[3:, 3:] = rotation
    adjoint[:3, 3:] = skew(translation) @ rotation
    return np.asarray(adjoint @ covariance @ adjoint.T)


def skew(v: ArrayLike) -> Float:
    """The matrix (3, 3) for which ``skew(v) @ x`` is the cross product of v and x."""
    x, y, z = np.asarray(v, dtype=np.float64).tolist()
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def rotation_from_vector(vector: ArrayLike) -> Float:
    """Rotation (3, 3) about ``vector`` (3,) by its length in radians (Rodrigues)."""
    rotation, _ = cv2.Rodrigues(np.asarray(vector, dtype=np.float64).reshape(3, 1))
    return np.asarray(rotation, dtype=np.float64)


def rotation_vector(rotation: Float) -> Float:
    """The inverse of ``rotation_from_vector``: (3,), length in [0, pi]."""
    # Half the skew part is the axis times the sine; OpenCV would take all angles below 1e-5 for zero.
    skew_part = 0.5 * (rotation - rotation.T)
    by_sine = np.array([skew_part[2, 1], skew_part[0, 2], skew_part[1, 0]])
    sine, cosine = float(np.linalg.norm(by_sine)), 0.5 * (float(np.trace(rotation)) - 1.0)
    if cosine > 0.0:
        return by_sine * (float(np.arctan2(sine, cosine)) / sine if sine > 1e-12 else 1.0)
    vector, _ = cv2.Rodrigues(rotation)
    return np.asarray(vector, dtype=np.float64).ravel()


def rotation_angle_deg(rotation: Float) -> float:
    """Angle of a rotation (3, 3), in [0, 180]; exact also for tiny ones."""
    return float(np.degrees(np.linalg.norm(rotation_vector(rotation))))


def angle_between_deg(a: ArrayLike, b: ArrayLike) -> float:
    """Angle between two vectors (3,), in [0, 180]."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), np.dot(a, b))))


def quaternion_from_rotation(rotation: Float) -> Float:
    """Unit quaternion (4,) in the order x, y, z, w, with w >= 0."""
    vector = rotation_vector(rotation)
    angle = float(np.linalg.norm(vector))
    axis_scale = 0.5 if angle < 1e-12 else np.sin(angle / 2.0) / angle
    return np.array([*(vector * axis_scale), np.cos(angle / 2.0)])


def rotation_from_quaternion(quaternion: ArrayLike) -> Float:
    """Rotation (3, 3) of a quaternion x, y, z, w of any length but zero."""
    q = np.asarray(quaternion, dtype=np.float64)
    x, y, z, w = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def essential_from_pose(cam1_from_cam0: Float) -> Float:
    """Essential matrix E with ``x1.T @ E @ x0 = 0``."""
    return skew(cam1_from_cam0[:3, 3]) @ cam1_from_cam0[:3, :3]


def sampson_error(E: Float, normalized0: Float, normalized1: Float) -> Float:
    """Signed first-order distance (N,) to the epipolar constraint, in normalised coordinates.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd edition, eq. 11.9 (its square root).
    """
    x0 = np.concatenate([normalized0, np.ones((len(normalized0), 1))], axis=1)
    x1 = np.concatenate([normalized1, np.ones((len(normalized1), 1))], axis=1)
    line1, line0 = x0 @ E.T, x1 @ E
    norm = np.sqrt(line1[:, 0] ** 2 + line1[:, 1] ** 2 + line0[:, 0] ** 2 + line0[:, 1] ** 2)
    return np.einsum("ni,ni->n", x1, line1) / np.maximum(norm, 1e-12)


def triangulate(cam1_from_cam0: Float, normalized0: Float, normalized1: Float) -> Float:
    """Points (N, 3) in the axes of camera 0, nearest to both rays; NaN where the rays are parallel.

    A point may come out behind a camera, which the caller decides about.
    """
    rotation, translation = cam1_from_cam0[:3, :3], cam1_from_cam0[:3, 3]
    rays0, rays1 = homogeneous(normalized0), homogeneous(normalized1)
    depth0, sine2 = triangulate_depth(rotation @ rays0, rays1, translation)
    return (rays0 * np.where(sine2 > 1e-14, depth0, np.nan)).T


def triangulate_depth(turned0: Float, rays1: Float, translation: Float) -> tuple[Float, Float]:
    """Depth (N,) along rays of camera 0, and the squared sine (N,) of the angle at which the rays meet.

    The depth is that which solves ``depth0 * turned0 + translation = depth1 * rays1`` by least squares; it is
    any number, also infinite or NaN, where that sine is zero.

    Args:
        turned0: (3, N), rays of camera 0 turned into the axes of camera 1.
        rays1: (3, N), of camera 1.
        translation: (3,)
    """
    aa, bb, ab = (np.einsum("in,in->n", u, v) for u, v in ((turned0, turned0), (rays1, rays1), (turned0, rays1)))
    scale = aa * bb
    determinant = scale - ab * ab
    with np.errstate(divide="ignore", invalid="ignore"):
        depth0 = (ab * (translation @ rays1) - bb * (translation @ turned0)) / determinant
    return depth0, determinant / scale

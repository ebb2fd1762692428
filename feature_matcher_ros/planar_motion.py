"""Homographies, the rotation that resembles one, and the motions before a plane that explain one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import poselib

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.epipolar_estimation import Noise, draw_matches, ransac_options
from feature_matcher_ros.motion_models import (
    Correspondences,
    EpipolarMotion,
    HomographyMotion,
    Mask,
    Motion,
    PlanarMotion,
    RotationMotion,
    nearest_rotation,
)
from feature_matcher_ros.parallax import measure_parallax
from feature_matcher_ros.pose_refinement import refine_motion, robust_sigma, squared_length

_MAX_SEARCH_MATCHES = 200
_MIN_ITERATIONS = 30
_MAX_ITERATIONS = 200
# Before a true plane, all points are in front of both cameras; so few may seem behind by mismatch.
_MAX_BEHIND_SHARE = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class TransferFit:
    """A motion that predicts each point 1 from its point 0: a homography, a rotation or none at all."""

    motion: Motion
    length2: Float  # (M,), squared transfer residuals, px²
    inliers: Mask  # (M,)
    outlier_density: float  # 1/px², of the transfer residual of a wrong match
    max_parallax_px: float


def describe_transfer(motion: Motion, matches: Correspondences, noise: Noise) -> TransferFit:
    """Measure all matches against a motion."""
    length2 = squared_length(motion.residuals(matches))
    # Whitening halves areas, as it expresses the difference of two noisy points by the noise of one.
    return TransferFit(
        motion, length2, length2 < noise.gate_px**2, 2.0 / matches.image_area, matches.image_diagonal
    )


def search_homography(matches: Correspondences, config: PoseConfig) -> HomographyMotion | None:
    """LO-RANSAC over part of the matches; None if it finds nothing."""
    if len(matches) < 4:
        return None
    drawn = draw_matches(matches, _MAX_SEARCH_MATCHES, config.seed)
    options = ransac_options(config, _MIN_ITERATIONS)
    options |= {
        "max_iterations": min(config.max_iterations, _MAX_ITERATIONS),
        "max_reproj_error": 2.0**0.5 * config.max_epipolar_error_px,
    }
    scale0, scale1 = np.diag([1.0, 1.0, 1.0 / matches.focal0]), np.diag([1.0, 1.0, matches.focal1])
    pixel_homography, info = poselib.estimate_homography(drawn.pixels0, drawn.pixels1, options, {"max_iterations": 0})
    homography = np.asarray(scale1 @ pixel_homography @ scale0, dtype=np.float64)
    norm = float(np.linalg.norm(homography))
    if info["num_inliers"] < 4 or not 0.0 < norm < np.inf or abs(np.linalg.det(homography / norm)) < 1e-12:
        return None
    return HomographyMotion(homography / norm * np.sign(np.linalg.det(homography)))


def fit_transfer(motion: Motion, matches: Correspondences, noise: Noise) -> TransferFit:
    """Refine a homography or rotation over all matches."""
    return describe_transfer(refine_motion(motion, matches, noise.gate_px, noise.floor_px), matches, noise)


def rotation_like(homography: HomographyMotion) -> RotationMotion:
    """The rotation that resembles a homography most."""
    return RotationMotion(nearest_rotation(homography.matrix))


def motions_before_plane(homography: HomographyMotion, matches: Correspondences, noise: Noise) -> list[PlanarMotion]:
    """The one or two motions that explain a homography and see its plane in front of both cameras.

    Args:
        homography: refined.
        matches: its inliers.
        noise: decides who is behind beyond doubt.
    """
    motions = []
    poses, normals = poselib.motion_from_homography(homography.matrix)
    for pose, normal in zip(poses, normals, strict=True):
        rotation, translation = np.asarray(pose.R, dtype=np.float64), np.asarray(pose.t, dtype=np.float64)
        if not np.all(np.isfinite(translation)) or np.linalg.norm(translation) < 1e-9:
            continue
        motion = PlanarMotion(rotation, translation, np.asarray(normal, dtype=np.float64))
        if _is_before_plane(motion, matches, noise):
            motions.append(motion)
    return motions


def _is_before_plane(motion: PlanarMotion, matches: Correspondences, noise: Noise) -> bool:
    facing_plane = motion.normal @ matches.rays0 > 0.0
    sigma = robust_sigma(motion.residuals(matches), noise.gate_px, noise.floor_px)
    front = measure_parallax(to_epipolar(motion), matches).in_front(sigma)
    return np.count_nonzero(facing_plane & front) >= (1.0 - _MAX_BEHIND_SHARE) * len(matches)


def to_epipolar(motion: PlanarMotion) -> EpipolarMotion:
    """Forget the plane."""
    return EpipolarMotion(motion.rotation, motion.translation / np.linalg.norm(motion.translation))

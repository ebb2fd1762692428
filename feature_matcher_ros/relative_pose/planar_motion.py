"""Homographies, the rotation that resembles one, and the motions before a plane that explain one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import poselib

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.relative_pose.correspondences import Correspondences, Mask
from feature_matcher_ros.relative_pose.epipolar_estimation import REFINEMENT_GATES, Noise, draw_matches, ransac_options
from feature_matcher_ros.relative_pose.motion_models import (
    EpipolarMotion,
    HomographyMotion,
    Motion,
    RotationMotion,
    nearest_rotation,
)
from feature_matcher_ros.relative_pose.parallax import measure_parallax
from feature_matcher_ros.relative_pose.pose_refinement import make_loss, refine_motion, robust_sigma, squared_length

_MAX_SEARCH_MATCHES = 100
_MAX_ITERATIONS = 60  # and half as many at least
_MAX_POLISH_STEPS = 10
# Before a true plane, all points are in front of both cameras; so few may seem behind by mismatch.
_MAX_BEHIND_SHARE = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class TransferFit:
    """A motion that predicts each point 1 from its point 0: a homography, a rotation or none at all."""

    motion: Motion
    length2: Float  # (M,), squared transfer residuals, px²
    inliers: Mask  # (M,)

    def usable(self, noise: Noise) -> Mask:
        """Which matches (M,) a refinement may weigh; those far beyond the gate can only be wrong."""
        return self.length2 < (REFINEMENT_GATES * noise.gate_px) ** 2

    def usable_length2(self, noise: Noise) -> Float:
        """(M,), infinite for those that are not usable."""
        return np.where(self.usable(noise), self.length2, np.inf)

    @property
    def num_inliers(self) -> int:
        return int(np.count_nonzero(self.inliers))


@dataclass(frozen=True, slots=True, eq=False)
class PlanarMotion:
    """Motion before the plane ``normal @ x0 = distance``; its homography is ``rotation + translation normalᵀ``.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd edition, section 13.1.
    """

    rotation: Float  # (3, 3)
    translation: Float  # (3,), in units of the plane's distance
    normal: Float  # (3,), unit, in the axes of camera 0, away from the camera


def describe_transfer(motion: Motion, matches: Correspondences, noise: Noise) -> TransferFit:
    """Measure all matches against a motion."""
    length2 = squared_length(motion.residuals(matches))
    return TransferFit(motion, length2, length2 < noise.gate_px**2)


def refine_transfer(fit: TransferFit, matches: Correspondences, noise: Noise) -> TransferFit:
    """Minimise the robust transfer error."""
    usable = fit.usable(noise)
    sigma = robust_sigma(fit.length2[usable], 2, noise.gate_px, noise.floor_px)
    return describe_transfer(refine_motion(fit.motion, matches.only(usable), make_loss(sigma, 2)), matches, noise)


def search_homography(matches: Correspondences, config: PoseConfig) -> HomographyMotion | None:
    """LO-RANSAC over part of the matches; None if it finds nothing."""
    if len(matches) < 4:
        return None
    drawn = draw_matches(matches, _MAX_SEARCH_MATCHES, config.seed)
    options = ransac_options(config, _MAX_ITERATIONS // 2)
    options |= {
        "max_iterations": min(config.max_iterations, _MAX_ITERATIONS),
        "max_reproj_error": 2.0**0.5 * config.max_epipolar_error_px,
    }
    pixel_homography, info = poselib.estimate_homography(drawn.pixels0, drawn.pixels1, options, {"max_iterations": 0})
    return _from_pixels(pixel_homography, matches) if info["num_inliers"] >= 4 else None


def polish_homography(homography: HomographyMotion, inliers: Correspondences, noise: Noise) -> HomographyMotion:
    """Least squares over the inliers, quickly."""
    scale0, scale1 = _pixel_scales(inliers)
    pixel_homography, _ = poselib.refine_homography(
        inliers.pixels0,
        inliers.pixels1,
        np.linalg.inv(scale1) @ homography.matrix @ np.linalg.inv(scale0),
        {"loss_type": "TRUNCATED", "loss_scale": 2.0**0.5 * noise.gate_px, "max_iterations": _MAX_POLISH_STEPS},
    )
    return _from_pixels(pixel_homography, inliers) or homography


def _from_pixels(pixel_homography: Float, matches: Correspondences) -> HomographyMotion | None:
    """Homography of normalised coordinates from one of pixels; None if it is singular."""
    scale0, scale1 = _pixel_scales(matches)
    homography = np.asarray(scale1 @ pixel_homography @ scale0, dtype=np.float64)
    norm = float(np.linalg.norm(homography))
    determinant = float(np.linalg.det(homography)) if 0.0 < norm < np.inf else 0.0
    if abs(determinant) < 1e-12 * norm**3 or norm == 0.0:
        return None
    return HomographyMotion(homography * math.copysign(1.0 / norm, determinant))


def _pixel_scales(matches: Correspondences) -> tuple[Float, Float]:
    """From (x, y, 1) of image 0 and to (x, y, 1) of image 1, or rather of their rays."""
    return np.diag([1.0, 1.0, 1.0 / matches.focal0]), np.diag([1.0, 1.0, matches.focal1])


def rotation_like(homography: HomographyMotion) -> RotationMotion:
    """The rotation that resembles a homography most."""
    return RotationMotion(nearest_rotation(homography.matrix))


def motions_before_plane(homography: HomographyMotion, matches: Correspondences) -> list[PlanarMotion]:
    """The two motions that show the plane alike, with normals towards most matches; none without a translation."""
    motions = []
    poses, normals = poselib.motion_from_homography(homography.matrix)
    # PoseLib lists each motion twice, the second time with normal and translation reversed.
    for pose, normal in list(zip(poses, normals, strict=True))[::2]:
        rotation, translation = np.asarray(pose.R, dtype=np.float64), np.asarray(pose.t, dtype=np.float64)
        if not np.all(np.isfinite(translation)) or np.linalg.norm(translation) < 1e-9:
            continue
        facing = np.asarray(normal, dtype=np.float64)
        sign = 1.0 if 2 * np.count_nonzero(facing @ matches.rays0 > 0.0) >= len(matches) else -1.0
        motions.append(PlanarMotion(rotation, sign * translation, sign * facing))
    return motions


def sees_plane(motion: PlanarMotion, matches: Correspondences, noise: Noise) -> bool:
    """Whether the matches of a plane lie in front of both cameras."""
    facing_plane = motion.normal @ matches.rays0 > 0.0
    front = measure_parallax(to_epipolar(motion), matches).in_front(noise.expected_px)
    return int(np.count_nonzero(facing_plane & front)) >= (1.0 - _MAX_BEHIND_SHARE) * len(matches)


def to_epipolar(motion: PlanarMotion) -> EpipolarMotion:
    """Forget the plane."""
    return EpipolarMotion(motion.rotation, motion.translation / np.linalg.norm(motion.translation))

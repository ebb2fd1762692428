"""Rotation and direction of translation from matches: a robust search, then a refinement that luck cannot bend."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import poselib

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.motion_models import Correspondences, EpipolarMotion, Mask
from feature_matcher_ros.parallax import measure_parallax, plausible_depth
from feature_matcher_ros.pose_refinement import refine_motion, robust_sigma

# The search scores its models on so many matches, drawn at random; the refinement uses all.
_MAX_SEARCH_MATCHES = 500
_MIN_ITERATIONS = 100
# The noise is never taken to be less than this share of the expected one: lenses are not modelled better.
_MIN_NOISE_SHARE = 0.2
_POSELIB_CAMERA = {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1}


@dataclass(frozen=True, slots=True)
class Noise:
    """What is known of localisation noise and wrong matches before looking at them, in pixels."""

    gate_px: float  # largest distance of an inlier from its motion
    expected_px: float
    floor_px: float

    def chance_near_line(self, matches: Correspondences) -> float:
        """Probability of a wrong match to lie near its epipolar line."""
        return min(2.0 * math.sqrt(2.0) * self.gate_px * matches.image_diagonal / matches.image_area, 0.5)

    def chance_near_point(self, matches: Correspondences) -> float:
        """Probability of a wrong match to lie near the point that a homography predicts."""
        return min(2.0 * math.pi * self.gate_px**2 / matches.image_area, 0.5)


def noise_from(config: PoseConfig) -> Noise:
    """The noise that a configuration describes."""
    expected = min(config.keypoint_sigma_px, config.max_epipolar_error_px)
    return Noise(config.max_epipolar_error_px, expected, _MIN_NOISE_SHARE * expected)


@dataclass(frozen=True, slots=True, eq=False)
class EpipolarFit:
    """A refined epipolar geometry."""

    motion: EpipolarMotion
    distance2: Float  # (M,), squared Sampson distances, px²
    near_line: Mask  # (M,)
    plausible: Mask  # (M,), in front of both cameras and not impossibly near
    sigma_px: float

    @property
    def inliers(self) -> Mask:
        """Both near the epipolar line and of plausible depth."""
        return self.near_line & self.plausible


def search_epipolar(matches: Correspondences, config: PoseConfig) -> EpipolarMotion | None:
    """LO-RANSAC with the five-point solver; None if it finds nothing at all."""
    drawn = draw_matches(matches, _MAX_SEARCH_MATCHES, config.seed)
    options = ransac_options(config, _MIN_ITERATIONS) | {"max_epipolar_error": config.max_epipolar_error_px}
    pose, info = poselib.estimate_relative_pose(
        drawn.pixels0,
        drawn.pixels1,
        poselib_camera(matches.focal0),
        poselib_camera(matches.focal1),
        options,
        {"max_iterations": 0},
    )
    length = float(np.linalg.norm(pose.t))
    if info["num_inliers"] < 5 or not np.all(np.isfinite(pose.R)) or not 0.0 < length < np.inf:
        return None
    return EpipolarMotion(np.asarray(pose.R, dtype=np.float64), np.asarray(pose.t, dtype=np.float64) / length)


def refine_epipolar(motion: EpipolarMotion, matches: Correspondences, noise: Noise) -> EpipolarFit:
    """Minimise the robust Sampson error over the matches of plausible depth, twice as these depend on the motion."""
    for _ in range(2):
        fit = describe_epipolar(facing(motion, matches, noise), matches, noise)
        used = matches.only(fit.plausible)
        if len(used) < 6:
            return fit
        motion = refine_motion(fit.motion, used, noise.gate_px, noise.floor_px)
    return describe_epipolar(motion, matches, noise)


def describe_epipolar(motion: EpipolarMotion, matches: Correspondences, noise: Noise) -> EpipolarFit:
    """Measure all matches against a motion."""
    residuals = motion.residuals(matches)
    distance2 = residuals[0] ** 2
    near_line = distance2 < noise.gate_px**2
    sigma = robust_sigma(residuals, noise.gate_px, noise.floor_px)
    plausible = plausible_depth(measure_parallax(motion, matches), near_line, sigma)
    return EpipolarFit(motion, distance2, near_line, plausible, sigma)


def facing(motion: EpipolarMotion, matches: Correspondences, noise: Noise) -> EpipolarMotion:
    """The motion with the sign of direction that puts more matches in front of the cameras."""
    near_line = motion.residuals(matches)[0] ** 2 < noise.gate_px**2
    displacement = measure_parallax(motion, matches).displacement_px[near_line]
    significant = np.abs(displacement) > 3.0 * noise.expected_px
    if 2 * np.count_nonzero(displacement[significant] > 0.0) >= np.count_nonzero(significant):
        return motion
    return EpipolarMotion(motion.rotation, -motion.direction)


def draw_matches(matches: Correspondences, count: int, seed: int) -> Correspondences:
    """At most ``count`` of the matches, at random but always the same."""
    if len(matches) <= count:
        return matches
    return matches.only(np.random.default_rng(seed).permutation(len(matches))[:count])


def ransac_options(config: PoseConfig, min_iterations: int) -> dict[str, float]:
    """What all searches share."""
    return {
        "max_iterations": config.max_iterations,
        "min_iterations": min(min_iterations, config.max_iterations),
        "dyn_num_trials_mult": 1.0,
        "success_prob": config.success_probability,
        "seed": config.seed,
    }


def poselib_camera(focal: float) -> dict[str, object]:
    """A camera whose principal point is (0, 0)."""
    return _POSELIB_CAMERA | {"params": [focal, 0.0, 0.0]}

"""Rotation and direction of translation from matches: a robust search, then a refinement that luck cannot bend."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import poselib
from numpy.typing import NDArray

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.relative_pose.correspondences import Correspondences, Mask
from feature_matcher_ros.relative_pose.motion_models import EpipolarMotion
from feature_matcher_ros.relative_pose.parallax import measure_parallax, plausible_depth
from feature_matcher_ros.relative_pose.pose_refinement import (
    Loss,
    Normals,
    make_loss,
    refine,
    robust_sigma,
    weighted_sums,
)
from feature_matcher_ros.relative_pose.sampson import Sampson

# The search scores its models on this many matches, drawn at random, unless too few of them agree; the refinement uses
# all.
_MAX_SEARCH_MATCHES = 200
_MIN_SEARCH_INLIER_RATIO = 0.4
_MIN_ITERATIONS = 50
_MAX_POLISH_STEPS = 10
# A refinement weighs all matches up to this many times the gate.
REFINEMENT_GATES = 2.5
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
    """An epipolar geometry, and how all matches lie to it."""

    motion: EpipolarMotion
    sampson: Sampson
    distance2: Float  # (M,), squared Sampson distances, px²
    near_line: Mask  # (M,)
    plausible: Mask  # (M,), in front of both cameras and not impossibly near

    @property
    def inliers(self) -> Mask:
        """Both near the epipolar line and of plausible depth."""
        return self.near_line & self.plausible

    def usable_distance2(self, noise: Noise) -> Float:
        """(M,), infinite for those that a refinement must not weigh; far beyond the gate they can only be wrong."""
        usable = self.plausible & (self.distance2 < (REFINEMENT_GATES * noise.gate_px) ** 2)
        return np.where(usable, self.distance2, np.inf)


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """An epipolar geometry in refinement."""

    motion: EpipolarMotion
    sampson: Sampson

    def moved(self, step: Float) -> _Measured:
        motion = self.motion.moved(step)
        return _Measured(motion, motion.measure(self.sampson.matches))

    def normals(self, usable: Mask, loss: Loss) -> Normals:
        """The least-squares problem of the usable ones (M,) of the matches."""
        weights, cost = self._weigh(usable, loss)
        residuals = self.sampson.distance[None]
        return Normals(residuals, cost, *weighted_sums(self.motion.jacobian(self.sampson), residuals, weights))

    def cost(self, usable: Mask, loss: Loss) -> float:
        return self._weigh(usable, loss)[1]

    def _weigh(self, usable: Mask, loss: Loss) -> tuple[Float, float]:
        return loss.weigh(np.where(usable, self.sampson.distance**2, np.inf))


def search_epipolar(matches: Correspondences, config: PoseConfig) -> EpipolarMotion | None:
    """LO-RANSAC with the five-point solver; None if it finds nothing at all."""
    drawn = draw_matches(matches, _MAX_SEARCH_MATCHES, config.seed)
    motion, inlier_ratio = search_among(drawn, config, _MIN_ITERATIONS)
    if len(drawn) < len(matches) and inlier_ratio < _MIN_SEARCH_INLIER_RATIO:
        motion, _ = search_among(matches, config, _MIN_ITERATIONS)
    return motion


def search_among(
    matches: Correspondences, config: PoseConfig, min_iterations: int
) -> tuple[EpipolarMotion | None, float]:
    """The best geometry found among all of the given matches, and the share of them that agrees with it."""
    pose, info = poselib.estimate_relative_pose(
        matches.pixels0,
        matches.pixels1,
        poselib_camera(matches.focal0),
        poselib_camera(matches.focal1),
        ransac_options(config, min_iterations) | {"max_epipolar_error": config.max_epipolar_error_px},
        {"max_iterations": 0},
    )
    return (None if info["num_inliers"] < 5 else _epipolar_motion(pose)), float(info["inlier_ratio"])


def _epipolar_motion(pose: poselib.CameraPose) -> EpipolarMotion | None:
    rotation, translation = np.asarray(pose.R, dtype=np.float64), np.asarray(pose.t, dtype=np.float64)
    length = math.sqrt(translation @ translation)
    if not math.isfinite(rotation.sum()) or not 0.0 < length < math.inf:
        return None
    return EpipolarMotion(rotation, translation / length)


def polish_epipolar(motion: EpipolarMotion, matches: Correspondences, noise: Noise) -> EpipolarFit:
    """Least squares over the inliers, quickly: good enough to compare motions by."""
    fit = describe_epipolar(motion, matches, noise)
    if np.count_nonzero(fit.inliers) < 6:
        return fit
    return describe_epipolar(polish_motion(fit.motion, matches.only(fit.inliers), noise.gate_px), matches, noise)


def refine_epipolar(fit: EpipolarFit, noise: Noise) -> EpipolarFit:
    """Minimise the robust Sampson error over the matches of plausible depth, to the optimum that covariances need."""
    distance2 = fit.usable_distance2(noise)
    usable = distance2 < np.inf
    if np.count_nonzero(usable) < 6:
        return fit
    loss = make_loss(robust_sigma(distance2, 1, noise.gate_px, noise.floor_px), 1)
    refined = refine(
        _Measured(fit.motion, fit.sampson),
        lambda state, loss: state.normals(usable, loss),
        loss,
        cost=lambda state, loss: state.cost(usable, loss),
    )
    distance2 = refined.sampson.distance**2
    # Points in front and points too near are told apart by pixels; a refinement moves no point by as many.
    return replace(
        fit,
        motion=refined.motion,
        sampson=refined.sampson,
        distance2=distance2,
        near_line=distance2 < noise.gate_px**2,
    )


def polish_motion(
    motion: EpipolarMotion, matches: Correspondences, max_error_px: float, max_steps: int = _MAX_POLISH_STEPS
) -> EpipolarMotion:
    """Least squares over the given matches, but for those of a larger error."""
    start = poselib.CameraPose()
    start.R, start.t = motion.rotation, motion.direction
    pose, _ = poselib.refine_relative_pose(
        matches.pixels0,
        matches.pixels1,
        start,
        poselib_camera(matches.focal0),
        poselib_camera(matches.focal1),
        {"loss_type": "TRUNCATED", "loss_scale": max_error_px, "max_iterations": max_steps},
    )
    return _epipolar_motion(pose) or motion


def describe_epipolar(motion: EpipolarMotion, matches: Correspondences, noise: Noise) -> EpipolarFit:
    """Measure all matches against a motion, whose direction is reversed if that brings more of them in front."""
    sampson = motion.measure(matches)
    distance2 = sampson.distance**2
    near_line = distance2 < noise.gate_px**2
    sigma = robust_sigma(distance2, 1, noise.gate_px, noise.floor_px)
    parallax = measure_parallax(motion, matches)
    ahead = np.count_nonzero(near_line & (parallax.displacement_px > 3.0 * sigma))
    behind = np.count_nonzero(near_line & (parallax.displacement_px < -3.0 * sigma))
    if ahead < behind:
        motion, sampson, parallax = motion.reversed(), sampson.reversed(), parallax.reversed()
    num_far = len(distance2) - int(np.count_nonzero(near_line))
    by_chance = 0.5 * noise.chance_near_line(matches) * num_far
    plausible = plausible_depth(parallax, near_line, sigma, by_chance)
    return EpipolarFit(motion, sampson, distance2, near_line, plausible)


def draw_matches(matches: Correspondences, count: int, seed: int) -> Correspondences:
    """At most ``count`` of the matches, at random but always the same."""
    if len(matches) <= count:
        return matches
    order = _random_order(seed, len(matches).bit_length())
    return matches.only(order[order < len(matches)][:count])


@lru_cache(maxsize=32)
def _random_order(seed: int, num_bits: int) -> NDArray[np.intp]:
    """All numbers of that many bits, shuffled; those below a limit are then in random order too."""
    order = np.random.default_rng(seed).permutation(1 << num_bits)
    order.flags.writeable = False
    return order


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

"""The metric motion of a camera that sees points of measured depth again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import poselib

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import Float, MetricPoints
from feature_matcher_ros.epipolar_estimation import Noise, noise_from, poselib_camera, ransac_options
from feature_matcher_ros.geometry import rotation_from_vector
from feature_matcher_ros.motion_models import (
    Correspondences,
    EpipolarMotion,
    Mask,
    cholesky_2x2,
    epipolar_residuals,
    unwhiten_transposed,
    whiten,
)
from feature_matcher_ros.pose_covariance import noise_variance, scaled_inverse
from feature_matcher_ros.pose_refinement import Loss, Normals, make_loss, refine, robust_sigma, squared_length

_MAX_SEARCH_POINTS = 300
_MIN_ITERATIONS = 50
# The search takes depth for exact, so it must bear larger errors than noise of the pixels alone.
_SEARCH_GATES = 2.0
# Points with depth better known than this are searched with, if they are enough.
_GOOD_RELATIVE_SIGMA = 0.05
# Of the matches near their epipolar lines, so many must also have the parallax that their depth predicts.
_MIN_AGREEING_SHARE = 0.5
# 99.99 % quantile of chi-square with three degrees of freedom.
_SIGNIFICANT = 21.1


@dataclass(frozen=True, slots=True, eq=False)
class DepthMatches:
    """Matches of known depth."""

    matches: Correspondences
    inverse_depth: Float  # (K,), 1/m, of point 0 along the optical axis
    inverse_sigma: Float  # (K,), its standard deviation

    def only(self, chosen: Mask) -> DepthMatches:
        """Part of the matches."""
        return DepthMatches(self.matches.only(chosen), self.inverse_depth[chosen], self.inverse_sigma[chosen])


@dataclass(frozen=True, slots=True, eq=False)
class MetricPose:
    """A pose with a length; its change is a small motion (translation, rotation) after it, in the axes of camera 1."""

    rotation: Float  # (3, 3)
    translation: Float  # (3,), metres

    @property
    def baseline_m(self) -> float:
        """Length of the translation."""
        return float(np.linalg.norm(self.translation))

    def to_epipolar(self) -> EpipolarMotion:
        """Forget the length."""
        return EpipolarMotion(self.rotation, self.translation / self.baseline_m)

    def moved(self, step: Float) -> MetricPose:
        turn = rotation_from_vector(step[3:])
        return MetricPose(turn @ self.rotation, turn @ self.translation + step[:3])


@dataclass(frozen=True, slots=True, eq=False)
class MetricFit:
    """A refined metric pose."""

    pose: MetricPose
    covariance: Float  # (6, 6), translation before rotation
    has_depth: Mask  # (M,)
    agreeing: Mask  # (M,), those of known depth that are seen where the pose predicts

    def moves(self) -> bool:
        """Whether the translation is more than its own uncertainty."""
        translation = self.pose.translation
        return float(translation @ np.linalg.solve(self.covariance[:3, :3], translation)) > _SIGNIFICANT


def fit_metric(matches: Correspondences, metric: MetricPoints, config: PoseConfig) -> MetricFit | None:
    """Estimate the pose from the matches of known depth; None if they are too few or contradict each other.

    Args:
        matches: M of them.
        metric: their points, as far as known; only depths and their uncertainty are used, the rays are those
            of the matches.
        config: thresholds and seed.
    """
    known, known_depth = _depth_matches(matches, metric)
    if np.count_nonzero(known) < config.min_inliers:
        return None
    noise = noise_from(config)
    found = _search(known_depth, config)
    if found is None:
        return None
    pose = _refine(found, known_depth, noise)
    length2 = squared_length(_residuals(pose, known_depth, _sigma(pose, known_depth, noise))[0])
    agreeing = length2 < noise.gate_px**2
    covariance = _covariance(pose, known_depth, noise)
    if covariance is None or not _is_consistent(pose, known_depth, agreeing, noise, config):
        return None
    return MetricFit(pose, covariance, known, _scatter(agreeing, known))


def _depth_matches(matches: Correspondences, metric: MetricPoints) -> tuple[Mask, DepthMatches]:
    depth, sigma = metric.points[:, 2], metric.sigma_m
    with np.errstate(invalid="ignore"):
        known = (depth > 0.0) & (sigma > 0.0) & np.isfinite(depth) & np.isfinite(sigma)
    return known, DepthMatches(matches.only(known), 1.0 / depth[known], sigma[known] / depth[known] ** 2)


def _search(known: DepthMatches, config: PoseConfig) -> MetricPose | None:
    """LO-RANSAC with the three-point solver."""
    good = known.inverse_sigma < _GOOD_RELATIVE_SIGMA * known.inverse_depth
    if np.count_nonzero(good) >= max(len(good) // 4, 2 * config.min_inliers):
        known = known.only(good)
    chosen = np.random.default_rng(config.seed).permutation(len(known.matches))[:_MAX_SEARCH_POINTS]
    points = (known.matches.rays0[:, chosen] / (known.matches.focal0 * known.inverse_depth[chosen])).T
    pose, info = poselib.estimate_absolute_pose(
        np.ascontiguousarray(known.matches.rays1[:2, chosen].T),
        np.ascontiguousarray(points),
        poselib_camera(known.matches.focal1),
        ransac_options(config, _MIN_ITERATIONS) | {"max_reproj_error": _SEARCH_GATES * config.max_epipolar_error_px},
        {"max_iterations": 0},
    )
    rotation, translation = np.asarray(pose.R, dtype=np.float64), np.asarray(pose.t, dtype=np.float64)
    if info["num_inliers"] < 4 or not np.all(np.isfinite(rotation)) or not np.all(np.isfinite(translation)):
        return None
    return MetricPose(rotation, translation)


def _sigma(pose: MetricPose, known: DepthMatches, noise: Noise) -> float:
    """Noise of the pixels: across the epipolar lines, where depth has no say."""
    if pose.baseline_m < 1e-12:
        return noise.expected_px
    residuals = epipolar_residuals(pose.to_epipolar().matrix, known.matches)
    return robust_sigma(residuals, noise.gate_px, noise.floor_px)


def _refine(pose: MetricPose, known: DepthMatches, noise: Noise) -> MetricPose:
    sigma = _sigma(pose, known, noise)
    return refine(pose, lambda state, loss: _normals(state, known, sigma, loss), make_loss(sigma, 2))


def _normals(pose: MetricPose, known: DepthMatches, sigma_px: float, loss: Loss | None) -> Normals:
    residuals, jacobian = _residuals(pose, known, sigma_px)
    weights = np.ones(residuals.shape[1]) if loss is None else loss.weights(squared_length(residuals))
    information, gradient = np.zeros((6, 6)), np.zeros(6)
    for derivative, residual in zip(jacobian, residuals, strict=True):
        weighted = derivative * weights
        information += weighted @ derivative.T
        gradient += weighted @ residual
    return Normals(residuals, information, gradient)


def _residuals(pose: MetricPose, known: DepthMatches, sigma_px: float) -> tuple[Float, Float]:
    """Whitened differences (2, K) between points 1 and their prediction, and their derivatives (2, 6, K).

    The noise is that of point 1, of point 0 carried over, and of inverse depth, which for a stereo camera is the
    same near and far; written in depth, points measured too near would weigh too much. The derivatives are
    taken where point 0 and depth most likely are, given point 1: at the measured ones they would be
    correlated with the residuals and shorten the translation (errors in variables; Fuller, Measurement
    Error Models, 1987, chapter 3).
    """
    rays0 = known.matches.rays0 / known.matches.focal0
    moved = pose.rotation @ rays0 + pose.translation[:, None] * known.inverse_depth
    depth = np.where(np.abs(moved[2]) < 1e-9, 1e-9, moved[2])
    scale = known.matches.focal1 / depth
    difference = known.matches.rays1[:2] - moved[:2] * scale
    by_moved = np.zeros((2, 3, len(depth)))
    by_moved[0, 0] = by_moved[1, 1] = scale
    by_moved[:, 2] = -moved[:2] * scale / depth
    to_moved = np.concatenate(
        [
            np.repeat(pose.rotation[:, :2, None] / known.matches.focal0, len(depth), axis=2),
            pose.translation[:, None, None] * (known.inverse_sigma / sigma_px),
        ],
        axis=1,
    )  # (3, 3, K), of moved by point 0 and inverse depth, in units of the noise of a pixel
    by_measured = np.einsum("ikm,kjm->ijm", by_moved, to_moved)
    (a, b, c), (d, e, f) = by_measured
    factor = cholesky_2x2(1.0 + a * a + b * b + c * c, a * d + b * e + c * f, 1.0 + d * d + e * e + f * f)
    residuals = whiten(factor, difference)
    correction = np.einsum("ijm,im->jm", by_measured, unwhiten_transposed(factor, residuals))  # (3, K)
    likely_inverse_depth = known.inverse_depth + correction[2] * known.inverse_sigma / sigma_px
    likely_moved = moved + np.einsum("kjm,jm->km", to_moved, correction)
    by_rotation = np.cross(likely_moved, by_moved, axisb=1, axisa=0, axisc=1)
    by_pose = np.concatenate([by_moved * likely_inverse_depth, by_rotation], axis=1)  # (2, 6, K)
    jacobian = -np.stack([whiten(factor, by_pose[:, k]) for k in range(6)], axis=1)
    explained = np.sum(whiten(factor, by_measured[:, 2]) ** 2, axis=0)
    by_translation = np.stack([whiten(factor, by_moved[:, k]) for k in range(3)], axis=1)
    weighted = by_translation * (known.inverse_sigma**2 * (1.0 - explained))
    global EXCESS
    EXCESS = np.einsum("ikm,ilm->kl", weighted, by_translation)
    return residuals, jacobian


def _covariance(pose: MetricPose, known: DepthMatches, noise: Noise) -> Float | None:
    sigma = _sigma(pose, known, noise)
    loss = make_loss(sigma, 2)
    inside = squared_length(_residuals(pose, known, sigma)[0]) < loss.cutoff_px**2
    if np.count_nonzero(inside) < 4:
        return None
    linear = _normals(pose, known.only(inside), sigma, None)
    variance = noise_variance(linear.residuals, loss, 6, noise)
    curvature = linear.information.copy()
    curvature[:3, :3] -= EXCESS
    inverse = scaled_inverse(curvature, 1.0)
    return None if inverse is None else inverse @ linear.information @ inverse * variance


def _is_consistent(pose: MetricPose, known: DepthMatches, agreeing: Mask, noise: Noise, config: PoseConfig) -> bool:
    """Whether the pose explains enough of the matches, and depth agrees with what the pixels say."""
    if np.count_nonzero(agreeing) < config.min_inliers:
        return False
    if pose.baseline_m < 1e-12:
        return True
    near_line = epipolar_residuals(pose.to_epipolar().matrix, known.matches)[0] ** 2 < noise.gate_px**2
    return np.count_nonzero(agreeing) >= _MIN_AGREEING_SHARE * np.count_nonzero(near_line)


def _scatter(agreeing: Mask, known: Mask) -> Mask:
    scattered = np.zeros(len(known), dtype=np.bool_)
    scattered[known] = agreeing
    return scattered

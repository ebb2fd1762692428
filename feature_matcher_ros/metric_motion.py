"""The metric motion of a camera that sees points of measured depth again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import poselib

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import Float, MetricPoints
from feature_matcher_ros.depth_residuals import (
    DepthMatches,
    MetricPose,
    depth_linearization,
    depth_noise_information,
    depth_residuals,
)
from feature_matcher_ros.epipolar_estimation import Noise, noise_from, poselib_camera, ransac_options
from feature_matcher_ros.motion_models import Correspondences, Mask, epipolar_residuals
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
    has_depth, known = _depth_matches(matches, metric)
    if len(known) < config.min_inliers:
        return None
    noise = noise_from(config)
    found = _search(known, config)
    if found is None:
        return None
    pose = _refine(found, known, noise)
    agreeing = squared_length(depth_residuals(pose, known, _sigma(pose, known, noise))) < noise.gate_px**2
    if not _is_consistent(pose, known, agreeing, noise, config):
        return None
    covariance = _covariance(pose, known, noise)
    if covariance is None:
        return None
    all_agreeing = np.zeros(len(matches), dtype=np.bool_)
    all_agreeing[has_depth] = agreeing
    return MetricFit(pose, covariance, has_depth, all_agreeing)


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
    chosen = np.random.default_rng(config.seed).permutation(len(known))[:_MAX_SEARCH_POINTS]
    points = known.matches.rays0[:, chosen] / (known.matches.focal0 * known.inverse_depth[chosen])
    pose, info = poselib.estimate_absolute_pose(
        np.ascontiguousarray(known.matches.rays1[:2, chosen].T),
        np.ascontiguousarray(points.T),
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
    residuals, jacobian = depth_linearization(pose, known, sigma_px)
    weights = np.ones(len(known)) if loss is None else loss.weights(squared_length(residuals))
    information, gradient = np.zeros((6, 6)), np.zeros(6)
    for derivative, residual in zip(jacobian, residuals, strict=True):
        weighted = derivative * weights
        information += weighted @ derivative.T
        gradient += weighted @ residual
    return Normals(residuals, information, gradient)


def _covariance(pose: MetricPose, known: DepthMatches, noise: Noise) -> Float | None:
    """Covariance (6, 6) of the pose, corrected for noise in the derivatives; None where it is undetermined."""
    sigma = _sigma(pose, known, noise)
    loss = make_loss(sigma, 2)
    used = known.only(squared_length(depth_residuals(pose, known, sigma)) < loss.cutoff_px**2)
    linear = _normals(pose, used, sigma, None)
    curvature = linear.information.copy()
    curvature[:3, :3] -= depth_noise_information(pose, used, sigma)
    inverse = scaled_inverse(curvature, 1.0)
    if inverse is None:
        return None
    return noise_variance(linear.residuals, loss, 6, noise) * inverse @ linear.information @ inverse


def _is_consistent(pose: MetricPose, known: DepthMatches, agreeing: Mask, noise: Noise, config: PoseConfig) -> bool:
    """Whether the pose explains enough of the matches, and depth agrees with what the pixels say."""
    if np.count_nonzero(agreeing) < config.min_inliers:
        return False
    if pose.baseline_m < 1e-12:
        return True
    near_line = epipolar_residuals(pose.to_epipolar().matrix, known.matches)[0] ** 2 < noise.gate_px**2
    return bool(np.count_nonzero(agreeing) >= _MIN_AGREEING_SHARE * np.count_nonzero(near_line))

"""The metric motion of a camera that sees points of measured depth again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import poselib

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import Float, MetricPoints
from feature_matcher_ros.relative_pose.correspondences import Correspondences, Mask
from feature_matcher_ros.relative_pose.depth_residuals import (
    DepthMatches,
    MetricPose,
    depth_linearization,
    depth_noise_information,
    depth_residuals,
)
from feature_matcher_ros.relative_pose.epipolar_estimation import (
    Noise,
    describe_epipolar,
    noise_from,
    poselib_camera,
    ransac_options,
)
from feature_matcher_ros.relative_pose.motion_models import orthogonal_plane
from feature_matcher_ros.relative_pose.pose_covariance import noise_variance, scaled_inverse
from feature_matcher_ros.relative_pose.pose_refinement import (
    Loss,
    Normals,
    make_loss,
    normals,
    refine,
    robust_sigma,
    squared_length,
    weighted_sums,
)

_MAX_SEARCH_POINTS = 300
_MIN_ITERATIONS = 50
# The search takes depth for exact, so it must tolerate larger errors than the noise of the pixels alone.
_SEARCH_GATES = 2.0
# The search takes only points whose depth is known better than this, if there are enough of them.
_GOOD_RELATIVE_SIGMA = 0.05
# This share of the matches near their epipolar lines must also have the parallax that their depth predicts.
_MIN_AGREEING_SHARE = 0.5
# Fewer matches without depth than this share of those with depth are not worth a second refinement.
_MIN_OTHERS_SHARE = 0.2
# 99.99 % quantile of chi-square with three degrees of freedom.
_SIGNIFICANT = 21.1


@dataclass(frozen=True, slots=True, eq=False)
class MetricFit:
    """A refined metric pose."""

    pose: MetricPose
    covariance: Float  # (6, 6), translation before rotation

    def moves(self) -> bool:
        """Whether the translation is more than its own uncertainty."""
        translation = self.pose.translation
        return float(translation @ np.linalg.solve(self.covariance[:3, :3], translation)) > _SIGNIFICANT


@dataclass(frozen=True, slots=True, eq=False)
class _Observations:
    """All that a metric pose is refined with."""

    known: DepthMatches
    others: Correspondences  # without depth, but good to know rotation and direction by
    sigma_px: float

    def normals(self, pose: MetricPose, loss: Loss | None) -> Normals:
        """Residuals (2, K + L) of both kinds, the second component of an epipolar one being zero."""
        residuals, jacobian = depth_linearization(pose, self.known, self.sigma_px)
        length2 = squared_length(residuals)
        weights, cost = (None, float(length2.sum())) if loss is None else loss.weigh(length2)
        information, gradient = weighted_sums(jacobian, residuals, weights)
        if len(self.others) == 0:
            return Normals(residuals, cost, information, gradient)
        epipolar, by_pose = normals(pose.to_epipolar(), self.others, loss), _epipolar_by_pose(pose)
        padded = np.concatenate([epipolar.residuals, np.zeros_like(epipolar.residuals)])
        return Normals(
            np.concatenate([residuals, padded], axis=1),
            cost + epipolar.cost,
            information + by_pose.T @ epipolar.information @ by_pose,
            gradient + by_pose.T @ epipolar.gradient,
        )

    def within(self, pose: MetricPose, loss: Loss) -> _Observations:
        """The observations that the loss does not reject."""
        limit2 = loss.cutoff_px**2
        known = self.known.only(squared_length(depth_residuals(pose, self.known, self.sigma_px)) < limit2)
        if len(self.others) == 0:
            return _Observations(known, self.others, self.sigma_px)
        others = self.others.only(pose.to_epipolar().residuals(self.others)[0] ** 2 < limit2)
        return _Observations(known, others, self.sigma_px)


def _epipolar_by_pose(pose: MetricPose) -> Float:
    """Derivative (5, 6) of the parameters of ``EpipolarMotion`` by those of ``MetricPose``."""
    by_pose = np.zeros((5, 6))
    by_pose[:3, 3:] = np.eye(3)
    by_pose[3:, :3] = orthogonal_plane(pose.translation / pose.baseline_m).T / pose.baseline_m
    return by_pose


def depth_matches(matches: Correspondences, metric: MetricPoints) -> tuple[Mask, DepthMatches]:
    """Which of the matches (M,) have a known depth, and these."""
    depth, sigma = metric.points[:, 2], metric.sigma_m
    with np.errstate(invalid="ignore"):
        known = (depth > 0.0) & (sigma > 0.0) & np.isfinite(depth) & np.isfinite(sigma)
    return known, DepthMatches(matches.only(known), 1.0 / depth[known], sigma[known] / depth[known] ** 2)


def fit_metric(matches: Correspondences, has_depth: Mask, known: DepthMatches, config: PoseConfig) -> MetricFit | None:
    """Estimate the pose from the matches of known depth; None if they are too few or contradict each other.

    Once the camera is known to have moved, matches without depth help to know rotation and direction.

    Args:
        matches: M of them.
        has_depth: (M,), which of them have a known depth.
        known: these.
        config: thresholds and seed.
    """
    if len(known) < config.min_inliers:
        return None
    noise = noise_from(config)
    found = _search(known, config)
    if found is None:
        return None
    alone = _refine(found, known, matches.only(np.zeros(0, dtype=np.intp)), noise)
    if alone is None or not _is_consistent(alone.pose, known, noise, config):
        return None
    if not alone.moves():
        return alone
    others = (describe_epipolar(alone.pose.to_epipolar(), matches, noise).usable_distance2(noise) < np.inf) & ~has_depth
    if np.count_nonzero(others) < _MIN_OTHERS_SHARE * len(known):
        return alone
    return _refine(alone.pose, known, matches.only(others), noise) or alone


def agreeing_with(pose: MetricPose, known: DepthMatches, noise: Noise) -> Mask:
    """Which matches of known depth (K,) are seen where the pose predicts."""
    return squared_length(depth_residuals(pose, known, _sigma(pose, known, noise))) < noise.gate_px**2


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
    residuals = pose.to_epipolar().residuals(known.matches)
    return robust_sigma(residuals[0] ** 2, 1, noise.gate_px, noise.floor_px)


def _refine(pose: MetricPose, known: DepthMatches, others: Correspondences, noise: Noise) -> MetricFit | None:
    """Move a pose to the robust optimum nearby; None where it is undetermined."""
    sigma = _sigma(pose, known, noise)
    observations, loss = _Observations(known, others, sigma), make_loss(sigma, 2)
    pose = refine(pose, observations.normals, loss)
    covariance = _covariance(pose, observations.within(pose, loss), loss, noise)
    return None if covariance is None else MetricFit(pose, covariance)


def _covariance(pose: MetricPose, used: _Observations, loss: Loss, noise: Noise) -> Float | None:
    """Covariance (6, 6) of the pose, corrected for noise in the derivatives; None where it is undetermined."""
    linear = used.normals(pose, None)
    curvature = linear.information.copy()
    curvature[:3, :3] -= depth_noise_information(pose, used.known, used.sigma_px)
    if len(used.others):
        by_pose, motion = _epipolar_by_pose(pose), pose.to_epipolar()
        every = np.ones(len(used.others), dtype=np.bool_)
        information, epipolar_curvature = motion.information(motion.measure(used.others), every)
        curvature -= by_pose.T @ (information - epipolar_curvature) @ by_pose
    inverse = scaled_inverse(curvature, 1.0)
    if inverse is None:
        return None
    # Epipolar residuals have one component only, so the noise is that of the others.
    length2 = squared_length(linear.residuals[:, : len(used.known)])
    return noise_variance(length2, 2, loss, 6, noise) * inverse @ linear.information @ inverse


def _is_consistent(pose: MetricPose, known: DepthMatches, noise: Noise, config: PoseConfig) -> bool:
    """Whether the pose explains enough of the matches, and depth agrees with what the pixels say."""
    num_agreeing = int(np.count_nonzero(agreeing_with(pose, known, noise)))
    if num_agreeing < config.min_inliers:
        return False
    if pose.baseline_m < 1e-12:
        return True
    near_line = pose.to_epipolar().residuals(known.matches)[0] ** 2 < noise.gate_px**2
    return bool(num_agreeing >= _MIN_AGREEING_SHARE * np.count_nonzero(near_line))

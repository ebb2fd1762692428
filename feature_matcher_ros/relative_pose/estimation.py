"""The motion between two views: what kind it is, how large, and how well it is known.

Where a look at some of the matches leaves no doubt that the camera moved before things of different depth,
see ``quick_look``, only the epipolar geometry is fitted. Else the epipolar geometry (LO-RANSAC of PoseLib),
the best homography, the best rotation and no motion at all compete for all matches, see
``motion_selection``. The winner is refined over all matches; its covariance
follows from the last step. Metric points, where there are enough of them, give the translation its length.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import (
    Camera,
    Estimator,
    Float,
    MetricPoints,
    MotionType,
    PoseEstimate,
    RelativePose,
    ScaleSource,
    Status,
)
from feature_matcher_ros.geometry import normalize_points
from feature_matcher_ros.relative_pose.correspondences import Correspondences, Mask, are_distinct, make_correspondences
from feature_matcher_ros.relative_pose.epipolar_estimation import describe_epipolar, noise_from
from feature_matcher_ros.relative_pose.metric_motion import MetricFit, agreeing_with, depth_matches, fit_metric
from feature_matcher_ros.relative_pose.motion_selection import log10_false_alarms
from feature_matcher_ros.relative_pose.unscaled_motion import Solution, is_planar, solve_unscaled

# How often, at most, chance alone may be expected to bring such an agreement of nothing but wrong matches.
_MAX_LOG10_FALSE_ALARMS = -2.0
_SAMPLE_SIZE = {
    MotionType.GENERAL: 5,
    MotionType.PLANAR: 4,
    MotionType.ROTATION_ONLY: 2,
    MotionType.STATIC: 1,
}
# A pose with a larger standard deviation than this is not given.
_MAX_ROTATION_SIGMA = np.radians(3.0)
_MAX_DIRECTION_SIGMA = np.radians(30.0)


def estimate_relative_pose(
    points0: NDArray[np.floating],
    points1: NDArray[np.floating],
    camera0: Camera,
    camera1: Camera,
    config: PoseConfig,
    *,
    metric: MetricPoints | None = None,
) -> PoseEstimate:
    """Estimate ``cam1_from_cam0`` from matched pixels.

    Args:
        points0: (M, 2) pixels in image 0, as seen, distortion included.
        points1: (M, 2) pixels in image 1.
        camera0: of image 0.
        camera1: of image 1.
        config: thresholds; its seed makes the result repeatable to the last bit.
        metric: where the matches are in the axes of camera 0, as far as known.

    Returns:
        The pose and its inliers, or the reason why there is none; bad input geometry is a reason, not an error.
        Between two motions that a plane shows alike the status is DEGENERATE and the motion type PLANAR.
        Where metric points confirm that there is no translation, ``baseline_m`` is 0.
    """
    x0, x1 = normalize_points(points0, camera0), normalize_points(points1, camera1)
    return estimate_from_normalized(x0, x1, camera0, camera1, config, metric=metric)


def estimate_from_normalized(
    normalized0: Float,
    normalized1: Float,
    camera0: Camera,
    camera1: Camera,
    config: PoseConfig,
    *,
    metric: MetricPoints | None = None,
) -> PoseEstimate:
    """Do the same with matches (M, 2) that are undistorted and normalised already."""
    matches, usable = make_correspondences(normalized0, normalized1, camera0, camera1)
    if not are_distinct(matches, np.arange(len(matches)), config.min_matches):
        return _failure(Status.TOO_FEW_MATCHES, MotionType.UNKNOWN, np.zeros(len(usable), dtype=np.bool_))
    solution = _solve(matches, None if metric is None else _only(metric, usable), config)
    if _stands(solution, matches, config):
        solution = _standing(solution)
    inliers = np.zeros(len(usable), dtype=np.bool_)
    inliers[usable] = solution.inliers
    if not _is_supported(solution, matches, config):
        return _failure(Status.TOO_FEW_INLIERS, MotionType.UNKNOWN, inliers)
    if solution.pose is None:
        return _failure(Status.DEGENERATE, solution.motion_type, inliers)
    if not _is_certain(solution.pose):
        return _failure(Status.DEGENERATE, MotionType.UNKNOWN, inliers)
    return PoseEstimate(Status.OK, solution.pose, solution.motion_type, inliers)


def _only(metric: MetricPoints, usable: Mask) -> MetricPoints:
    return MetricPoints(metric.points[usable], metric.sigma_m[usable], metric.scale_source)


def _solve(matches: Correspondences, metric: MetricPoints | None, config: PoseConfig) -> Solution:
    """Prefer the pose that has a length; where its length is not significant, the matches alone decide."""
    if metric is None:
        return solve_unscaled(matches, config)
    has_depth, known = depth_matches(matches, metric)
    fit = fit_metric(matches, has_depth, known, config)
    if fit is None:
        return solve_unscaled(matches, config)
    if fit.moves():
        solution = _metric_solution(matches, fit, metric.scale_source, config)
        solution.inliers[has_depth] &= agreeing_with(fit.pose, known, noise_from(config))
        return solution
    solution = solve_unscaled(matches, config)
    if solution.pose is None or solution.pose.direction is not None:
        return solution
    still = replace(solution.pose, baseline_m=0.0, scale_source=metric.scale_source, covariance=fit.covariance)
    return replace(solution, pose=still)


def _stands(solution: Solution, matches: Correspondences, config: PoseConfig) -> bool:
    """Whether a turn is so small that exposure, compression and the lens could have caused it."""
    if solution.motion_type is not MotionType.ROTATION_ONLY:
        return False
    moved = matches.rays1[:2, solution.inliers] - matches.rays0[:2, solution.inliers]
    return bool(np.median(np.linalg.norm(moved, axis=0)) < config.standstill_px)


def _standing(solution: Solution) -> Solution:
    """Call the motion STATIC; the tiny turn that was measured stays in the pose, within its covariance."""
    pose = None if solution.pose is None else replace(solution.pose, motion_type=MotionType.STATIC)
    return replace(solution, motion_type=MotionType.STATIC, pose=pose)


def _metric_solution(
    matches: Correspondences, fit: MetricFit, scale_source: ScaleSource, config: PoseConfig
) -> Solution:
    motion = fit.pose.to_epipolar()
    epipolar = describe_epipolar(motion, matches, noise_from(config))
    motion_type = MotionType.PLANAR if is_planar(epipolar, matches, config) else MotionType.GENERAL
    pose = RelativePose(
        motion.rotation,
        motion.direction,
        fit.pose.baseline_m,
        scale_source,
        motion_type,
        fit.covariance,
        Estimator.ABSOLUTE_POSE,
    )
    return Solution(motion_type, pose, epipolar.inliers)


def _failure(status: Status, motion_type: MotionType, inliers: Mask) -> PoseEstimate:
    return PoseEstimate(status, None, motion_type, inliers)


def _is_supported(solution: Solution, matches: Correspondences, config: PoseConfig) -> bool:
    """Whether there are enough inliers, and more than luck would bring."""
    numbers = np.flatnonzero(solution.inliers)
    if not are_distinct(matches, numbers, config.min_inliers):
        return False
    noise = noise_from(config)
    is_general = solution.motion_type is MotionType.GENERAL
    chance = noise.chance_near_line(matches) if is_general else noise.chance_near_point(matches)
    sample_size = _SAMPLE_SIZE[solution.motion_type]
    return log10_false_alarms(len(matches), len(numbers), sample_size, chance) < _MAX_LOG10_FALSE_ALARMS


def _is_certain(pose: RelativePose) -> bool:
    if not np.all(np.isfinite(pose.covariance)):
        return False
    if not _is_within(pose.covariance[-3:, -3:], _MAX_ROTATION_SIGMA):
        return False
    return pose.direction is None or _is_within(
        pose.covariance[:3, :3], _MAX_DIRECTION_SIGMA * (pose.baseline_m or 1.0)
    )


def _is_within(covariance: Float, max_sigma: float) -> bool:
    """Whether no direction has a larger standard deviation."""
    variances = covariance.diagonal().sum()  # at least the largest one, which takes longer to find
    return bool(variances <= max_sigma**2 or np.linalg.eigvalsh(covariance)[-1] <= max_sigma**2)

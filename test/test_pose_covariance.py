"""Covariances against the errors that are really made, and derivatives against differences."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic_pairs import PINHOLE, Problem, Settings, make_problem, stereo_points

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import MotionType, RelativePose
from feature_matcher_ros.geometry import normalize_points
from feature_matcher_ros.relative_pose import estimate_relative_pose
from feature_matcher_ros.relative_pose.correspondences import make_correspondences
from feature_matcher_ros.relative_pose.depth_residuals import MetricPose, depth_residuals
from feature_matcher_ros.relative_pose.metric_motion import depth_matches
from feature_matcher_ros.relative_pose.motion_models import EpipolarMotion, HomographyMotion, RotationMotion
from feature_matcher_ros.relative_pose.pose_refinement import damped_step, normals

NUM_TRIALS = 200
CONFIG = PoseConfig()


def squared_error(pose: RelativePose, problem: Problem) -> float:
    """Normalised estimation error squared: the small motion that leads from the estimate to the truth, in the axes
    of camera 1, measured by the covariance."""
    turn = Rotation.from_matrix(problem.rotation) * Rotation.from_matrix(pose.rotation).inv()
    if pose.direction is None:
        error = turn.as_rotvec()
        return float(error @ np.linalg.solve(pose.covariance, error))
    true = problem.direction if pose.baseline_m is None else problem.cam1_from_cam0[:3, 3]
    found = pose.direction * (1.0 if pose.baseline_m is None else pose.baseline_m)
    error = np.concatenate([true - turn.apply(found), turn.as_rotvec()])
    return float(error @ np.linalg.pinv(pose.covariance, rcond=1e-10, hermitian=True) @ error)


def squared_errors(kind: MotionType, with_depth: bool = False) -> np.ndarray:
    errors = []
    for seed in range(3 * NUM_TRIALS):
        problem = make_problem(kind, seed)
        metric = stereo_points(problem, seed) if with_depth else None
        camera = problem.camera
        found = estimate_relative_pose(problem.points0, problem.points1, camera, camera, CONFIG, metric=metric)
        if found.pose is not None:  # a plane may leave two motions
            errors.append(squared_error(found.pose, problem))
        if len(errors) == NUM_TRIALS:
            return np.array(errors)
    raise AssertionError(f"only {len(errors)} of {3 * NUM_TRIALS} problems were solved")


@pytest.mark.parametrize(
    ("kind", "with_depth", "degrees"),
    [
        (MotionType.GENERAL, False, 5),
        (MotionType.PLANAR, False, 5),
        (MotionType.ROTATION_ONLY, False, 3),
        (MotionType.GENERAL, True, 6),
        (MotionType.PLANAR, True, 6),
    ],
)
def test_covariance_is_consistent_with_the_errors(kind, with_depth, degrees):
    """The mean of chi-square variables lies within its 95 % interval, and few are improbably large."""
    errors = squared_errors(kind, with_depth)
    half_width = 1.96 * np.sqrt(2.0 * degrees / NUM_TRIALS)
    assert abs(np.mean(errors) - degrees) < half_width
    assert np.max(errors) < 8.0 * degrees


def test_rank_and_units_of_the_covariance():
    problem = make_problem(MotionType.GENERAL, 2)
    found = estimate_relative_pose(problem.points0, problem.points1, PINHOLE, PINHOLE, CONFIG)
    assert found.pose is not None
    values, vectors = np.linalg.eigh(found.pose.covariance)
    assert abs(values[0]) < 1e-12 * values[-1] and values[1] > 1e-12 * values[-1]
    assert abs(vectors[:3, 0] @ found.pose.direction) > 1.0 - 1e-6  # the length is what is not known

    metric = stereo_points(problem, 2)
    scaled = replace(metric, points=metric.points * 10.0, sigma_m=metric.sigma_m * 10.0)
    small, large = (
        estimate_relative_pose(problem.points0, problem.points1, PINHOLE, PINHOLE, CONFIG, metric=points).pose
        for points in (metric, scaled)
    )
    assert small is not None and large is not None and small.baseline_m is not None
    assert large.baseline_m == pytest.approx(10.0 * small.baseline_m, rel=1e-6)
    assert np.allclose(large.covariance[:3, :3], 100.0 * small.covariance[:3, :3], rtol=1e-4)
    assert np.allclose(large.covariance[3:, 3:], small.covariance[3:, 3:], rtol=1e-4)


def test_lucky_matches_claim_no_more_than_the_expected_noise_supports():
    """Without any noise, the residuals of few matches would promise a perfect pose."""
    draws = [Settings(noise_px=noise, outlier_ratio=0.0, parallax_px=(20.0, 30.0)) for noise in (0.0, 0.7)]
    exact, noisy = (
        estimate_relative_pose(problem.points0[:25], problem.points1[:25], PINHOLE, PINHOLE, CONFIG).pose
        for problem in (make_problem(MotionType.GENERAL, 2, settings) for settings in draws)
    )
    assert exact is not None and noisy is not None
    assert 0.05 < np.trace(exact.covariance) / np.trace(noisy.covariance) < 1.0


def normalized(problem: Problem):
    return (normalize_points(points, problem.camera) for points in (problem.points0, problem.points1))


def true_matches(problem: Problem):
    matches, _ = make_correspondences(*normalized(problem), problem.camera, problem.camera)
    return matches.only(problem.true_matches)


@pytest.mark.parametrize("name", ("epipolar", "rotation", "homography"))
def test_derivatives_of_motions(name):
    """Exact for Sampson distances; for transfer residuals but for the whitening, which is held fixed."""
    problem = make_problem(MotionType.GENERAL, 7)
    matches = true_matches(problem)
    plane = problem.rotation + np.outer(problem.direction * 0.05, [0.1, 0.2, 0.97])
    motion, tolerance = {
        "epipolar": (EpipolarMotion(problem.rotation, problem.direction), 1e-6),
        "rotation": (RotationMotion(problem.rotation), 0.05),
        "homography": (HomographyMotion(plane / np.linalg.norm(plane)), 0.15),
    }[name]
    residuals, by_step = motion.linearize(matches)
    assert np.allclose(residuals, motion.residuals(matches))
    jacobian = by_step.swapaxes(0, 1)
    for column, unit in zip(jacobian, np.eye(len(jacobian)) * 1e-6, strict=True):
        numeric = (motion.moved(unit).residuals(matches) - motion.moved(-unit).residuals(matches)) / 2e-6
        assert np.max(np.abs(column - numeric)) < tolerance * np.max(np.abs(numeric))


def test_second_derivative_of_the_epipolar_cost():
    problem = make_problem(MotionType.GENERAL, 2)
    matches = true_matches(problem)
    motion = EpipolarMotion(problem.rotation, problem.direction)
    for _ in range(15):
        motion = motion.moved(damped_step(normals(motion, matches, None), 0.0))

    def cost(first: np.ndarray, second: np.ndarray) -> float:
        return 0.5 * float(np.sum(motion.moved(first + second).residuals(matches) ** 2))

    steps = np.eye(5) * 1e-4
    numeric = [[cost(a, b) - cost(a, -b) - cost(-a, b) + cost(-a, -b) for b in steps] for a in steps]
    _, analytic = motion.information(motion.measure(matches), np.ones(len(matches), bool))
    assert np.allclose(analytic, np.array(numeric) / 4e-8, atol=1e-5 * np.max(np.abs(analytic)))


def test_depth_residuals_are_white():
    """At the true pose, every component has the noise of a pixel, near and far, along and across."""
    residuals = []
    for seed in range(20):
        problem = make_problem(MotionType.GENERAL, seed, Settings(outlier_ratio=0.0))
        matches, _ = make_correspondences(*normalized(problem), PINHOLE, PINHOLE)
        _, known = depth_matches(matches, stereo_points(problem, seed))
        pose = MetricPose(problem.rotation, problem.cam1_from_cam0[:3, 3])
        residuals.append(depth_residuals(pose, known, 0.5))
    covariance = np.cov(np.concatenate(residuals, axis=1))
    assert np.allclose(covariance, 0.25 * np.eye(2), atol=0.02)

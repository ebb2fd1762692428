"""Covariances against the errors that are really made, and derivatives against differences."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic_pairs import PINHOLE, Problem, Settings, make_problem, stereo_points

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import MotionType, RelativePose
from feature_matcher_ros.geometry import normalize_points, project_points, transform_points
from feature_matcher_ros.odometry import covariance_after
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
    if pose.direction is None and pose.baseline_m is None:
        error = turn.as_rotvec()
        return float(error @ np.linalg.solve(pose.covariance, error))
    if pose.direction is None:
        error = np.concatenate([problem.cam1_from_cam0[:3, 3], turn.as_rotvec()])
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


@pytest.mark.parametrize(("kind", "most"), [(MotionType.ROTATION_ONLY, 7.0), (MotionType.STATIC, 11.0)])
def test_where_depth_shows_no_translation_its_uncertainty_is_that_of_the_depth(kind, most):
    """Cameras that did move, by as little as the covariance leaves open, make errors of its size.

    Six on the mean; more where such a camera is called STATIC, which takes from its rotation what made up for that.
    """
    rng, errors = np.random.default_rng(4), []
    for seed in range(60):
        problem = make_problem(kind, seed)
        still = stereo_pose(problem, seed)
        assert still.baseline_m == 0.0 and still.covariance.shape == (6, 6)
        unseen = rng.multivariate_normal(np.zeros(3), still.covariance[:3, :3])
        problem = displaced(problem, unseen, rng)
        found = stereo_pose(problem, seed)
        if found.baseline_m == 0.0:
            errors.append(squared_error(found, problem))
    assert len(errors) > 50
    assert 3.0 < np.mean(errors) < most


def stereo_pose(problem: Problem, seed: int) -> RelativePose:
    camera, metric = problem.camera, stereo_points(problem, seed)
    pose = estimate_relative_pose(problem.points0, problem.points1, camera, camera, CONFIG, metric=metric).pose
    assert pose is not None
    return pose


def displaced(problem: Problem, translation: np.ndarray, rng: np.random.Generator) -> Problem:
    """The same scene, with camera 1 a little aside; wrong matches stay."""
    pose = problem.cam1_from_cam0.copy()
    pose[:3, 3] += translation
    points1 = project_points(transform_points(pose, problem.points3d), problem.camera)
    points1 += rng.normal(0.0, Settings().noise_px, points1.shape)
    seen = np.where(problem.true_matches[:, None], points1, problem.points1).astype(np.float32)
    return replace(problem, cam1_from_cam0=pose, points1=seen)


def test_the_covariance_of_a_place_is_that_of_all_steps_to_it():
    """Chains of four stereo pairs: the errors of their ends, as normalised as those of a single pair."""
    num_chains, errors = 50, []
    for chain in range(num_chains):
        covariance, found_pose, true_pose = np.zeros((6, 6)), np.eye(4), np.eye(4)
        for seed in range(4 * chain, 4 * chain + 4):
            problem = make_problem(MotionType.GENERAL, seed)
            pose = stereo_pose(problem, seed)
            covariance = covariance_after(covariance, pose)
            found_pose, true_pose = pose.cam1_from_cam0 @ found_pose, problem.cam1_from_cam0 @ true_pose
        difference = true_pose @ np.linalg.inv(found_pose)
        error = np.concatenate([difference[:3, 3], Rotation.from_matrix(difference[:3, :3]).as_rotvec()])
        errors.append(error @ np.linalg.solve(covariance, error))
    assert abs(np.mean(errors) - 6.0) < 1.96 * np.sqrt(12.0 / num_chains)


def test_a_length_that_is_not_known_leaves_the_place_unknown():
    problem = make_problem(MotionType.GENERAL, 2)
    found = estimate_relative_pose(problem.points0, problem.points1, PINHOLE, PINHOLE, CONFIG)
    assert found.pose is not None and covariance_after(np.zeros((6, 6)), found.pose) is None
    assert covariance_after(None, stereo_pose(problem, 2)) is None


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

"""The look at some of the matches that spares most pairs the comparison of all kinds of motion."""

import numpy as np
import pytest
from synthetic_pairs import PINHOLE, Problem, Settings, make_problem

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import MotionType
from feature_matcher_ros.geometry import normalize_points, rotation_angle_deg, rotation_from_vector
from feature_matcher_ros.relative_pose import estimate_from_normalized, estimate_relative_pose
from feature_matcher_ros.relative_pose.correspondences import make_correspondences
from feature_matcher_ros.relative_pose.epipolar_estimation import noise_from
from feature_matcher_ros.relative_pose.motion_models import EpipolarMotion, transfer_residuals
from feature_matcher_ros.relative_pose.parallax import relief_of_most
from feature_matcher_ros.relative_pose.quick_look import find_general_motion

CONFIG = PoseConfig()
FEW_OUTLIERS = Settings(outlier_ratio=0.1)


def normalized(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    return normalize_points(problem.points0, problem.camera), normalize_points(problem.points1, problem.camera)


def look(problem: Problem) -> EpipolarMotion | None:
    matches, _ = make_correspondences(*normalized(problem), problem.camera, problem.camera)
    return find_general_motion(matches, CONFIG, noise_from(CONFIG))


@pytest.mark.parametrize("noise_px", (0.3, 0.7, 1.0))
@pytest.mark.parametrize("kind", (MotionType.PLANAR, MotionType.ROTATION_ONLY, MotionType.STATIC))
def test_nothing_without_depth_is_called_general(kind, noise_px):
    settings = Settings(outlier_ratio=0.1, noise_px=noise_px)
    assert all(look(make_problem(kind, seed, settings)) is None for seed in range(40))


def test_most_motions_with_parallax_are_recognised_and_right():
    problems = [
        make_problem(MotionType.GENERAL, seed, Settings(outlier_ratio=0.1, parallax_px=(15.0, 40.0)))
        for seed in range(40)
    ]
    found = [(look(problem), problem) for problem in problems]
    right = [
        rotation_angle_deg(motion.rotation @ problem.rotation.T) < 0.5
        for motion, problem in found
        if motion is not None
    ]
    assert len(right) >= 32 and all(right)


def test_many_wrong_matches_leave_doubt():
    problems = [make_problem(MotionType.GENERAL, seed, Settings(outlier_ratio=0.6)) for seed in range(10)]
    assert all(look(problem) is None for problem in problems)


def test_undistorted_matches_give_the_same_pose_to_the_last_bit():
    problem = make_problem(MotionType.GENERAL, 3, FEW_OUTLIERS)
    cameras = problem.camera, problem.camera
    one = estimate_relative_pose(problem.points0, problem.points1, *cameras, CONFIG)
    other = estimate_from_normalized(*normalized(problem), *cameras, CONFIG)
    assert one.pose is not None and other.pose is not None
    assert np.array_equal(one.pose.rotation, other.pose.rotation)
    assert np.array_equal(one.pose.covariance, other.pose.covariance)
    assert np.array_equal(one.inliers, other.inliers)


@pytest.mark.parametrize("noise_px", (0.0, 0.7))
@pytest.mark.parametrize("direction", ((1.0, 0.2, 0.1), (0.1, 0.1, 1.0)))
def test_relief_is_what_the_homography_of_the_plane_leaves(direction, noise_px):
    rng = np.random.default_rng(5)
    rays = np.column_stack([rng.uniform(-0.5, 0.5, 400), rng.uniform(-0.4, 0.4, 400), np.ones(400)])
    normal, on_plane = np.array([0.1, -0.2, 0.3]), rng.random(400) < 0.85
    depth = np.where(on_plane, 1.0, rng.uniform(0.4, 0.8, 400)) / (rays @ normal)
    rotation = rotation_from_vector([0.05, -0.03, 0.1])
    translation = 0.15 * np.array(direction) / np.linalg.norm(direction)
    seen = rays * depth[:, None] @ rotation.T + translation
    noise = noise_px / PINHOLE.K[0, 0] * rng.normal(size=(2, 400, 2))
    x0, x1 = rays[:, :2] + noise[0], seen[:, :2] / seen[:, 2:] + noise[1]
    matches, _ = make_correspondences(x0, x1, PINHOLE, PINHOLE)

    motion = EpipolarMotion(rotation, translation / np.linalg.norm(translation))
    relief = relief_of_most(motion, matches, np.ones(400, dtype=np.bool_), 0.1)
    transfer2 = np.sum(transfer_residuals(rotation + np.outer(translation, normal), matches) ** 2, axis=0)
    left = np.sqrt(np.maximum(transfer2 - motion.residuals(matches)[0] ** 2, 0.0))
    assert np.allclose(np.abs(relief[~on_plane]), left[~on_plane], rtol=0.1, atol=0.1 + noise_px)
    assert np.sqrt(np.mean(relief[on_plane] ** 2)) == pytest.approx(noise_px, rel=0.25, abs=0.05)

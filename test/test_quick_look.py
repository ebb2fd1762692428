"""The look at some of the matches that spares most pairs the comparison of all kinds of motion."""

import numpy as np
import pytest
from synthetic_pairs import Problem, Settings, make_problem

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import MotionType
from feature_matcher_ros.geometry import normalize_points, rotation_angle_deg
from feature_matcher_ros.relative_pose import estimate_from_normalized, estimate_relative_pose
from feature_matcher_ros.relative_pose.correspondences import make_correspondences
from feature_matcher_ros.relative_pose.epipolar_estimation import noise_from
from feature_matcher_ros.relative_pose.motion_models import EpipolarMotion
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

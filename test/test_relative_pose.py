from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from synthetic_pairs import PINHOLE, Problem, Settings, make_problem, stereo_points

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import (
    Camera,
    DistortionModel,
    Estimator,
    MetricPoints,
    MotionType,
    PoseEstimate,
    ScaleSource,
    Status,
)
from feature_matcher_ros.geometry import angle_between_deg, normalize_points, rotation_angle_deg
from feature_matcher_ros.relative_pose import estimate_relative_pose

GENERAL, PLANAR = MotionType.GENERAL, MotionType.PLANAR
ROTATION_ONLY, STATIC = MotionType.ROTATION_ONLY, MotionType.STATIC
KINDS = (GENERAL, PLANAR, ROTATION_ONLY, STATIC)
CONFIG = PoseConfig()


def estimate(problem: Problem, metric: MetricPoints | None = None) -> PoseEstimate:
    camera = problem.camera
    return estimate_relative_pose(problem.points0, problem.points1, camera, camera, CONFIG, metric=metric)


def rotation_error_deg(found: PoseEstimate, problem: Problem) -> float:
    assert found.pose is not None
    return rotation_angle_deg(found.pose.rotation @ problem.rotation.T)


def direction_error_deg(found: PoseEstimate, problem: Problem) -> float:
    assert found.pose is not None and found.pose.direction is not None
    return angle_between_deg(found.pose.direction, problem.direction)


def check_record(found: PoseEstimate, num_matches: int) -> None:
    """What every estimate promises, whatever came in."""
    assert found.inliers.shape == (num_matches,) and found.inliers.dtype == np.bool_
    assert (found.pose is None) == (found.status is not Status.OK)
    if found.pose is None:
        return
    pose = found.pose
    assert pose.motion_type is found.motion_type
    assert np.allclose(pose.rotation @ pose.rotation.T, np.eye(3), atol=1e-9) and np.linalg.det(pose.rotation) > 0
    has_direction = found.motion_type in (GENERAL, PLANAR)
    assert (pose.direction is not None) == has_direction
    knows_translation = has_direction or pose.baseline_m is not None
    assert pose.covariance.shape == ((6, 6) if knows_translation else (3, 3))
    assert np.all(np.isfinite(pose.covariance)) and np.allclose(pose.covariance, pose.covariance.T)
    assert np.linalg.eigvalsh(pose.covariance)[0] > -1e-15
    assert (pose.baseline_m is None) == (pose.scale_source is ScaleSource.NONE)
    assert (pose.estimator is Estimator.ABSOLUTE_POSE) == bool(pose.baseline_m)
    assert (pose.estimator is Estimator.ROTATION) == (not has_direction)
    if pose.direction is not None:
        assert abs(np.linalg.norm(pose.direction) - 1.0) < 1e-9


@pytest.fixture(scope="module")
def solved() -> dict[MotionType, list[tuple[Problem, PoseEstimate]]]:
    """100 pairs of each kind: 0.5 px of noise, 30 % wrong matches, median parallax from 3.5 px."""
    problems = {kind: [make_problem(kind, seed) for seed in range(100)] for kind in KINDS}
    return {kind: [(problem, estimate(problem)) for problem in problems[kind]] for kind in KINDS}


def test_motion_types_are_told_apart(solved):
    confusion = {kind: Counter(found.motion_type for _, found in solved[kind]) for kind in KINDS}
    assert all(confusion[kind][kind] >= 95 for kind in KINDS), confusion


def test_estimates_are_sound_records(solved):
    for kind in KINDS:
        for problem, found in solved[kind]:
            check_record(found, len(problem.points0))
            right = found.inliers == problem.true_matches
            assert np.mean(right) > 0.97


def test_poses_are_accurate(solved):
    general = [(problem, found) for problem, found in solved[GENERAL] if found.motion_type is GENERAL]
    assert np.median([rotation_error_deg(found, problem) for problem, found in general]) < 0.05
    assert np.median([direction_error_deg(found, problem) for problem, found in general]) < 0.8
    assert np.percentile([direction_error_deg(found, problem) for problem, found in general], 95) < 6.0
    assert np.median([rotation_error_deg(found, problem) for problem, found in solved[ROTATION_ONLY]]) < 0.02
    assert all(np.array_equal(found.pose.rotation, np.eye(3)) for _, found in solved[STATIC] if found.pose)


def test_a_plane_gives_the_true_motion_or_none(solved):
    """Its mirror motion, typically tens of degrees away, must never be taken for it."""
    statuses = Counter(found.status for _, found in solved[PLANAR])
    assert statuses[Status.OK] > 30 and statuses[Status.DEGENERATE] > 10
    assert statuses[Status.OK] + statuses[Status.DEGENERATE] == 100
    with_pose = [(problem, found) for problem, found in solved[PLANAR] if found.pose is not None]
    assert np.percentile([direction_error_deg(found, problem) for problem, found in with_pose], 90) < 15.0
    assert np.median([rotation_error_deg(found, problem) for problem, found in with_pose]) < 0.15


def test_a_tail_of_errors_is_neither_depth_nor_a_choice_between_motions():
    settings = Settings(noise_px=0.05, tail_px=1.0, outlier_ratio=0.05)
    solved = [(problem, estimate(problem)) for problem in (make_problem(PLANAR, seed, settings) for seed in range(140))]
    assert sum(found.motion_type is GENERAL for _, found in solved) <= 10
    assert sum(is_far_off(found, problem) for problem, found in solved) <= 3


def is_far_off(found: PoseEstimate, problem: Problem) -> bool:
    """Whether the direction is more wrong than its covariance admits."""
    if found.pose is None or found.pose.direction is None:
        return False
    sigma_deg = np.degrees(np.sqrt(np.trace(found.pose.covariance[:3, :3])))
    return direction_error_deg(found, problem) > 4.0 * sigma_deg + 0.5


@pytest.mark.parametrize("seed", range(5))
def test_matches_behind_the_camera_do_not_choose_between_the_motions_before_a_plane(seed):
    """Wrong matches on the epipolar lines of the mirror motion, at depths that are negative then."""
    problem = make_problem(PLANAR, seed, Settings(outlier_ratio=0.0, parallax_px=(30.0, 30.0)))
    rotation, translation = mirror_motion(problem)
    wrong = np.arange(0, len(problem.points0), 40)
    rays = np.column_stack([normalize_points(problem.points0[wrong], PINHOLE), np.ones(len(wrong))])
    behind = (-2.0 * rays @ rotation.T + translation) @ PINHOLE.K.T
    points1 = problem.points1.copy()
    points1[wrong] = behind[:, :2] / behind[:, 2:]
    found = estimate(replace(problem, points1=points1))
    assert found.pose is None or direction_error_deg(found, problem) < 5.0


def mirror_motion(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """The other motion that shows the plane alike, its distance being one, by OpenCV."""
    plane = np.linalg.lstsq(problem.points3d, np.ones(len(problem.points3d)), rcond=None)[0]
    homography = problem.rotation + np.outer(problem.cam1_from_cam0[:3, 3], plane)
    _, rotations, translations, normals = cv2.decomposeHomographyMat(homography, np.eye(3))
    motions = zip(rotations, translations, normals, strict=True)
    facing = [(R, t.ravel()) for R, t, n in motions if n.ravel() @ problem.points3d.mean(axis=0) > 0]
    return max(facing, key=lambda motion: rotation_angle_deg(motion[0] @ problem.rotation.T))


def test_half_the_matches_may_be_wrong():
    settings = Settings(outlier_ratio=0.5)
    for kind in KINDS:
        found = [estimate(make_problem(kind, seed, settings)) for seed in range(20)]
        assert sum(one.motion_type is kind for one in found) >= 18


def test_small_translation_is_not_taken_for_rotation():
    settings = Settings(parallax_px=(2.0, 3.0))
    found = [estimate(make_problem(GENERAL, seed, settings)) for seed in range(50)]
    assert sum(one.motion_type in (ROTATION_ONLY, STATIC) for one in found) <= 1


LENSES = {
    "pinhole": PINHOLE,
    "plumb_bob": Camera(PINHOLE.K, 640, 480, np.array([-0.28, 0.07, 2e-4, 1e-4, 0.01]), DistortionModel.PLUMB_BOB),
    "rational_polynomial": Camera(
        PINHOLE.K,
        640,
        480,
        np.array([0.4, 0.1, 1e-4, -2e-4, 0.02, 0.7, 0.15, 0.03]),
        DistortionModel.RATIONAL_POLYNOMIAL,
    ),
    "equidistant": Camera(
        np.array([[330.0, 0, 319.5], [0, 331.0, 239.5], [0, 0, 1]]),
        640,
        480,
        np.array([0.02, -0.01, 0.004, -0.001]),
        DistortionModel.EQUIDISTANT,
    ),
}


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("kind", (GENERAL, ROTATION_ONLY))
def test_every_lens_gives_the_same_motion(lens, kind):
    """Without noise, the truth to the precision of float32 pixels; with noise, nearly so."""
    exact = make_problem(kind, 3, Settings(noise_px=0.0, camera=LENSES[lens]))
    noisy = make_problem(kind, 3, Settings(camera=LENSES[lens]))
    assert rotation_error_deg(estimate(exact), exact) < 1e-3
    assert rotation_error_deg(estimate(noisy), noisy) < 0.1
    if kind is GENERAL:
        assert direction_error_deg(estimate(exact), exact) < 0.02
        assert direction_error_deg(estimate(noisy), noisy) < 2.0


def test_two_different_cameras():
    """The same scene, the second image taken through a lens of twice the focal length."""
    problem = make_problem(GENERAL, 5, Settings(parallax_px=(15.0, 25.0)))
    zoom = Camera(np.array([[1050.0, 0, 639.5], [0, 1050.0, 479.5], [0, 0, 1]]), 1280, 960)
    points1 = ((problem.points1 - PINHOLE.K[:2, 2]) * 2.0 + zoom.K[:2, 2]).astype(np.float32)
    found = estimate_relative_pose(problem.points0, points1, PINHOLE, zoom, CONFIG)
    assert found.motion_type is GENERAL
    assert rotation_error_deg(found, problem) < 0.1 and direction_error_deg(found, problem) < 1.5


def test_measured_depth_gives_length_and_decides_between_the_motions_of_a_plane():
    for kind in (GENERAL, PLANAR):
        problems = [make_problem(kind, seed) for seed in range(40)]
        found = [estimate(problem, stereo_points(problem, seed)) for seed, problem in enumerate(problems)]
        for problem, one in zip(problems, found, strict=True):
            check_record(one, len(problem.points0))
            assert one.status is Status.OK and one.pose is not None
            assert one.pose.scale_source is ScaleSource.STEREO
        lengths = np.array([np.linalg.norm(problem.cam1_from_cam0[:3, 3]) for problem in problems])
        ratios = np.array([one.pose.baseline_m for one in found]) / lengths
        assert np.median(np.abs(ratios - 1.0)) < 0.02
        assert abs(np.mean(ratios) - 1.0) < 0.01  # no bias towards short translations
        assert sum(one.motion_type is kind for one in found) >= 38


@pytest.mark.parametrize("kind", (ROTATION_ONLY, STATIC))
def test_measured_depth_confirms_that_there_is_no_translation(kind):
    for seed in range(20):
        problem = make_problem(kind, seed)
        found = estimate(problem, stereo_points(problem, seed))
        assert found.motion_type is kind and found.pose is not None
        assert found.pose.direction is None and found.pose.baseline_m == 0.0
        assert found.pose.scale_source is ScaleSource.STEREO


def test_few_measured_depths_lend_their_length_to_all_matches():
    problem = make_problem(GENERAL, 1)
    metric = stereo_points(problem, 1)
    points = metric.points.copy()
    points[24:] = np.nan
    found = estimate(problem, MetricPoints(points, metric.sigma_m, ScaleSource.STEREO))
    alone = estimate(problem)
    assert found.pose is not None and found.pose.baseline_m is not None and alone.pose is not None
    assert found.pose.baseline_m == pytest.approx(np.linalg.norm(problem.cam1_from_cam0[:3, 3]), rel=0.1)
    assert np.all(np.diag(found.pose.covariance)[3:] < 1.2 * np.diag(alone.pose.covariance)[3:])


def broken_metric(name: str, metric: MetricPoints) -> MetricPoints:
    points, sigma = metric.points, metric.sigma_m
    shuffled = np.random.default_rng(0).permutation(len(points))
    return {
        "unknown": MetricPoints(np.full_like(points, np.nan), np.full_like(sigma, np.nan), ScaleSource.DEPTH),
        "behind the camera": MetricPoints(-points, sigma, ScaleSource.DEPTH),
        "without uncertainty": MetricPoints(points, 0.0 * sigma, ScaleSource.DEPTH),
        "infinitely uncertain": MetricPoints(points, np.inf * sigma, ScaleSource.DEPTH),
        "of other points": MetricPoints(points[shuffled], sigma[shuffled], ScaleSource.DEPTH),
    }[name]


@pytest.mark.parametrize(
    "name", ("unknown", "behind the camera", "without uncertainty", "infinitely uncertain", "of other points")
)
def test_useless_depth_is_ignored(name):
    problem = make_problem(GENERAL, 1)
    found = estimate(problem, broken_metric(name, stereo_points(problem, 1)))
    assert found.pose is not None and found.pose.scale_source is ScaleSource.NONE
    assert np.array_equal(found.pose.rotation, estimate(problem).pose.rotation)


@pytest.mark.parametrize("count", (0, 1, 4, 8, 14))
def test_too_few_matches(count):
    problem = make_problem(GENERAL, 1)
    found = estimate_relative_pose(problem.points0[:count], problem.points1[:count], PINHOLE, PINHOLE, CONFIG)
    check_record(found, count)
    assert found.status is Status.TOO_FEW_MATCHES and found.motion_type is MotionType.UNKNOWN


@pytest.mark.parametrize("count", (15, 40, 150, 600))
def test_wrong_matches_give_no_pose(count):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        points0, points1 = (rng.uniform(0, [640, 480], (count, 2)).astype(np.float32) for _ in range(2))
        found = estimate_relative_pose(points0, points1, PINHOLE, PINHOLE, CONFIG)
        check_record(found, count)
        assert found.status is Status.TOO_FEW_INLIERS and found.motion_type is MotionType.UNKNOWN


def degenerate_points(name: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    noise = rng.normal(0.0, 0.5, (200, 2))
    spot, shift = np.full((200, 2), 100.0), np.array([20.0, 5.0])
    line = np.stack([np.linspace(50, 600, 200), np.linspace(80, 300, 200)], axis=1)
    true = make_problem(GENERAL, 1)
    ten0, ten1 = (points[true.true_matches][:10] for points in (true.points0, true.points1))
    return {
        "one point": (spot, spot + shift),
        "one noisy point": (spot + noise, spot + shift + noise[::-1]),
        "a line that moved": (line, line + shift),
        "a line in depth": (line, line + np.stack([rng.uniform(10, 50, 200), noise[:, 0]], axis=1)),
        "ten matches fifty times": (np.tile(ten0, (50, 1)), np.tile(ten1, (50, 1))),
        "not a number": (np.full((200, 2), np.nan), line),
        "far outside": (true.points0 * 1e6, true.points1 * 1e6),
    }[name]


@pytest.mark.parametrize(
    "name",
    (
        "one point",
        "one noisy point",
        "a line that moved",
        "a line in depth",
        "ten matches fifty times",
        "not a number",
        "far outside",
    ),
)
@pytest.mark.filterwarnings("error")
def test_degenerate_points_give_a_reason_instead_of_a_pose(name):
    points0, points1 = (points.astype(np.float32) for points in degenerate_points(name))
    found = estimate_relative_pose(points0, points1, PINHOLE, PINHOLE, CONFIG)
    check_record(found, len(points0))
    assert found.status is not Status.OK


def test_a_moved_line_of_points_shows_no_translation():
    """A rotation explains it, and nothing tells more."""
    line = np.stack([np.linspace(50, 600, 200), np.linspace(80, 300, 200)], axis=1)
    noise = np.random.default_rng(1).normal(0.0, 0.5, (2, 200, 2))
    points0, points1 = (line + noise[0]).astype(np.float32), (line + np.array([8, 3]) + noise[1]).astype(np.float32)
    found = estimate_relative_pose(points0, points1, PINHOLE, PINHOLE, CONFIG)
    check_record(found, 200)
    assert found.pose is None or found.motion_type is ROTATION_ONLY


def test_the_same_image_twice_is_static():
    points = make_problem(GENERAL, 1).points0
    found = estimate_relative_pose(points, points, PINHOLE, PINHOLE, CONFIG)
    assert found.status is Status.OK and found.motion_type is STATIC and np.all(found.inliers)


def test_matches_that_are_no_numbers_are_outliers():
    problem = make_problem(GENERAL, 1)
    points1 = problem.points1.copy()
    points1[::5] = np.nan
    points1[1::5, 0] = np.inf
    found = estimate_relative_pose(problem.points0, points1, PINHOLE, PINHOLE, CONFIG)
    check_record(found, len(points1))
    assert found.status is Status.OK and not np.any(found.inliers[::5]) and not np.any(found.inliers[1::5])
    assert rotation_error_deg(found, problem) < 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_depth", (False, True))
def test_repetition_is_bit_equal(kind, with_depth):
    problem = make_problem(kind, 4)
    metric = stereo_points(problem, 4) if with_depth else None
    first, second = estimate(problem, metric), estimate(problem, metric)
    assert first.status is second.status and np.array_equal(first.inliers, second.inliers)
    if first.pose is None or second.pose is None:
        return
    assert first.pose.rotation.tobytes() == second.pose.rotation.tobytes()
    assert first.pose.covariance.tobytes() == second.pose.covariance.tobytes()
    assert first.pose.cam1_from_cam0.tobytes() == second.pose.cam1_from_cam0.tobytes()

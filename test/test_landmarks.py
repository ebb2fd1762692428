"""Lengths of translations against a synthetic scene of known size."""

from types import SimpleNamespace

import numpy as np
import pytest

from feature_matcher_ros.datatypes import (
    Camera,
    Estimator,
    Matches,
    MotionType,
    PoseEstimate,
    RelativePose,
    ScaleSource,
    Status,
)
from feature_matcher_ros.geometry import (
    normalize_points,
    pose_from,
    project_points,
    rotation_from_vector,
    transform_points,
)
from feature_matcher_ros.landmarks import Landmarks, baseline_length, carry_landmarks, collect, triangulate_unit
from feature_matcher_ros.odometry import chain, first_place

CAMERA = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), 640, 480)


def _points(count: int = 400) -> np.ndarray:
    rng = np.random.default_rng(5)
    z = rng.uniform(3, 9, count)
    return np.stack([rng.uniform(-0.5, 0.5, count) * z, rng.uniform(-0.4, 0.4, count) * z, z], axis=1)


def _pose(rotation: np.ndarray, direction: np.ndarray) -> RelativePose:
    return RelativePose(rotation, direction, None, ScaleSource.NONE, MotionType.GENERAL, np.eye(6), Estimator.ESSENTIAL)


def _pair(points: np.ndarray, cam1_from_cam0: np.ndarray, noise_px: float) -> Matches:
    noise = np.random.default_rng(9).normal(0, noise_px, (2, len(points), 2))
    points1 = transform_points(cam1_from_cam0, points)
    pixels = [(project_points(p, CAMERA) + n).astype(np.float32) for p, n in zip((points, points1), noise, strict=True)]
    return Matches(pixels[0], pixels[1], np.ones(len(points), np.float32))


@pytest.mark.parametrize("length", [0.05, 0.4, 2.0])
def test_baseline_length_is_recovered_from_known_points(length: float) -> None:
    points, rotation = _points(), rotation_from_vector([0.02, -0.1, 0.03])
    direction = np.array([0.6, 0.0, 0.8])
    matches = _pair(points, pose_from(rotation, direction * length), noise_px=0.5)
    known = points.copy()
    known[::3] = np.nan
    known[1::10] *= 1.7  # wrong landmarks must not matter
    found = baseline_length(_pose(rotation, direction), known, normalize_points(matches.points1, CAMERA))
    assert found == pytest.approx(length, rel=0.03, abs=0.004)


def test_baseline_length_needs_enough_points() -> None:
    points = _points(7)
    matches = _pair(points, pose_from(np.eye(3), [1.0, 0, 0]), 0.0)
    pose = _pose(np.eye(3), np.array([1.0, 0, 0]))
    assert baseline_length(pose, points, normalize_points(matches.points1, CAMERA)) is None


def test_unit_triangulation_is_the_scene_divided_by_the_baseline() -> None:
    points, length = _points(), 0.8
    rotation, direction = rotation_from_vector([0.0, 0.05, 0.0]), np.array([1.0, 0.0, 0.0])
    matches = _pair(points, pose_from(rotation, direction * length), noise_px=0.0)
    unit = triangulate_unit(
        _pose(rotation, direction), normalize_points(matches.points0, CAMERA), normalize_points(matches.points1, CAMERA)
    )
    assert np.nanmax(np.abs(unit * length - points)) < 1e-3


def test_a_length_that_contradicts_the_landmarks_makes_no_new_ones() -> None:
    """Landmarks that moved the other way give no length, and without one nothing is triangulated."""
    points, direction = _points(60), np.array([1.0, 0.0, 0.0])
    x0 = points[:, :2] / points[:, 2:]
    moved = points + np.where(np.arange(60) < 30, -0.3, 0.3)[:, None] * direction
    x1, ids, pose = moved[:, :2] / moved[:, 2:], np.arange(1, 61, dtype=np.uint32), _pose(np.eye(3), direction)
    estimate = PoseEstimate(Status.OK, pose, MotionType.GENERAL, np.ones(60, np.bool_))
    keyframe = SimpleNamespace(odometry=first_place(ScaleSource.NONE, 0), landmarks=Landmarks(ids[:30], points[:30]))
    step = chain(keyframe, x0, x1, ids, None, estimate)
    assert step is not None
    np.testing.assert_array_equal(step.odometry.world_from_cam, np.eye(4))
    np.testing.assert_array_equal(step.landmarks.ids, ids[:30])
    np.testing.assert_allclose(step.landmarks.points, points[:30])


def test_landmarks_are_carried_into_the_axes_of_the_next_keyframe() -> None:
    points, cam1_from_cam0 = _points(50), pose_from(rotation_from_vector([0.1, 0, 0]), [0.3, 0.1, 0])
    ids = np.random.default_rng(0).permutation(50).astype(np.uint32) + 1
    known, measured = points.copy(), np.full_like(points, np.nan)
    known[:10] = np.nan
    measured[5:10] = points[5:10]
    landmarks = carry_landmarks(ids, known, measured, cam1_from_cam0)
    found = landmarks.find(ids)
    expected = transform_points(cam1_from_cam0, points)
    usable = np.arange(50) >= 5
    np.testing.assert_allclose(found[usable], expected[usable])
    assert np.all(np.isnan(found[~usable]))
    assert len(Landmarks.empty().ids) == 0 and np.all(np.isnan(Landmarks.empty().find(ids)))
    assert len(collect(ids, np.full_like(points, np.nan)).ids) == 0

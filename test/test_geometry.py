"""Geometry against scipy, written-out lens formulas and brute force."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from feature_matcher_ros.datatypes import Camera, DistortionModel, Frame
from feature_matcher_ros.errors import CalibrationError, FrameError
from feature_matcher_ros.geometry import (
    angle_between_deg,
    essential_from_pose,
    invert_pose,
    mean_focal_length,
    normalize_points,
    pose_from,
    project_points,
    quaternion_from_rotation,
    rotation_angle_deg,
    rotation_from_quaternion,
    rotation_from_vector,
    rotation_vector,
    sampson_error,
    skew,
    to_rays,
    transform_points,
    triangulate,
)

K = np.array([[520.0, 0.0, 310.0], [0.0, 530.0, 245.0], [0.0, 0.0, 1.0]])
PLUMB_BOB = np.array([-0.3, 0.1, 1e-3, -5e-4, 0.02])
RATIONAL = np.array([0.4, 0.1, 1e-3, -2e-3, 0.02, 0.7, 0.15, 0.03, 1e-3, 2e-3, -1e-3, 5e-4])
EQUIDISTANT = np.array([0.05, -0.02, 0.01, -0.002])


def camera(distortion: np.ndarray, model: DistortionModel) -> Camera:
    return Camera(K, 640, 480, distortion, model)


CAMERAS = {
    "none": camera(np.zeros(0), DistortionModel.NONE),
    "plumb_bob_4": camera(PLUMB_BOB[:4], DistortionModel.PLUMB_BOB),
    "plumb_bob_5": camera(PLUMB_BOB, DistortionModel.PLUMB_BOB),
    "rational_8": camera(RATIONAL[:8], DistortionModel.RATIONAL_POLYNOMIAL),
    "rational_12": camera(RATIONAL, DistortionModel.RATIONAL_POLYNOMIAL),
    "equidistant": camera(EQUIDISTANT, DistortionModel.EQUIDISTANT),
    "equidistant_zero": camera(np.zeros(4), DistortionModel.EQUIDISTANT),
}


def test_a_camera_of_lists_and_names_is_the_same_camera() -> None:
    """As people write it, and as ``cv2.calibrateCamera`` returns it; a name must not fall back to a pinhole."""
    pixels = np.random.default_rng(0).uniform(0, 480, (20, 2))
    for known in CAMERAS.values():
        listed = Camera(K.tolist(), 640, 480, known.distortion[None].tolist(), known.distortion_model.value)
        np.testing.assert_array_equal(normalize_points(pixels, listed), normalize_points(pixels, known))
    with pytest.raises(CalibrationError, match="'kannala' is not supported"):
        Camera(K, 640, 480, EQUIDISTANT, "kannala")
    with pytest.raises(CalibrationError, match="does not consist of numbers"):
        Camera([[520, 0], [310]], 640, 480)


def test_cameras_are_the_same_by_size_matrix_and_lens() -> None:
    pinhole, bent = Camera(K, 640, 480), camera(PLUMB_BOB, DistortionModel.PLUMB_BOB)
    assert pinhole.is_same_as(Camera(K + np.diag([0.3, -0.3, 0.0]), 640, 480, np.zeros(5), "plumb_bob"))
    assert bent.is_same_as(camera(PLUMB_BOB, DistortionModel.PLUMB_BOB))
    for other in (
        bent,
        Camera(K + np.diag([1.0, 0.0, 0.0]), 640, 480),
        Camera(K, 640, 400),
        Camera(K, 640, 480, np.zeros(4), "equidistant"),  # which bends all the same
    ):
        assert not pinhole.is_same_as(other) and not other.is_same_as(pinhole)


def test_seconds_are_no_stamp() -> None:
    image = np.zeros((480, 640), np.uint8)
    assert Frame(np.int64(5), image, CAMERAS["none"]).stamp_ns == 5
    with pytest.raises(FrameError, match=r"1\.5 ns .* counts nanoseconds"):
        Frame(1.5, image, CAMERAS["none"])


def scene(count: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform([-1.5, -1.2, 2.0], [1.5, 1.2, 8.0], (count, 3))


def distort(xy: np.ndarray, lens: Camera) -> np.ndarray:
    """The lens models as their documentation writes them, one point at a time."""
    d = np.zeros(12)
    d[: len(lens.distortion)] = lens.distortion
    distorted = []
    for x, y in xy:
        r2 = x * x + y * y
        if lens.distortion_model is DistortionModel.EQUIDISTANT:
            theta = np.arctan(np.sqrt(r2))
            bent = theta * (1 + d[0] * theta**2 + d[1] * theta**4 + d[2] * theta**6 + d[3] * theta**8)
            distorted.append((x * bent / np.sqrt(r2), y * bent / np.sqrt(r2)))
            continue
        radial = (1 + d[0] * r2 + d[1] * r2**2 + d[4] * r2**3) / (1 + d[5] * r2 + d[6] * r2**2 + d[7] * r2**3)
        distorted.append(
            (
                x * radial + 2 * d[2] * x * y + d[3] * (r2 + 2 * x * x) + d[8] * r2 + d[9] * r2**2,
                y * radial + d[2] * (r2 + 2 * y * y) + 2 * d[3] * x * y + d[10] * r2 + d[11] * r2**2,
            )
        )
    return np.array(distorted)


@pytest.mark.parametrize("name", CAMERAS)
def test_projection_follows_the_lens_formula(name):
    points, lens = scene(), CAMERAS[name]
    expected = distort(points[:, :2] / points[:, 2:], lens) @ np.diag([520.0, 530.0]) + [310.0, 245.0]
    assert np.allclose(project_points(points, lens), expected, atol=1e-8)


@pytest.mark.parametrize("name", CAMERAS)
def test_undistortion_inverts_projection(name):
    points, lens = scene(), CAMERAS[name]
    normalized = normalize_points(project_points(points, lens), lens)
    assert np.allclose(normalized, points[:, :2] / points[:, 2:], atol=1e-6)


def test_skewed_pixels_of_a_pinhole():
    skewed = Camera(K + np.array([[0, 2.5, 0], [0, 0, 0], [0, 0, 0]]), 640, 480)
    points = scene()
    homogeneous = points @ skewed.K.T
    pixels = project_points(points, skewed)
    assert np.allclose(pixels, homogeneous[:, :2] / homogeneous[:, 2:])
    assert np.allclose(normalize_points(pixels, skewed), points[:, :2] / points[:, 2:])


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.filterwarnings("error")
def test_points_that_cannot_be_seen_are_nan(name):
    points = np.array([[0.1, 0.2, 1.0], [0.1, 0.2, 0.0], [0.1, 0.2, -1.0]])
    pixels = project_points(points, CAMERAS[name])
    assert np.all(np.isfinite(pixels[0])) and np.all(np.isnan(pixels[1:]))
    assert project_points(points[:0], CAMERAS[name]).shape == (0, 2)
    assert normalize_points(np.zeros((0, 2)), CAMERAS[name]).shape == (0, 2)


def test_rays_and_focal_length():
    rays = to_rays(np.array([[0.0, 0.0], [3.0, 4.0]]))
    assert np.allclose(rays, [[0, 0, 1], np.array([3, 4, 1]) / np.sqrt(26.0)])
    assert mean_focal_length(CAMERAS["none"]) == 525.0


@pytest.mark.parametrize("angle", (0.0, 1e-9, 1e-4, 0.3, 2.0, np.pi - 1e-6, np.pi))
def test_rotations_agree_with_scipy(angle):
    axis = np.array([0.48, -0.6, 0.64])
    matrix = Rotation.from_rotvec(axis * angle).as_matrix()
    assert np.allclose(rotation_from_vector(axis * angle), matrix, atol=1e-12)
    assert np.allclose(rotation_from_vector(rotation_vector(matrix)), matrix, atol=1e-9)
    assert np.radians(rotation_angle_deg(matrix)) == pytest.approx(angle, rel=1e-6, abs=1e-12)
    quaternion = quaternion_from_rotation(matrix)
    assert quaternion[3] >= 0.0 and np.linalg.norm(quaternion) == pytest.approx(1.0)
    assert np.allclose(Rotation.from_quat(quaternion).as_matrix(), matrix, atol=1e-7)
    assert np.allclose(rotation_from_quaternion(3.0 * quaternion), matrix, atol=1e-7)


def test_poses_cancel_as_their_names_do():
    rng = np.random.default_rng(2)
    b_from_a, c_from_b = (pose_from(Rotation.random(rng=seed).as_matrix(), rng.normal(size=3)) for seed in (1, 2))
    points = scene(5)
    assert np.allclose(
        transform_points(c_from_b @ b_from_a, points), transform_points(c_from_b, transform_points(b_from_a, points))
    )
    assert np.allclose(transform_points(invert_pose(b_from_a), transform_points(b_from_a, points)), points)
    assert np.allclose(invert_pose(b_from_a), np.linalg.inv(b_from_a))


def test_skew_is_the_cross_product_and_angles_are_exact_when_tiny():
    a, b = np.array([1.0, -2.0, 0.5]), np.array([0.3, 0.7, -1.1])
    assert np.allclose(skew(a) @ b, np.cross(a, b))
    assert angle_between_deg([1, 0, 0], [0, 2, 0]) == pytest.approx(90.0)
    assert angle_between_deg([1, 0, 0], [-3, 0, 0]) == pytest.approx(180.0)
    assert angle_between_deg([1, 0, 0], [1, 1e-9, 0]) == pytest.approx(np.degrees(1e-9))


def two_views() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    points = scene()
    cam1_from_cam0 = pose_from(rotation_from_vector([0.05, -0.1, 0.02]), [0.4, -0.1, 0.2])
    moved = transform_points(cam1_from_cam0, points)
    return cam1_from_cam0, points, points[:, :2] / points[:, 2:], moved[:, :2] / moved[:, 2:]


def test_true_matches_satisfy_the_epipolar_constraint():
    pose, _, x0, x1 = two_views()
    E = essential_from_pose(pose)
    h0, h1 = (np.column_stack([x, np.ones(len(x))]) for x in (x0, x1))
    assert np.max(np.abs(np.sum(h1 * (h0 @ E.T), axis=1))) < 1e-12
    assert np.max(np.abs(sampson_error(E, x0, x1))) < 1e-12


def test_sampson_error_is_the_distance_to_the_nearest_true_match():
    pose, _, x0, x1 = two_views()
    E = essential_from_pose(pose)
    noise = np.random.default_rng(3).normal(0.0, 1e-3, (4, 4))
    for k, shift in enumerate(noise):
        seen = np.concatenate([x0[k], x1[k]]) + shift

        def constraint(x: np.ndarray) -> float:
            return float(np.array([*x[2:], 1.0]) @ E @ np.array([*x[:2], 1.0]))

        nearest = minimize(
            lambda x, seen=seen: float(np.sum((x - seen) ** 2)) * 1e6,
            seen,
            constraints={"type": "eq", "fun": constraint},
            tol=1e-14,
        )
        distance = np.linalg.norm(nearest.x - seen)
        assert abs(sampson_error(E, seen[None, :2], seen[None, 2:])[0]) == pytest.approx(distance, rel=5e-3)


def test_triangulation_finds_the_scene_and_tells_behind_from_front():
    pose, points, x0, x1 = two_views()
    assert np.allclose(triangulate(pose, x0, x1), points, atol=1e-9)
    backwards = pose_from(pose[:3, :3], -pose[:3, 3])
    assert np.allclose(triangulate(backwards, x0, x1), -points, atol=1e-9)


def test_parallel_rays_have_no_point():
    pose = pose_from(np.eye(3), [1.0, 0.0, 0.0])
    x = np.array([[0.1, 0.2], [0.0, 0.0]])
    assert np.all(np.isnan(triangulate(pose, x, x)))


def test_triangulated_point_is_nearest_to_both_rays():
    pose, _, x0, x1 = two_views()
    x1 = x1 + np.random.default_rng(4).normal(0.0, 1e-3, x1.shape)
    for k, point in enumerate(triangulate(pose, x0[:5], x1[:5])):
        ray0, ray1 = pose[:3, :3] @ np.array([*x0[k], 1.0]), np.array([*x1[k], 1.0])
        system = np.stack([ray0, -ray1], axis=1)
        depths = np.linalg.lstsq(system, -pose[:3, 3], rcond=None)[0]
        assert np.allclose(point, np.array([*x0[k], 1.0]) * depths[0])

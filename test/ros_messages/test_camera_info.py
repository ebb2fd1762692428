"""Cameras from CameraInfo against sensors whose pixels are added up one by one, and OpenCV's rectification."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from feature_matcher_ros.datatypes import DistortionModel
from feature_matcher_ros.errors import CalibrationError
from feature_matcher_ros.geometry import normalize_points, pose_from, rotation_from_vector
from feature_matcher_ros.ros.camera_info import camera_from_info, is_rectified, right_from_left

K = np.array([[40.0, 0, 30.2], [0, 42.0, 22.7], [0, 0, 1]])
RADTAN = np.array([0.1, -0.05, 0.002, -0.001, 0.01])


def region(x: int = 0, y: int = 0, width: int = 0, height: int = 0) -> SimpleNamespace:
    return SimpleNamespace(x_offset=x, y_offset=y, width=width, height=height)


@dataclass(frozen=True)
class Info:
    height: int = 48
    width: int = 64
    distortion_model: str = "plumb_bob"
    d: Any = field(default_factory=lambda: RADTAN)
    k: Any = field(default_factory=lambda: K.reshape(-1))
    r: Any = field(default_factory=lambda: np.eye(3).reshape(-1))
    p: Any = field(default_factory=lambda: np.zeros(12))
    binning_x: int = 0
    binning_y: int = 0
    roi: Any = field(default_factory=region)


def test_a_full_image_has_the_matrix_as_it_is() -> None:
    for binning in (0, 1):
        camera = camera_from_info(Info(binning_x=binning, binning_y=binning), "/camera_info")
        np.testing.assert_array_equal(camera.K, K)
        assert (camera.width, camera.height) == (64, 48)
        np.testing.assert_array_equal(camera.distortion, RADTAN)


@pytest.mark.parametrize(
    ("roi", "bins"),
    [(region(), (2, 2)), (region(10, 6, 40, 30), (1, 1)), (region(10, 6, 40, 30), (2, 3)), (region(), (4, 1))],
)
def test_region_and_binning(roi: SimpleNamespace, bins: tuple[int, int]) -> None:
    """Each pixel of the small image looks where the middle of the sensor's pixels looks that were added up."""
    info = Info(roi=roi, binning_x=bins[0], binning_y=bins[1])
    small, full = camera_from_info(info, "/camera_info"), camera_from_info(Info(), "/camera_info")
    width, height = roi.width or 64, roi.height or 48
    assert (small.width, small.height) == (width // bins[0], height // bins[1])
    for v in range(0, small.height, 5):
        for u in range(0, small.width, 5):
            covered = [
                (roi.x_offset + u * bins[0] + i, roi.y_offset + v * bins[1] + j)
                for i in range(bins[0])
                for j in range(bins[1])
            ]
            middle = np.mean(covered, axis=0, keepdims=True)
            np.testing.assert_allclose(
                normalize_points(np.array([[u, v]], np.float64), small), normalize_points(middle, full), atol=1e-5
            )


@pytest.mark.parametrize(
    ("model", "d", "expected"),
    [
        ("plumb_bob", RADTAN, DistortionModel.PLUMB_BOB),
        ("plumb_bob", RADTAN[:4], DistortionModel.PLUMB_BOB),
        ("rational_polynomial", np.ones(8), DistortionModel.RATIONAL_POLYNOMIAL),
        ("equidistant", np.ones(4), DistortionModel.EQUIDISTANT),
        ("fisheye", np.ones(4), DistortionModel.EQUIDISTANT),
        ("equidistant", np.zeros(4), DistortionModel.EQUIDISTANT),  # not a pinhole
        ("plumb_bob", np.zeros(5), DistortionModel.NONE),
        ("rational_polynomial", np.zeros(8), DistortionModel.NONE),
        ("plumb_bob", np.zeros(0), DistortionModel.NONE),
        ("", np.zeros(0), DistortionModel.NONE),
        ("", np.zeros(5), DistortionModel.NONE),
        ("none", np.zeros(0), DistortionModel.NONE),
    ],
)
def test_lens_models(model: str, d: np.ndarray, expected: DistortionModel) -> None:
    camera = camera_from_info(Info(distortion_model=model, d=d), "/camera_info")
    assert camera.distortion_model is expected
    np.testing.assert_array_equal(camera.distortion, [] if expected is DistortionModel.NONE else d)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"k": np.zeros(9)}, "K[0] is 0, which says that the camera is not calibrated: give a calibration file."),
        ({"distortion_model": "ftheta"}, "distortion_model 'ftheta' with D = [0.1, -0.05"),
        ({"distortion_model": "ftheta", "d": np.zeros(0)}, "distortion_model 'ftheta'"),
        ({"distortion_model": ""}, "distortion_model '' with D"),  # four coefficients fit two models
        ({"d": np.ones(3)}, "3 distortion coefficients do not fit"),
        ({"k": np.full(9, np.nan)}, "is no camera matrix"),
        ({"d": np.full(5, np.nan)}, "holds what is no number"),
        ({"width": 0}, "a camera cannot have 0x48 pixels"),
        ({"binning_x": 100}, "a camera cannot have 0x48 pixels"),
    ],
)
def test_what_is_no_camera(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CalibrationError) as caught:
        camera_from_info(Info(**changes), "/left/camera_info")
    assert str(caught.value).startswith("CameraInfo on '/left/camera_info': ")
    assert sentence in str(caught.value)


def test_rectified_images_have_p_and_no_distortion() -> None:
    P = np.array([[50.0, 0, 31, -7], [0, 50, 23, 0], [0, 0, 1, 0]])
    camera = camera_from_info(Info(p=P.reshape(-1), distortion_model="anything"), "/camera_info", rectified=True)
    np.testing.assert_array_equal(camera.K, P[:, :3])
    assert camera.distortion_model is DistortionModel.NONE
    flat = camera_from_info(Info(d=np.zeros(5)), "/camera_info", rectified=True)  # a simulator that leaves P empty
    np.testing.assert_array_equal(flat.K, K)
    with pytest.raises(CalibrationError, match="images are rectified"):
        camera_from_info(Info(), "/camera_info", rectified=True)


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("/left/image_rect", True),
        ("/left/image_rect_color", True),
        ("/camera/infra1/image_rect_raw", True),
        ("/left/image_raw", False),
        ("/left/image_rectangle", False),
        ("/image_rect/left/image_raw", True),
    ],
)
def test_rectified_topics(topic: str, expected: bool) -> None:
    assert is_rectified(topic) is expected


def rectified_pair(pose: np.ndarray) -> tuple[Info, Info]:
    """What a stereo calibration writes into the two CameraInfo messages."""
    right_K = K + np.diag([1.5, 1.5, 0])
    R1, R2, P1, P2, *_ = cv2.stereoRectify(K, RADTAN, right_K, RADTAN, (64, 48), pose[:3, :3], pose[:3, 3:])
    left = Info(r=R1.reshape(-1), p=P1.reshape(-1))
    return left, Info(k=right_K.reshape(-1), r=R2.reshape(-1), p=P2.reshape(-1))


@pytest.mark.parametrize("translation", [[-0.12, 0.01, 0.005], [0.004, -0.2, 0.01]])
def test_the_pose_of_a_calibrated_pair(translation: list[float]) -> None:
    """A horizontal and a vertical pair, as OpenCV rectifies them."""
    pose = pose_from(rotation_from_vector([0.02, -0.03, 0.01]), translation)
    found = right_from_left(*rectified_pair(pose))
    np.testing.assert_allclose(found, pose, atol=1e-12)


def test_the_pose_of_rectified_images() -> None:
    pose = pose_from(rotation_from_vector([0.02, -0.03, 0.01]), [-0.12, 0.01, 0.005])
    found = right_from_left(*rectified_pair(pose), rectified=True)
    np.testing.assert_allclose(found, pose_from(np.eye(3), [-np.linalg.norm(pose[:3, 3]), 0, 0]), atol=1e-12)


def test_a_pair_without_a_baseline() -> None:
    left, right = rectified_pair(pose_from(np.eye(3), [-0.1, 0, 0]))
    assert right_from_left(left, replace(right, p=left.p)) is None
    assert right_from_left(left, replace(right, p=np.zeros(12))) is None
    flat = right_from_left(replace(left, r=np.zeros(9)), replace(right, r=np.zeros(9)))
    np.testing.assert_allclose(flat, pose_from(np.eye(3), [-0.1, 0, 0]), atol=1e-12)

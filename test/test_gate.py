"""The gate against images that were warped by a known motion."""

import cv2
import numpy as np
import pytest

from feature_matcher_ros.config import KeyframeConfig
from feature_matcher_ros.datatypes import Camera, Frame, GateMeasurement, KeyframeReason
from feature_matcher_ros.gate import OpticalFlowGate
from feature_matcher_ros.geometry import rotation_from_vector
from feature_matcher_ros.keyframes import reason_for_keyframe

K = np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
CAMERA = Camera(K, 640, 480)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A large image of random discs, corners everywhere."""
    rng = np.random.default_rng(0)
    image = np.full((800, 1000), 128, np.uint8)
    for x, y, radius, grey in rng.integers([0, 0, 5, 0], [1000, 800, 30, 256], (3000, 4)):
        cv2.rectangle(image, (int(x), int(y)), (int(x + radius), int(y + radius)), int(grey), -1)
    return cv2.GaussianBlur(image, (3, 3), 0.8)


def _view(picture: np.ndarray, H: np.ndarray) -> Frame:
    """The centre of the picture seen through the homography ``view_from_centre``."""
    centre = np.array([[1.0, 0, -180], [0, 1, -160], [0, 0, 1]])
    return Frame(0, cv2.warpPerspective(picture, H @ centre, (640, 480), flags=cv2.INTER_AREA), CAMERA)


@pytest.mark.parametrize("vector", [[0.0, 0.04, 0.0], [0.05, 0.0, 0.0], [0.0, 0.0, 0.1], [0.03, -0.06, 0.05]])
def test_a_rotation_shows_no_parallax(picture: np.ndarray, vector: list[float]) -> None:
    gate = OpticalFlowGate(_view(picture, np.eye(3)), 300)
    measured = gate.measure(_view(picture, K @ rotation_from_vector(vector) @ np.linalg.inv(K)))
    assert measured.rotation_deg == pytest.approx(np.degrees(np.linalg.norm(vector)), abs=0.05)
    assert measured.parallax_px < 0.5
    assert measured.survival > 0.75


def test_a_translation_before_a_slanted_wall_shows_parallax(picture: np.ndarray) -> None:
    normal, translation = np.array([0.0, 0.5, 1.0]) / np.linalg.norm([0.0, 0.5, 1.0]), np.array([0.12, 0.0, 0.0])
    H = K @ (np.eye(3) + np.outer(translation, normal) / 1.5) @ np.linalg.inv(K)
    measured = OpticalFlowGate(_view(picture, np.eye(3)), 300).measure(_view(picture, H))
    assert measured.parallax_px > 3.0
    assert measured.displacement_px > 25.0


def test_standing_still_shows_nothing_at_all(picture: np.ndarray) -> None:
    frame = _view(picture, np.eye(3))
    measured = OpticalFlowGate(frame, 300).measure(frame)
    assert measured.displacement_px < 0.02
    assert measured.parallax_px < 0.02
    assert measured.survival > 0.9


def test_nothing_survives_darkness_and_all_comes_back_with_the_light(picture: np.ndarray) -> None:
    frame = _view(picture, np.eye(3))
    gate = OpticalFlowGate(frame, 300)
    black = Frame(0, np.zeros((480, 640), np.uint8), CAMERA)
    assert gate.measure(black).survival == 0.0
    assert gate.measure(frame).survival > 0.9
    assert OpticalFlowGate(black, 300).measure(frame).survival == 0.0
    assert gate.measure(Frame(0, np.zeros((10, 10), np.uint8), Camera(K, 10, 10))).survival == 0.0


def test_one_pixel_and_masked_images_are_measured_too(picture: np.ndarray) -> None:
    pixel = Frame(0, np.zeros((1, 1), np.uint8), Camera(K, 1, 1))
    assert OpticalFlowGate(pixel, 300).measure(pixel).survival == 0.0
    view = _view(picture, np.eye(3))
    masked = Frame(0, view.image, CAMERA, mask=np.zeros((480, 640), np.uint8))
    assert OpticalFlowGate(masked, 300).measure(view).survival == 0.0


@pytest.mark.parametrize(
    ("measured", "age_ms", "reason"),
    [
        (GateMeasurement(1.0, 5.0, 0.9, 1.0), 100, None),
        (GateMeasurement(20.0, 30.0, 0.9, 1.0), 100, KeyframeReason.PARALLAX),
        (GateMeasurement(1.0, 60.0, 0.9, 15.0), 100, KeyframeReason.ROTATION),
        (GateMeasurement(20.0, 60.0, 0.3, 15.0), 100, KeyframeReason.SURVIVAL),
        (GateMeasurement(1.0, 5.0, 0.9, 1.0), 2500, KeyframeReason.TIME),
        (GateMeasurement(0.1, 0.5, 0.9, 0.0), 60_000, None),  # standing still ages no keyframe
    ],
)
def test_the_reason_for_a_keyframe(measured: GateMeasurement, age_ms: int, reason: KeyframeReason | None) -> None:
    assert reason_for_keyframe(KeyframeConfig(), measured, age_ms * 1_000_000) is reason

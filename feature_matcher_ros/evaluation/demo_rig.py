"""The cameras of the demo: what they are, where they sit, and how good their sensor is."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from feature_matcher_ros.datatypes import Camera, DistortionModel, Float
from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.evaluation.sequences import Modality
from feature_matcher_ros.geometry import pose_from, rotation_from_vector

BASELINE_M = 0.12
FULL_WIDTH = 640
_FOCAL_LENGTH = 420.0  # pixels at full width: 75 degrees
# Lens of the left and the right camera, k1 k2 p1 p2 k3.
_LEFT_LENS = (-0.085, 0.032, 0.0004, -0.0003, 0.0)
_RIGHT_LENS = (-0.092, 0.037, -0.0003, 0.0002, 0.0)


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What is recorded, and by how good a sensor.

    Raises:
        ConfigError: the image cannot have that size, or the camera that rate.
    """

    modality: Modality = Modality.STEREO
    width: int = FULL_WIDTH  # pixels; the height is three quarters of it
    rate_hz: float = 15.0
    color: bool = False
    rectified: bool = False  # ideal cameras side by side, instead of lenses that distort and a right one askew
    noise_sigma: float = 1.5  # grey levels
    depth_noise: float = 0.001  # standard deviation at 1 m, in metres; it grows with the square of depth
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 64 or self.width > 4096 or self.width % 4:
            raise ConfigError(f"a width of {self.width} px cannot be rendered: give a multiple of 4, 64 to 4096.")
        if not 1.0 <= self.rate_hz <= 1000.0:
            raise ConfigError(f"a rate of {self.rate_hz} Hz cannot be recorded: give 1 to 1000.")


@dataclass(frozen=True, slots=True, eq=False)
class DemoRig:
    """The cameras that move together; RGB-D has one, whose depth is registered to its image."""

    left: Camera  # or colour
    right: Camera | None
    right_from_left: Float  # (4, 4); the identity without a right camera
    topic: str  # of the left camera, which its image and its CameraInfo lie below
    frame_id: str
    right_topic: str = "/camera/right"
    right_frame_id: str = "camera_right_optical"
    depth_topic: str = "/camera/depth"


@dataclass(frozen=True, slots=True, eq=False)
class Rectification:
    """What CameraInfo says beside K and D: the turn R (3, 3) and the projection P (3, 4) once rectified."""

    R: Float
    P: Float


def demo_rig(options: DemoOptions) -> DemoRig:
    """The cameras of a demo."""
    if options.modality is not Modality.STEREO:
        topic = "/camera" if options.modality is Modality.MONO else "/camera/color"
        return DemoRig(_camera(options.width), None, np.eye(4), topic, "camera_color_optical")
    if options.rectified:
        camera = _camera(options.width)
        side_by_side = pose_from(np.eye(3), (-BASELINE_M, 0.0, 0.0))
        return DemoRig(camera, camera, side_by_side, "/camera/left", "camera_left_optical")
    left = _camera(options.width, _LEFT_LENS)
    right = _camera(options.width, _RIGHT_LENS, zoom=1.01, shift=(4.2, -3.1))
    rotation = rotation_from_vector(np.radians([0.4, -0.8, 0.3]))
    right_from_left = pose_from(rotation, rotation @ np.array([-BASELINE_M, 0.001, 0.002]))
    return DemoRig(left, right, right_from_left, "/camera/left", "camera_left_optical")


def rectification(rig: DemoRig) -> tuple[Rectification, ...]:
    """How the images of each camera would be rectified."""
    left, right, right_from_left = rig.left, rig.right, rig.right_from_left
    if right is None:
        return (Rectification(np.eye(3), np.hstack([left.K, np.zeros((3, 1))])),)
    lenses = left.K, lens(left), right.K, lens(right)
    rotation, translation = right_from_left[:3, :3], right_from_left[:3, 3:]
    R0, R1, P0, P1, *_ = cv2.stereoRectify(*lenses, (left.width, left.height), rotation, translation, alpha=0.0)
    return Rectification(R0, P0), Rectification(R1, P1)


def lens(camera: Camera) -> Float:
    """Coefficients k1 k2 p1 p2 k3, zeros for a pinhole."""
    return camera.distortion if len(camera.distortion) else np.zeros(5)


def _camera(
    width: int, distortion: tuple[float, ...] = (), *, zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> Camera:
    """``shift`` moves the principal point from the middle of the image, in pixels at full width."""
    height, scale = width * 3 // 4, width / FULL_WIDTH
    focal = _FOCAL_LENGTH * scale * zoom
    center = (width - 1) / 2 + shift[0] * scale, (height - 1) / 2 + shift[1] * scale
    K = np.array([[focal, 0.0, center[0]], [0.0, focal, center[1]], [0.0, 0.0, 1.0]])
    model = DistortionModel.PLUMB_BOB if distortion else DistortionModel.NONE
    return Camera(K, width, height, np.array(distortion), model)

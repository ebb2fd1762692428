"""The cameras of a live node: from CameraInfo, which may come late and change, ``/tf_static`` or a calibration."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from feature_matcher_ros.datatypes import Camera, Float, Image
from feature_matcher_ros.errors import CalibrationError, ImageError
from feature_matcher_ros.evaluation.bag_topics import IMAGE, ImageTopic, is_called_registered
from feature_matcher_ros.evaluation.bag_transforms import TransformTree, clean_frame_id
from feature_matcher_ros.evaluation.calibration import Calibration, load_calibration, scale_camera
from feature_matcher_ros.ros.camera_info import camera_from_info, is_rectified, right_from_left
from feature_matcher_ros.ros.depth_decoder import MILLIMETRES
from feature_matcher_ros.ros.image_decoder import decode_image

_COMPARED = ("height", "width", "distortion_model", "binning_x", "binning_y")
_REGION = ("x_offset", "y_offset", "height", "width")


class Role(str, Enum):
    """What a stream of images is to the front-end."""

    IMAGE = "image"
    RIGHT = "right image"
    DEPTH = "depth"


@dataclass(frozen=True, slots=True, eq=False)
class LiveCameras:
    """The cameras of one frame; ``second_pose`` (4, 4) is right_from_left, or cam_from_depth."""

    camera: Camera
    second: Camera | None = None
    second_pose: Float | None = None
    units_per_m: float = MILLIMETRES  # of integer depth


class LiveRig:
    """Knows the cameras as far as they have been heard of; any thread may tell and ask.

    Raises:
        CalibrationError: the calibration file cannot be used, or lacks the second camera.
        ImageError: the mask cannot be read.
    """

    def __init__(self, second: Role | None, topics: dict[Role, str], calibration: str, mask: str = "") -> None:
        self._second, self._topics = second, topics
        self._calibration = load_calibration(Path(calibration)) if calibration else None
        if self._calibration is not None and second is Role.RIGHT and self._calibration.right is None:
            raise CalibrationError(
                f"'{calibration}' says nothing of a right camera: add 'right', or do without stereo."
            )
        self._lock = threading.Lock()
        self._infos: dict[Role, Any] = {}
        self._fixed = TransformTree()
        self._made: dict[tuple[str, str, tuple[int, int]], LiveCameras] = {}
        self.num_changes = 0
        self.mask: Image | None = read_mask(Path(mask)) if mask else None  # (H, W), the newest one

    @property
    def wanted_infos(self) -> tuple[Role, ...]:
        """The streams whose CameraInfo is needed; depth without one is taken to have the image's view."""
        if self._calibration is not None:
            return ()
        return (Role.IMAGE, Role.RIGHT) if self._second is Role.RIGHT else (Role.IMAGE,)

    def missing_infos(self) -> list[Role]:
        with self._lock:
            return [role for role in self.wanted_infos if role not in self._infos]

    def has_info(self, role: Role) -> bool:
        with self._lock:
            return role in self._infos

    def hear_info(self, role: Role, info: Any) -> None:
        """Take in a CameraInfo; one that says what the last one said is passed over."""
        with self._lock:
            known = self._infos.get(role)
            if known is not None and _says_the_same(known, info):
                return
            self.num_changes += known is not None
            self._infos[role] = info
            self._made.clear()

    def hear_transforms(self, message: Any) -> None:
        """Take in ``/tf_static``."""
        with self._lock:
            self._fixed.add(message.transforms, are_fixed=True)
            self._made.clear()

    def hear_mask(self, message: Any) -> None:
        """Take in an image that is black where no points are to be sought.

        Raises:
            ImageError: it cannot be decoded.
        """
        image = decode_image(message)
        self.mask = image if image.ndim == 2 else np.max(image, axis=2)

    def cameras(self, frame_id: str, second_frame_id: str, second_size: tuple[int, int]) -> LiveCameras:
        """The cameras of messages with these frames; ``second_size`` is (width, height) of the second image.

        Raises:
            CalibrationError: a camera is not calibrated, or how two stand to each other is not known.
        """
        key = (frame_id, second_frame_id, second_size)
        with self._lock:
            if key not in self._made:
                self._made[key] = self._make(*key)
            return self._made[key]

    def _make(self, frame_id: str, second_frame_id: str, second_size: tuple[int, int]) -> LiveCameras:
        known = self._calibration
        camera = self._camera(Role.IMAGE) if known is None else known.camera
        if self._second is Role.RIGHT:
            return self._stereo(camera, frame_id, second_frame_id)
        if self._second is Role.DEPTH:
            return self._depth(camera, known, frame_id, second_frame_id, second_size)
        return LiveCameras(camera)

    def _stereo(self, camera: Camera, frame_id: str, right_frame_id: str) -> LiveCameras:
        if self._calibration is not None and self._calibration.right is not None:
            return LiveCameras(camera, self._calibration.right.camera, self._calibration.right.right_from_left)
        right = self._topics[Role.RIGHT]
        second = self._camera(Role.RIGHT)
        infos = self._infos[Role.IMAGE], self._infos[Role.RIGHT]
        pose = right_from_left(*infos, rectified=is_rectified(right))
        if pose is None:
            pose = self._fixed.fixed_transform(right_frame_id, frame_id)
        if pose is None or not np.any(pose[:3, 3]):
            raise CalibrationError(
                f"the baseline from {self._topics[Role.IMAGE]} to {right} is not known, since P of its CameraInfo "
                f"holds none and /tf_static does not connect '{right_frame_id}': set node.calibration."
            )
        return LiveCameras(camera, second, pose)

    def _depth(
        self, camera: Camera, known: Calibration | None, frame_id: str, depth_frame_id: str, size: tuple[int, int]
    ) -> LiveCameras:
        if known is not None and known.depth is not None:
            second = known.depth.camera or scale_camera(camera, *size)
            return LiveCameras(camera, second, known.depth.cam_from_depth, known.depth.units_per_m)
        second = self._camera(Role.DEPTH) if Role.DEPTH in self._infos else scale_camera(camera, *size)
        return LiveCameras(camera, second, self._cam_from_depth(camera, second, frame_id, depth_frame_id))

    def _cam_from_depth(self, camera: Camera, depth_camera: Camera, frame_id: str, depth_frame_id: str) -> Float:
        if clean_frame_id(frame_id) == clean_frame_id(depth_frame_id) != "":
            return np.eye(4)
        pose = self._fixed.fixed_transform(frame_id, depth_frame_id)
        if pose is not None:
            return pose
        name = self._topics[Role.DEPTH]
        if is_called_registered(ImageTopic(name, name, IMAGE, 0, "", "")) or camera.is_same_as(depth_camera):
            return np.eye(4)
        raise CalibrationError(
            f"where {self._topics[Role.DEPTH]} stands to {self._topics[Role.IMAGE]} is not known, since /tf_static "
            f"does not connect '{depth_frame_id}' and '{frame_id}': publish it, or set node.calibration."
        )

    def _camera(self, role: Role) -> Camera:
        if role not in self._infos:
            raise CalibrationError(f"there is no CameraInfo for {self._topics[role]} yet.")
        return camera_from_info(self._infos[role], self._topics[role], rectified=is_rectified(self._topics[role]))


def read_mask(path: Path) -> Image:
    """Read a mask (H, W) from an image file.

    Raises:
        ImageError: it cannot be read.
    """
    data = np.frombuffer(path.read_bytes(), np.uint8) if path.is_file() else np.zeros(0, np.uint8)
    mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
    if mask is None:
        raise ImageError(f"cannot read the mask {path}: give a PNG or other image file, black where nothing is sought.")
    return np.asarray(mask, np.uint8)


def _says_the_same(one: Any, other: Any) -> bool:
    matrices = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in "dkrp")
    plain = all(getattr(one, name) == getattr(other, name) for name in _COMPARED)
    return matrices and plain and all(getattr(one.roi, name) == getattr(other.roi, name) for name in _REGION)

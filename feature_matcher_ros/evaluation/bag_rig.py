"""The cameras of a bag: what its CameraInfo, its ``/tf_static`` or a calibration file say about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_matcher_ros.datatypes import Camera, Float
from feature_matcher_ros.errors import CalibrationError
from feature_matcher_ros.evaluation.bag_file import BagFile
from feature_matcher_ros.evaluation.bag_topics import (
    CAMERA_INFO,
    ChosenTopics,
    ImageTopic,
    info_topic_of,
    is_called_registered,
    is_in_frame,
)
from feature_matcher_ros.evaluation.bag_transforms import TransformTree
from feature_matcher_ros.evaluation.calibration import Calibration, load_calibration, scale_camera
from feature_matcher_ros.evaluation.sequences import Selection
from feature_matcher_ros.ros.camera_info import CameraInfoMessage, camera_from_info, is_rectified, right_from_left
from feature_matcher_ros.ros.depth_decoder import MILLIMETRES

Size = tuple[int, int]  # width, height


@dataclass(frozen=True, slots=True, eq=False)
class Rig:
    """The cameras of the chosen topics; the second one is that of the right images or of depth."""

    camera: Camera
    second: Camera | None = None
    second_pose: Float | None = None  # (4, 4): right_from_left, or cam_from_depth
    units_per_m: float = MILLIMETRES  # of integer depth
    assumptions: tuple[str, ...] = ()


class RigReader:
    """Finds the cameras of the chosen topics of one bag.

    Raises:
        CalibrationError: a camera is not calibrated, or how two stand to each other is not known.
    """

    def __init__(self, bag: BagFile, topics: ChosenTopics, selection: Selection, fixed: TransformTree) -> None:
        self._bag = bag
        self._topics = topics
        self._selection = selection
        self._fixed = fixed
        self._infos = [topic.name for topic in bag.topics.values() if topic.type_name == CAMERA_INFO]
        self._assumptions: list[str] = []

    def read(self, size_of: Callable[[ImageTopic], Size | None]) -> Rig:
        """Read the cameras; ``size_of`` gives the size of a topic's images, None if there is none to be seen."""
        path, topics = self._selection.calibration, self._topics
        calibration = None if path is None else load_calibration(path)
        camera = self._camera(calibration)
        _check_size(camera, size_of(topics.image), topics.image)
        rig = Rig(camera)
        if topics.right is not None:
            rig = self._stereo(camera, topics.right, calibration, path)
            assert rig.second is not None
            _check_size(rig.second, size_of(topics.right), topics.right)
        elif topics.depth is not None:
            rig = self._depth(camera, topics.depth, calibration, size_of(topics.depth))
            assert rig.second is not None
            _check_size(rig.second, size_of(topics.depth), topics.depth)
        return rig

    def _camera(self, calibration: Calibration | None) -> Camera:
        if calibration is not None:
            return calibration.camera
        return self._camera_from_info(self._topics.image, self._selection.camera_info_topic, "--camera-info-topic")

    def _stereo(self, camera: Camera, right: ImageTopic, calibration: Calibration | None, path: Path | None) -> Rig:
        if calibration is not None:
            if calibration.right is None:
                raise CalibrationError(
                    f"'{path}' says nothing of {right.name}: add 'right', or choose --modality MONO."
                )
            return Rig(camera, calibration.right.camera, calibration.right.right_from_left)
        option = "--right-camera-info-topic"
        second = self._camera_from_info(right, self._selection.right_camera_info_topic, option)
        pose = right_from_left(
            self._info(self._topics.image, self._selection.camera_info_topic, "--camera-info-topic"),
            self._info(right, self._selection.right_camera_info_topic, option),
            rectified=is_rectified(right.name),
        )
        if pose is None:
            pose = self._fixed.fixed_transform(right.frame_id, self._topics.image.frame_id)
        if pose is None or not np.any(pose[:3, 3]):
            raise CalibrationError(
                f"the baseline from {self._topics.image.name} to {right.name} is not known, since P of its CameraInfo "
                f"holds none and /tf_static does not connect '{right.frame_id}': give a calibration file with "
                "--calibration, or choose --modality MONO."
            )
        return Rig(camera, second, pose, assumptions=tuple(self._assumptions))

    def _depth(self, camera: Camera, depth: ImageTopic, calibration: Calibration | None, size: Size | None) -> Rig:
        if calibration is not None and calibration.depth is not None:
            known = calibration.depth
            second = known.camera or _scaled(camera, size, depth)
            return Rig(camera, second, known.cam_from_depth, known.units_per_m)
        topic = self._info_topic(depth, self._selection.depth_camera_info_topic, "--depth-camera-info-topic")
        if topic is None:
            second = _scaled(camera, size, depth)
        else:
            second = camera_from_info(self._bag.first(topic), topic, rectified=is_rectified(depth.name))
        pose = self._cam_from_depth(camera, depth, second)
        return Rig(camera, second, pose, assumptions=tuple(self._assumptions))

    def _cam_from_depth(self, camera: Camera, depth: ImageTopic, depth_camera: Camera) -> Float:
        image = self._topics.image
        if is_in_frame(depth, image):
            return np.eye(4)
        pose = self._fixed.fixed_transform(image.frame_id, depth.frame_id)
        if pose is not None:
            return pose
        if is_called_registered(depth):
            self._assumptions.append(f"{depth.name} is taken to be registered to {image.name}, by its name")
            return np.eye(4)
        if camera.is_same_as(depth_camera):
            self._assumptions.append(f"{depth.name} is taken to be registered to {image.name}: their cameras are equal")
            return np.eye(4)
        raise CalibrationError(
            f"where {depth.name} stands to {image.name} is not known, since /tf_static does not connect "
            f"'{depth.frame_id}' and '{image.frame_id}': give a calibration file with --calibration, or choose "
            "--modality MONO."
        )

    def _camera_from_info(self, image: ImageTopic, wanted: str | None, option: str) -> Camera:
        topic = self._existing_info_topic(image, wanted, option)
        return camera_from_info(self._bag.first(topic), topic, rectified=is_rectified(image.name))

    def _info(self, image: ImageTopic, wanted: str | None, option: str) -> CameraInfoMessage:
        info: CameraInfoMessage = self._bag.first(self._existing_info_topic(image, wanted, option))
        return info

    def _existing_info_topic(self, image: ImageTopic, wanted: str | None, option: str) -> str:
        topic = self._info_topic(image, wanted, option)
        if topic is None:
            others = f" (there is one on {', '.join(self._infos)}: {option} TOPIC takes it)" if self._infos else ""
            raise CalibrationError(
                f"there is no CameraInfo for {image.name}{others}: give a calibration file with --calibration."
            )
        return topic

    def _info_topic(self, image: ImageTopic, wanted: str | None, option: str) -> str | None:
        if wanted is None:
            return info_topic_of(image.name, self._infos)
        if wanted not in self._infos:
            raise CalibrationError(
                f"there is no CameraInfo on '{wanted}': give {option} one of {', '.join(self._infos) or 'another bag'}."
            )
        return wanted


def _scaled(camera: Camera, size: Size | None, depth: ImageTopic) -> Camera:
    try:
        return camera if size is None else scale_camera(camera, *size)
    except CalibrationError as error:
        raise CalibrationError(f"{depth.name} has no CameraInfo and does not fit the image: {error}") from error


def _check_size(camera: Camera, size: Size | None, topic: ImageTopic) -> None:
    if size is not None and size != (camera.width, camera.height):
        raise CalibrationError(
            f"the images on {topic.topic} have {size[0]}x{size[1]} pixels but their calibration "
            f"{camera.width}x{camera.height}: give the calibration of this image size with --calibration."
        )

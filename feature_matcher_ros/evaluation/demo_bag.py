"""The demo as a ROS 2 bag: what the driver of a stereo or RGB-D camera publishes, and the true poses as TF.

Images are JPEG, depth is raw, in millimetres. The driver rectifies nothing: CameraInfo carries the lens
and, for stereo, the rectification from which the place of the right camera follows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from feature_matcher_ros.datatypes import Camera, Float, Frame, Image
from feature_matcher_ros.errors import OutputError
from feature_matcher_ros.evaluation.demo_rig import DemoRig, Rectification, lens, rectification
from feature_matcher_ros.evaluation.rosbags_messages import RosbagsMessages
from feature_matcher_ros.geometry import invert_pose
from feature_matcher_ros.ros.messages import MessageFactory, make_header, make_quaternion, make_vector

JPEG_QUALITY = 90
_MARK = "the demo of feature_matcher_ros"  # in the metadata of the bags written here
_FOREVER = QosTime(2147483647, 4294967295)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedFrame:
    """A frame, ready to be written."""

    stamp_ns: int
    image: EncodedImage
    right_image: EncodedImage | None
    depth_mm: NDArray[np.uint16] | None  # (H, W); 0 where unknown


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """A compressed image, with what ROS calls its format."""

    data: NDArray[np.uint8]
    format: str


def encode_frame(frame: Frame) -> EncodedFrame:
    """Compress the images of a frame."""
    right = None if frame.stereo is None else _encode_image(frame.stereo.image)
    depth = None if frame.depth is None else np.rint(np.nan_to_num(frame.depth.depth_m) * 1000.0).astype(np.uint16)
    return EncodedFrame(frame.stamp_ns, _encode_image(frame.image), right, depth)


class DemoBag:
    """Writes a bag; used as a context. A demo bag that is already there is replaced, half a bag is not left.

    Raises:
        OutputError: something else is there, or the folder cannot be written.
    """

    def __init__(self, path: Path, rig: DemoRig) -> None:
        self._path, self._rig = path, rig
        self._rectified = rectification(rig)
        self._make = RosbagsMessages()
        self._connections: dict[str, Connection] = {}
        try:
            _remove_old_bag(path)
            self._writer = Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            self._writer.set_custom_data("recorded_by", _MARK)
            self._writer.open()
        except OSError as error:
            raise _not_written(path, error) from error

    def __enter__(self) -> DemoBag:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._writer.close()
            else:
                self._writer.abort()
                shutil.rmtree(self._path)
        except OSError as failure:
            raise _not_written(self._path, failure) from failure
        if isinstance(error, OSError):
            raise _not_written(self._path, error) from error

    def write(self, frame: EncodedFrame, world_from_cam: Float) -> None:
        """Append the messages of one frame."""
        for topic, message in self._messages_of(frame, world_from_cam):
            kind = message.__msgtype__
            if topic not in self._connections:
                durability = QosDurability.TRANSIENT_LOCAL if topic == "/tf_static" else QosDurability.VOLATILE
                self._connections[topic] = self._writer.add_connection(
                    topic, kind, typestore=self._make.typestore, offered_qos_profiles=[_qos(durability)]
                )
            self._writer.write(self._connections[topic], frame.stamp_ns, self._make.serialize(message, kind))

    def _messages_of(self, frame: EncodedFrame, world_from_cam: Float) -> Iterator[tuple[str, Any]]:
        """Yield each message with its topic."""
        make, rig, stamp = self._make, self._rig, frame.stamp_ns
        header, right_header = (make_header(make, stamp, name) for name in (rig.frame_id, rig.right_frame_id))
        if rig.right is not None and not self._connections:
            yield "/tf_static", _transform(make, header, rig.right_frame_id, invert_pose(rig.right_from_left))
        yield "/tf", _transform(make, make_header(make, stamp, "world"), rig.frame_id, world_from_cam)
        left_info = _camera_info(make, header, rig.left, self._rectified[0])
        yield f"{rig.topic}/camera_info", left_info
        yield f"{rig.topic}/image_raw/compressed", _compressed_image(make, header, frame.image)
        if rig.right is not None and frame.right_image is not None:
            right_info = _camera_info(make, right_header, rig.right, self._rectified[1])
            yield f"{rig.right_topic}/camera_info", right_info
            yield f"{rig.right_topic}/image_raw/compressed", _compressed_image(make, right_header, frame.right_image)
        if frame.depth_mm is not None:
            yield f"{rig.depth_topic}/camera_info", left_info
            yield f"{rig.depth_topic}/image_raw", _depth_image(make, header, frame.depth_mm)


def _transform(make: MessageFactory, header: Any, child_frame_id: str, parent_from_child: Float) -> Any:
    """A TFMessage of one transform."""
    transform = make(
        "geometry_msgs/msg/Transform",
        translation=make_vector(make, parent_from_child[:3, 3]),
        rotation=make_quaternion(make, parent_from_child[:3, :3]),
    )
    kind = "geometry_msgs/msg/TransformStamped"
    stamped = make(kind, header=header, child_frame_id=child_frame_id, transform=transform)
    return make("tf2_msgs/msg/TFMessage", transforms=[stamped])


def _camera_info(make: MessageFactory, header: Any, camera: Camera, rectified: Rectification) -> Any:
    whole = make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return make(
        "sensor_msgs/msg/CameraInfo",
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=lens(camera),
        k=camera.K.ravel(),
        r=rectified.R.ravel(),
        p=rectified.P.ravel(),
        binning_x=0,
        binning_y=0,
        roi=whole,
    )


def _compressed_image(make: MessageFactory, header: Any, image: EncodedImage) -> Any:
    return make("sensor_msgs/msg/CompressedImage", header=header, format=image.format, data=image.data)


def _depth_image(make: MessageFactory, header: Any, depth_mm: NDArray[np.uint16]) -> Any:
    height, width = depth_mm.shape
    data = depth_mm.astype("<u2").view(np.uint8).ravel()
    size = {"height": height, "width": width, "step": 2 * width}
    return make("sensor_msgs/msg/Image", header=header, encoding="16UC1", is_bigendian=0, data=data, **size)


def _encode_image(image: Image) -> EncodedImage:
    encoding = "mono8" if image.ndim == 2 else "bgr8"
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return EncodedImage(np.asarray(data, np.uint8).ravel(), f"{encoding}; jpeg compressed {encoding}")


def _qos(durability: QosDurability) -> Qos:
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=10,
        reliability=QosReliability.RELIABLE,
        durability=durability,
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )


def _remove_old_bag(path: Path) -> None:
    if not path.exists():
        return
    metadata = path / "metadata.yaml"
    if not metadata.is_file() or _MARK not in metadata.read_text(encoding="utf-8", errors="replace"):
        raise OutputError(f"'{path}' exists and is no demo bag: remove it, or give another folder.")
    shutil.rmtree(path)


def _not_written(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"cannot write the bag {path} ({reason}): free some space or give another folder.")

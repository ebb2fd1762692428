"""Small bags of every kind, written with rosbags' own writers."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from feature_matcher_ros.geometry import quaternion_from_rotation

KINDS = ("ros1", "sqlite3", "mcap")
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
WIDTH, HEIGHT = 32, 24
K = np.array([[40.0, 0, 15.5], [0, 41.0, 11.5], [0, 0, 1]])


def stamp(number: float) -> int:
    return START_NS + round(number * PERIOD_NS)


def picture(number: int, channels: int = 1) -> np.ndarray:
    pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


@dataclass
class TinyBag:
    """Messages in the order of recording; ``write`` puts them into a bag of any kind."""

    kind: str = "mcap"
    entries: list[tuple[str, str, int, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = get_typestore(Stores.ROS1_NOETIC if self.kind == "ros1" else Stores.ROS2_JAZZY)
        if self.kind == "ros1":
            tf = "geometry_msgs/TransformStamped[] transforms"
            self.store.register(get_types_from_msg(tf, "tf2_msgs/msg/TFMessage"))

    def make(self, type_name: str, **fields: Any) -> Any:
        if self.kind == "ros1":
            if type_name == "std_msgs/msg/Header":
                fields["seq"] = 0
            if type_name == "sensor_msgs/msg/CameraInfo":
                fields = {name.upper() if len(name) == 1 else name: value for name, value in fields.items()}
        return self.store.types[type_name](**fields)

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        seconds, rest = divmod(stamp_ns, 1_000_000_000)
        time = self.make("builtin_interfaces/msg/Time", sec=seconds, nanosec=rest)
        return self.make("std_msgs/msg/Header", stamp=time, frame_id=frame_id)

    def add(self, topic: str, type_name: str, stamp_ns: int, message: Any) -> None:
        self.entries.append((topic, type_name, stamp_ns, message))

    def image(
        self,
        topic: str,
        stamp_ns: int,
        pixels: np.ndarray,
        encoding: str = "mono8",
        frame_id: str = "camera",
        recorded_ns: int | None = None,
        **changes: Any,
    ) -> None:
        height, width = pixels.shape[:2]
        fields = {
            "header": self.header(stamp_ns, frame_id),
            "height": height,
            "width": width,
            "encoding": encoding,
            "is_bigendian": 0,
            "step": pixels.nbytes // height,
            "data": pixels.view(np.uint8).reshape(-1),
        }
        message = self.make("sensor_msgs/msg/Image", **(fields | changes))
        self.add(topic, "sensor_msgs/msg/Image", recorded_ns or stamp_ns, message)

    def compressed(
        self,
        topic: str,
        stamp_ns: int,
        pixels: np.ndarray,
        name: str = "png",
        frame_id: str = "camera",
        head: bytes = b"",
    ) -> None:
        data = np.frombuffer(head + cv2.imencode(".png", pixels)[1].tobytes(), np.uint8)
        header = self.header(stamp_ns, frame_id)
        message = self.make("sensor_msgs/msg/CompressedImage", header=header, format=name, data=data)
        self.add(topic, "sensor_msgs/msg/CompressedImage", stamp_ns, message)

    def info(self, topic: str, stamp_ns: int = START_NS, frame_id: str = "camera", **changes: Any) -> None:
        roi = self.make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
        fields = {
            "header": self.header(stamp_ns, frame_id),
            "height": HEIGHT,
            "width": WIDTH,
            "distortion_model": "plumb_bob",
            "d": np.zeros(5),
            "k": K.reshape(-1),
            "r": np.eye(3).reshape(-1),
            "p": np.hstack([K, np.zeros((3, 1))]).reshape(-1),
            "binning_x": 0,
            "binning_y": 0,
            "roi": roi,
        }
        message = self.make("sensor_msgs/msg/CameraInfo", **(fields | changes))
        self.add(topic, "sensor_msgs/msg/CameraInfo", stamp_ns, message)

    def pose(self, matrix: np.ndarray) -> Any:
        x, y, z = matrix[:3, 3].tolist()
        return self.make(
            "geometry_msgs/msg/Pose",
            position=self.make("geometry_msgs/msg/Point", x=x, y=y, z=z),
            orientation=self._quaternion(matrix),
        )

    def pose_stamped(self, topic: str, stamp_ns: int, matrix: np.ndarray) -> None:
        message = self.make(
            "geometry_msgs/msg/PoseStamped", header=self.header(stamp_ns, "map"), pose=self.pose(matrix)
        )
        self.add(topic, "geometry_msgs/msg/PoseStamped", stamp_ns, message)

    def odometry(self, topic: str, stamp_ns: int, matrix: np.ndarray, child: str) -> None:
        zero = self.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        twist = self.make("geometry_msgs/msg/Twist", linear=zero, angular=zero)
        message = self.make(
            "nav_msgs/msg/Odometry",
            header=self.header(stamp_ns, "map"),
            child_frame_id=child,
            pose=self.make("geometry_msgs/msg/PoseWithCovariance", pose=self.pose(matrix), covariance=np.zeros(36)),
            twist=self.make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
        )
        self.add(topic, "nav_msgs/msg/Odometry", stamp_ns, message)

    def transform(self, stamp_ns: int, parent: str, child: str, parent_from_child: np.ndarray) -> Any:
        x, y, z = parent_from_child[:3, 3].tolist()
        transform = self.make(
            "geometry_msgs/msg/Transform",
            translation=self.make("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
            rotation=self._quaternion(parent_from_child),
        )
        return self.make(
            "geometry_msgs/msg/TransformStamped",
            header=self.header(stamp_ns, parent),
            child_frame_id=child,
            transform=transform,
        )

    def tf(self, topic: str, stamp_ns: int, edges: Iterable[tuple[str, str, np.ndarray]]) -> None:
        transforms = [self.transform(stamp_ns, *edge) for edge in edges]
        message = self.make("tf2_msgs/msg/TFMessage", transforms=transforms)
        self.add(topic, "tf2_msgs/msg/TFMessage", stamp_ns, message)

    def camera(self, topic: str = "/camera/image_raw", count: int = 5, **changes: Any) -> None:
        """A camera with its CameraInfo, that sees ``picture(0)``, ``picture(1)`` ..."""
        self.info(topic.rpartition("/")[0] + "/camera_info", **changes)
        for number in range(count):
            self.image(topic, stamp(number), picture(number))

    def write(self, folder: Path) -> Path:
        path = folder / ("tiny.bag" if self.kind == "ros1" else "tiny")
        if self.kind == "ros1":
            with Ros1Writer(path) as ros1:
                self._write_entries(ros1, self.store.serialize_ros1, {})
        else:
            plugin = StoragePlugin.MCAP if self.kind == "mcap" else StoragePlugin.SQLITE3
            with Ros2Writer(path, version=9, storage_plugin=plugin) as ros2:
                self._write_entries(ros2, self.store.serialize_cdr, {})
        return path

    def _write_entries(self, writer: Any, serialize: Any, connections: dict[str, Any]) -> None:
        for topic, type_name, stamp_ns, message in self.entries:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, type_name, typestore=self.store)
            data = message if isinstance(message, bytes) else serialize(message, type_name)
            writer.write(connections[topic], stamp_ns, data)

    def _quaternion(self, matrix: np.ndarray) -> Any:
        x, y, z, w = quaternion_from_rotation(matrix[:3, :3]).tolist()
        return self.make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)

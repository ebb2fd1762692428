"""ROS messages without a ROS library: a factory makes them, rclpy's or rosbags' alike."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.geometry import pose_from, quaternion_from_rotation, rotation_from_quaternion


class MessageFactory(Protocol):
    """Makes one message of a type, named as in ``sensor_msgs/msg/Image``.

    Every field is given: numbers, strings, messages, lists of messages and strings, and for arrays and
    sequences of numbers a numpy array of their type. A factory for rclpy turns ``uint8[]`` into
    ``array.array`` and a ``byte`` (DiagnosticStatus.level) into ``bytes``, which its setters ask for.
    """

    def __call__(self, type_name: str, /, **fields: Any) -> Any: ...


def make_time(make: MessageFactory, stamp_ns: int) -> Any:
    """A time; ROS 2 holds seconds in 32 bits with a sign."""
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)


def make_header(make: MessageFactory, stamp_ns: int, frame_id: str) -> Any:
    """A header, of the image that caused the message."""
    return make("std_msgs/msg/Header", stamp=make_time(make, stamp_ns), frame_id=frame_id)


def make_vector(make: MessageFactory, vector: ArrayLike) -> Any:
    """A vector (3,)."""
    x, y, z = np.asarray(vector, np.float64).tolist()
    return make("geometry_msgs/msg/Vector3", x=x, y=y, z=z)


def make_quaternion(make: MessageFactory, rotation: Float) -> Any:
    """The quaternion of a rotation (3, 3)."""
    x, y, z, w = quaternion_from_rotation(rotation).tolist()
    return make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)


def make_pose(make: MessageFactory, b_from_a: Float) -> Any:
    """The pose of a, in a message whose header names b."""
    x, y, z = b_from_a[:3, 3].tolist()
    position = make("geometry_msgs/msg/Point", x=x, y=y, z=z)
    return make("geometry_msgs/msg/Pose", position=position, orientation=make_quaternion(make, b_from_a[:3, :3]))


def stamp_ns_of(header: Any) -> int:
    """The stamp of a header, in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def matrix_from_pose(pose: Any) -> Float:
    """(4, 4) of a ``geometry_msgs/Pose``; its quaternion must not be zero."""
    return _matrix(pose.position, pose.orientation)


def matrix_from_transform(transform: Any) -> Float:
    """(4, 4) of a ``geometry_msgs/Transform``; its quaternion must not be zero."""
    return _matrix(transform.translation, transform.rotation)


def _matrix(position: Any, orientation: Any) -> Float:
    q = [orientation.x, orientation.y, orientation.z, orientation.w]
    return pose_from(rotation_from_quaternion(q), [position.x, position.y, position.z])

"""The topics of the front-end: names, types and quality of service, and which results go where."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from feature_matcher_ros.datatypes import Camera, FrontEndResult, ScaleSource
from feature_matcher_ros.ros.conversions import (
    diagnostics_message,
    keyframe_message,
    odometry_message,
    relative_pose_message,
    transform_message,
)
from feature_matcher_ros.ros.correspondences import cloud_from_result
from feature_matcher_ros.ros.messages import MessageFactory

NODE_NAME = "/feature_matcher"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic that is published; ``~`` is the name of the node."""

    name: str
    type_name: str
    depth: int = 10  # messages kept for a slow subscriber; all topics are reliable and volatile

    @property
    def full_name(self) -> str:
        """The name under which the default node publishes."""
        return self.name.replace("~", NODE_NAME, 1)


CORRESPONDENCES = Topic("~/correspondences", "sensor_msgs/msg/PointCloud2")
RELATIVE_POSE = Topic("~/relative_pose", "geometry_msgs/msg/PoseWithCovarianceStamped")
ODOMETRY = Topic("~/odometry", "nav_msgs/msg/Odometry")
KEYFRAME = Topic("~/keyframe", "diagnostic_msgs/msg/DiagnosticArray")
PATH = Topic("~/path", "nav_msgs/msg/Path", depth=1)
MATCHES_IMAGE = Topic("~/matches_image/compressed", "sensor_msgs/msg/CompressedImage", depth=1)
DIAGNOSTICS = Topic("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
TF = Topic("/tf", "tf2_msgs/msg/TFMessage", depth=100)
# Of the live node alone; replay writes what STATUS says into DIAGNOSTICS, which the node publishes once a second.
STATUS = Topic("~/status", "diagnostic_msgs/msg/DiagnosticArray")
MATCHES_IMAGE_RAW = Topic("~/matches_image", "sensor_msgs/msg/Image", depth=1)
MARKERS = Topic("~/markers", "visualization_msgs/msg/MarkerArray", depth=1)
# The camera's place for viewers that listen to it instead of /tf, where the camera may have another parent; and a
# frame that moves with the camera without turning, for a view to follow.
VIEW_TF = Topic("~/tf", "tf2_msgs/msg/TFMessage", depth=100)
VIEW_FRAME = "view"
VINS_FEATURES = Topic("~/vins_features", "sensor_msgs/msg/PointCloud")

TOPICS = (CORRESPONDENCES, RELATIVE_POSE, ODOMETRY, KEYFRAME, PATH, MATCHES_IMAGE, DIAGNOSTICS, TF)


@dataclass(frozen=True, slots=True)
class TopicOptions:
    """What is published, and in which frame."""

    odom_frame_id: str = "odom"
    publish_tf: bool = False  # /tf from the odometry frame to the optical frame, which then has no other parent
    publish_unscaled: bool = False  # odometry, path and /tf also where no length is known


def messages_of(
    make: MessageFactory,
    result: FrontEndResult,
    camera: Camera,
    options: TopicOptions,
    wanted: Collection[Topic] = TOPICS,
) -> Iterator[tuple[Topic, Any]]:
    """Yield what one result says, topic by topic; nothing is computed for a topic that is not ``wanted``.

    ``camera`` is that of the frame. Path and matches image depend on more than one result and are left to
    the caller.
    """
    placed = has_place(result, options)
    makers: list[tuple[Topic, bool, Callable[[], Any]]] = [
        (CORRESPONDENCES, result.matches is not None, lambda: cloud_from_result(make, result, camera)),
        (RELATIVE_POSE, result.pose is not None, lambda: relative_pose_message(make, result)),
        (ODOMETRY, placed, lambda: odometry_message(make, result, options.odom_frame_id)),
        (KEYFRAME, result.is_keyframe, lambda: keyframe_message(make, result)),
        (TF, placed and options.publish_tf, lambda: transform_message(make, result, options.odom_frame_id)),
        (DIAGNOSTICS, True, lambda: diagnostics_message(make, result)),
    ]
    for topic, exists, make_message in makers:
        if exists and topic in wanted:
            yield topic, make_message()


def has_place(result: FrontEndResult, options: TopicOptions) -> bool:
    """Tell whether the frame's place in the odometry frame is to be published."""
    if result.odometry is None:
        return False
    return options.publish_unscaled or result.odometry.scale_source is not ScaleSource.NONE

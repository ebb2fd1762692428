"""What the front-end says, as messages of ROS 2's own packages.

Covariances are those of REP-103: row-major, x, y, z, then rotations about the fixed axes of the
message's frame. What is not known has a variance of ``UNKNOWN_VARIANCE``: large enough for a filter to
take no notice, finite so that it can be inverted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np

from feature_matcher_ros.datatypes import Float, FrontEndResult, Image, RelativePose, Status, TrackingState
from feature_matcher_ros.geometry import move_covariance, pose_from, skew
from feature_matcher_ros.ros.messages import (
    MessageFactory,
    make_header,
    make_pose,
    make_quaternion,
    make_vector,
)

UNKNOWN_VARIANCE = 1e6  # square metres, or square radians
# Where a segment begins its place is known exactly; zeros mean unknown to some readers, and cannot be inverted.
_LEAST_VARIANCE = 1e-9

# From the axes of a camera (z forward, x right, y down) to those of REP-103 (x forward, y left, z up).
ODOM_FROM_WORLD = pose_from([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], np.zeros(3))

_OK, _WARN, _ERROR = 0, 1, 2  # DiagnosticStatus.level
_GOOD = (Status.OK, Status.FIRST_FRAME, Status.GATED)


def relative_pose_message(make: MessageFactory, result: FrontEndResult) -> Any:
    """The keyframe's camera as seen from the current one: ``cam1_from_cam0``, in the current optical frame.

    Without a scale the position has unit length, and its variance along itself is unknown; where neither direction
    nor length is known the position is zero and unknown altogether.
    """
    assert result.pose is not None
    return make(
        "geometry_msgs/msg/PoseWithCovarianceStamped",
        header=make_header(make, result.stamp_ns, result.frame_id),
        pose=_with_covariance(make, "Pose", make_pose(make, result.pose.cam1_from_cam0), ros_covariance(result.pose)),
    )


def ros_covariance(pose: RelativePose) -> Float:
    """The (6, 6) covariance of position and rotation about fixed axes.

    The pose's own covariance is that of a small motion (rho, theta) after it, which moves the position t
    by ``rho + theta x t``.
    """
    if pose.direction is None and pose.baseline_m is None:
        covariance = np.diag([UNKNOWN_VARIANCE] * 3 + [0.0] * 3)
        covariance[3:, 3:] = pose.covariance
        return covariance
    jacobian = np.eye(6)
    jacobian[:3, 3:] = -skew(pose.cam1_from_cam0[:3, 3])
    covariance = jacobian @ pose.covariance @ jacobian.T
    if pose.direction is not None and pose.baseline_m is None:
        covariance[:3, :3] += UNKNOWN_VARIANCE * np.outer(pose.direction, pose.direction)
    return (covariance + covariance.T) / 2.0


def odometry_message(make: MessageFactory, result: FrontEndResult, odom_frame_id: str) -> Any:
    """The current camera in the odometry frame of its segment (REP-105).

    The odometry frame has REP-103's axes: x where the camera of the segment's first frame looked, z up as
    seen by it; the child is the camera's optical frame. Velocity is not estimated.
    """
    assert result.odometry is not None
    pose, unknown = odom_from_cam(result), np.eye(6) * UNKNOWN_VARIANCE
    known = result.odometry.covariance
    covariance = unknown
    if known is not None:
        covariance = move_covariance(pose_from(pose[:3, :3], np.zeros(3)), known) + np.eye(6) * _LEAST_VARIANCE
    still = make("geometry_msgs/msg/Twist", linear=make_vector(make, [0, 0, 0]), angular=make_vector(make, [0, 0, 0]))
    return make(
        "nav_msgs/msg/Odometry",
        header=make_header(make, result.stamp_ns, odom_frame_id),
        child_frame_id=result.frame_id,
        pose=_with_covariance(make, "Pose", make_pose(make, pose), covariance),
        twist=_with_covariance(make, "Twist", still, unknown),
    )


def odom_from_cam(result: FrontEndResult) -> Float:
    """The pose (4, 4) of the current camera in the odometry frame; the result must have odometry."""
    assert result.odometry is not None
    return ODOM_FROM_WORLD @ result.odometry.world_from_cam


def transform_message(make: MessageFactory, result: FrontEndResult, odom_frame_id: str) -> Any:
    """``/tf`` from the odometry frame to the camera's optical frame, which must have no other parent."""
    return transforms_message(make, result.stamp_ns, odom_frame_id, {result.frame_id: odom_from_cam(result)})


def transforms_message(make: MessageFactory, stamp_ns: int, parent: str, children: Mapping[str, Float]) -> Any:
    """Places in one frame, as poses (4, 4) by the names of their frames."""
    header = make_header(make, stamp_ns, parent)
    transforms = [
        make(
            "geometry_msgs/msg/TransformStamped",
            header=header,
            child_frame_id=child,
            transform=make(
                "geometry_msgs/msg/Transform",
                translation=make_vector(make, pose[:3, 3]),
                rotation=make_quaternion(make, pose[:3, :3]),
            ),
        )
        for child, pose in children.items()
    ]
    return make("tf2_msgs/msg/TFMessage", transforms=transforms)


def path_message(make: MessageFactory, poses: Iterable[tuple[int, Float]], stamp_ns: int, odom_frame_id: str) -> Any:
    """The keyframes of a segment as pairs of ``stamp_ns`` and ``odom_from_cam``."""
    placed = [place_message(make, pose_ns, pose, odom_frame_id) for pose_ns, pose in poses]
    return make("nav_msgs/msg/Path", header=make_header(make, stamp_ns, odom_frame_id), poses=placed)


def place_message(make: MessageFactory, stamp_ns: int, pose: Float, odom_frame_id: str) -> Any:
    """One pose of a path."""
    header = make_header(make, stamp_ns, odom_frame_id)
    return make("geometry_msgs/msg/PoseStamped", header=header, pose=make_pose(make, pose))


def keyframe_message(make: MessageFactory, result: FrontEndResult) -> Any:
    """The header of the frame that became the keyframe, with the reason: one entry of a DiagnosticArray.

    It is the one message of the common packages that holds a header and text with a name.
    """
    assert result.keyframe_reason is not None
    values = {"previous_keyframe_stamp": _seconds(result.keyframe_stamp_ns), "segment": _segment(result)}
    return _diagnostics(make, result, "keyframe", _OK, result.keyframe_reason.value, values)


def diagnostics_message(make: MessageFactory, result: FrontEndResult) -> Any:
    """What became of one frame: ERROR while lost, WARN without a pose; what does not exist has no entry."""
    level = _OK if result.status in _GOOD else _WARN
    if result.state is TrackingState.LOST:
        level = _ERROR
    return _diagnostics(make, result, "front_end", level, result.status.value, _details(result))


def compressed_image_message(make: MessageFactory, stamp_ns: int, frame_id: str, image: Image) -> Any:
    """A grey or BGR image as JPEG."""
    _, data = cv2.imencode(".jpg", image)
    header = make_header(make, stamp_ns, frame_id)
    return make("sensor_msgs/msg/CompressedImage", header=header, format="jpeg", data=data.reshape(-1))


def image_message(make: MessageFactory, stamp_ns: int, frame_id: str, image: Image) -> Any:
    """A grey or BGR image as it is."""
    height, width = image.shape[:2]
    return make(
        "sensor_msgs/msg/Image",
        header=make_header(make, stamp_ns, frame_id),
        height=height,
        width=width,
        encoding="mono8" if image.ndim == 2 else "bgr8",
        is_bigendian=0,
        step=image[0].nbytes,
        data=np.ascontiguousarray(image).reshape(-1),
    )


def _with_covariance(make: MessageFactory, what: str, value: Any, covariance: Float) -> Any:
    fields = {what.lower(): value, "covariance": covariance.reshape(36)}
    return make(f"geometry_msgs/msg/{what}WithCovariance", **fields)


def _details(result: FrontEndResult) -> dict[str, str | None]:
    matches, pose, gate = result.matches, result.pose, result.gate
    inliers = None if result.inliers is None else str(np.count_nonzero(result.inliers))
    return {
        "state": result.state.value,
        "motion_type": result.motion_type.value,
        "scale_source": None if pose is None else pose.scale_source.value,
        "estimator": None if pose is None else pose.estimator.value,
        "baseline_m": None if pose is None or pose.baseline_m is None else f"{pose.baseline_m:.6f}",
        "keyframe_stamp": _seconds(result.keyframe_stamp_ns),
        "keyframe_reason": None if result.keyframe_reason is None else result.keyframe_reason.value,
        "segment": _segment(result),
        "num_matches": None if matches is None else str(len(matches)),
        "num_inliers": inliers,
        "layers_run": None if matches is None or matches.layers_run is None else str(matches.layers_run),
        "parallax_px": None if gate is None else f"{gate.parallax_px:.3f}",
        "survival": None if gate is None else f"{gate.survival:.3f}",
        **{f"{stage}_ms": f"{value:.3f}" for stage, value in result.stages_ms.items()},
    }


def _diagnostics(
    make: MessageFactory, result: FrontEndResult, name: str, level: int, message: str, values: Mapping[str, str | None]
) -> Any:
    status = make(
        "diagnostic_msgs/msg/DiagnosticStatus",
        level=level,
        name=f"feature_matcher: {name}",
        message=message,
        hardware_id=result.frame_id,
        values=[
            make("diagnostic_msgs/msg/KeyValue", key=key, value=value)
            for key, value in values.items()
            if value is not None
        ],
    )
    header = make_header(make, result.stamp_ns, result.frame_id)
    return make("diagnostic_msgs/msg/DiagnosticArray", header=header, status=[status])


def _seconds(stamp_ns: int | None) -> str | None:
    return None if stamp_ns is None else f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}"


def _segment(result: FrontEndResult) -> str | None:
    return None if result.odometry is None else str(result.odometry.segment)

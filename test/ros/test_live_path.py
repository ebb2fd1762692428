"""The path of the live node: what it says, and that a long one costs no more than a short one."""

from collections import Counter
from typing import Any

import numpy as np

from feature_matcher_ros.datatypes import (
    Float,
    FrontEndResult,
    KeyframeReason,
    MotionType,
    Odometry,
    ScaleSource,
    Status,
    TrackingState,
)
from feature_matcher_ros.evaluation.rosbags_messages import RosbagsMessages
from feature_matcher_ros.geometry import pose_from, rotation_from_vector
from feature_matcher_ros.ros.conversions import odom_from_cam, path_message
from feature_matcher_ros.ros.live_path import _MAX_PATH, LivePath

MAKE = RosbagsMessages()
KIND = "nav_msgs/msg/Path"


def at(number: int, segment: int, *, is_keyframe: bool = True) -> FrontEndResult:
    world_from_cam: Float = pose_from(rotation_from_vector(np.array([0, 1e-3 * number, 0])), [0, 0, 0.1 * number])
    return FrontEndResult(
        stamp_ns=number, frame_id="camera", status=Status.OK, state=TrackingState.OK, motion_type=MotionType.GENERAL,
        keyframe_stamp_ns=0, keyframe_reason=KeyframeReason.FIRST_FRAME if is_keyframe else None, gate=None,
        matches=None, inliers=None, track_ids=None, pose=None,
        odometry=Odometry(world_from_cam, ScaleSource.STEREO, segment), stages_ms={},
    )  # fmt: skip


def test_a_path_grows_by_what_is_new_and_loses_its_beginning() -> None:
    made: Counter[str] = Counter()

    def make(type_name: str, /, **fields: Any) -> Any:
        made[type_name] += 1
        return MAKE(type_name, **fields)

    def said(results: list[FrontEndResult]) -> bytes:
        poses = [(result.stamp_ns, odom_from_cam(result)) for result in results]
        return bytes(MAKE.serialize(path_message(MAKE, poses, 7, "odom"), KIND))

    path, results = LivePath("odom"), [at(number, 1) for number in range(_MAX_PATH + 3)]
    path.follow(at(99, 1, is_keyframe=False))
    for number, result in enumerate(results):
        path.follow(result)
        if number in (0, 5, _MAX_PATH - 1) or number > _MAX_PATH:
            message = path.message(make, 7)
            expected = results[: number + 1][-_MAX_PATH:]
            assert bytes(MAKE.serialize(message, KIND)) == said(expected)
            assert len(path.poses()) == len(expected)
    assert made["geometry_msgs/msg/PoseStamped"] == len(results), "each was made once"
    path.follow(at(0, 2))
    assert bytes(MAKE.serialize(path.message(make, 7), KIND)) == said([at(0, 2)]), "a new segment"

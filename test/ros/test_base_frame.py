"""Odometry of the robot's base, against the poses written out; and transforms as tf gives them, over the wire."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

from live_harness import ADAPTERS, Consumer, LiveCamera, LiveNode, remap, settings, wait_until

from feature_matcher_ros.datatypes import Float, Frame, FrontEndResult, MotionType, Odometry, ScaleSource, Status
from feature_matcher_ros.datatypes import TrackingState as State
from feature_matcher_ros.geometry import invert_pose, pose_from
from feature_matcher_ros.ros.base_frame import BaseFrame
from feature_matcher_ros.ros.conversions import odom_from_cam
from feature_matcher_ros.ros.graph import LATCHED, Graph
from feature_matcher_ros.ros.messages import (
    make_header,
    make_quaternion,
    make_vector,
    matrix_from_pose,
    matrix_from_transform,
)
from feature_matcher_ros.ros.topics import ODOMETRY, PATH, STATUS, TF, VIEW_FRAME, VIEW_TF

# The camera looks ahead from 0.3 m before and 0.2 m above the base, its optical axis along x of the base.
BASE_FROM_CAM = pose_from([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0.3, 0.0, 0.2])


def turn_about(vector: list[float]) -> Float:
    return pose_from(cv2.Rodrigues(np.array(vector))[0], np.zeros(3))


def result_at(world_from_cam: Float, segment: int = 0) -> FrontEndResult:
    odometry = Odometry(world_from_cam, ScaleSource.STEREO, segment)
    return FrontEndResult(
        stamp_ns=5,
        frame_id="camera",
        status=Status.OK,
        state=State.OK,
        motion_type=MotionType.GENERAL,
        keyframe_stamp_ns=1,
        keyframe_reason=None,
        gate=None,
        matches=None,
        inliers=None,
        track_ids=None,
        pose=None,
        odometry=odometry,
        stages_ms={},
    )


def graph_with(transforms: dict[tuple[str, str], Float]) -> Graph:
    known = transforms | {(b, a): invert_pose(pose) for (a, b), pose in transforms.items()}
    return cast(Graph, SimpleNamespace(transform=lambda target, source, stamp_ns: known.get((target, source))))


def test_a_robot_that_turns_on_the_spot_does_not_move_though_its_camera_does() -> None:
    base = BaseFrame(graph_with({("base_link", "camera"): BASE_FROM_CAM}), "base_link")
    for angle in (0.0, 0.4, 1.3):
        turned = pose_from(
            [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]], [0, 0, 0]
        )
        world_from_cam = invert_pose(BASE_FROM_CAM) @ turned @ BASE_FROM_CAM  # the world is the first camera
        placed = base.place(result_at(world_from_cam))
        assert placed is not None and placed.result.frame_id == "base_link"
        np.testing.assert_allclose(odom_from_cam(placed.result), turned, atol=1e-12)
        np.testing.assert_allclose(placed.base_from_cam, BASE_FROM_CAM)


def test_a_robot_that_drives_ahead_goes_along_x_and_a_new_segment_begins_at_zero() -> None:
    base = BaseFrame(graph_with({("base_link", "camera"): BASE_FROM_CAM}), "base_link")
    for segment in (0, 1):
        start = base.place(result_at(np.eye(4), segment))
        moved = base.place(result_at(pose_from(np.eye(3), [0, 0, 2.0]), segment))  # along the optical axis
        assert start is not None and moved is not None
        np.testing.assert_allclose(odom_from_cam(start.result), np.eye(4), atol=1e-12)
        np.testing.assert_allclose(odom_from_cam(moved.result)[:3, 3], [2.0, 0, 0], atol=1e-12)


def test_the_uncertainty_of_a_turn_moves_the_base_beside_the_camera() -> None:
    """A camera 0.3 m ahead whose yaw is unsure leaves the base unsure sideways."""
    base = BaseFrame(graph_with({("base_link", "camera"): BASE_FROM_CAM}), "base_link")
    about_y = np.diag([0, 0, 0, 0, 1e-4, 0])  # the camera's y axis points down
    result = result_at(np.eye(4))
    assert result.odometry is not None
    placed = base.place(replace(result, odometry=replace(result.odometry, covariance=about_y)))
    assert placed is not None and placed.result.odometry is not None
    covariance = placed.result.odometry.covariance
    assert covariance is not None
    np.testing.assert_allclose(np.diag(covariance), [0, 0.3**2 * 1e-4, 0, 0, 0, 1e-4], atol=1e-12)


def test_a_camera_that_is_panned_does_not_move_the_base() -> None:
    known = {("base_link", "camera"): BASE_FROM_CAM}
    graph = graph_with(known)
    base = BaseFrame(graph, "base_link")
    base.place(result_at(np.eye(4)))
    panned = BASE_FROM_CAM @ pose_from(
        [[np.cos(0.5), 0, np.sin(0.5)], [0, 1, 0], [-np.sin(0.5), 0, np.cos(0.5)]], [0, 0, 0]
    )
    graph.transform = lambda *_: panned  # type: ignore[method-assign]
    placed = base.place(result_at(invert_pose(BASE_FROM_CAM) @ panned))
    assert placed is not None
    np.testing.assert_allclose(odom_from_cam(placed.result), np.eye(4), atol=1e-12)


def test_without_a_transform_nothing_is_claimed(caplog: pytest.LogCaptureFixture) -> None:
    base = BaseFrame(graph_with({}), "base_link")
    assert base.place(result_at(np.eye(4))) is None
    assert base.place(replace(result_at(np.eye(4)), stamp_ns=9)) is None
    assert [record.message for record in caplog.records] == [
        "no odometry, path or /tf: tf does not connect 'base_link' and 'camera'; publish the transform between them, "
        "or leave node.base_frame_id empty."
    ]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_odometry_path_and_tf_are_those_of_the_base(adapter: str, frames: list[Frame]) -> None:
    """What the node says of the base is what it would say of the camera, moved by the transform that was published.

    The driver writes a slash before the name of its frame, as in ROS 1, and so does the user.
    """
    node = LiveNode(
        *remap(image="/camera/image"),
        adapter=adapter,
        **settings(node__publish_unscaled=True, node__publish_tf=True, node__base_frame_id="/base_link"),
        node__max_frame_age_ms=0,
        node__qos="reliable",
    )
    with node, LiveCamera() as camera, Consumer([ODOMETRY, PATH, TF, VIEW_TF, STATUS]) as consumer:
        consumer.wait_for_node()
        make, kind = camera.make, "tf2_msgs/msg/TFMessage"
        stand = camera.graph.advertise("/tf_static", kind, LATCHED)
        stand.publish(make(kind, transforms=[transform_to(make, "base_link", frames[0].frame_id, BASE_FROM_CAM)]))
        camera.wait_for_node()
        wait_until(stand.has_subscribers, "a node that asks for transforms")
        for number, frame in enumerate(frames):
            camera.send(replace(frame, frame_id=f"/{frame.frame_id}"))
            consumer.wait_for(STATUS, number + 1)
        assert node.interrupt()[0] == 0
    assert {message.header.frame_id for message in consumer.messages[STATUS]} == {frames[0].frame_id}
    messages = consumer.messages[ODOMETRY]
    assert len(messages) >= len(frames) / 2
    np.testing.assert_allclose(matrix_from_pose(messages[0].pose.pose), np.eye(4), atol=1e-12)
    assert {(m.header.frame_id, m.child_frame_id) for m in messages} == {("odom", "base_link")}
    ahead = [matrix_from_pose(message.pose.pose)[:3, 3] for message in messages]
    lever = [np.linalg.norm(matrix_from_pose(m.pose.pose)[:3, 2] - [0, 0, 1]) for m in messages]
    assert max(lever) < 0.2, "the base stays level, where the axes of the camera would not"
    assert max(np.linalg.norm(step) for step in ahead) > 0.0
    for odometry, view in zip(messages, consumer.messages[VIEW_TF], strict=True):
        camera, followed = view.transforms
        assert camera.header.stamp == followed.header.stamp == odometry.header.stamp
        assert (camera.child_frame_id, followed.child_frame_id) == (frames[0].frame_id, VIEW_FRAME)
        odom_from_cam = matrix_from_pose(odometry.pose.pose) @ BASE_FROM_CAM
        np.testing.assert_allclose(matrix_from_transform(camera.transform), odom_from_cam, atol=1e-12)
        odom_from_cam[:3, :3] = np.eye(3)
        np.testing.assert_allclose(matrix_from_transform(followed.transform), odom_from_cam, atol=1e-12)
    for odometry, transform in zip(messages, consumer.messages[TF], strict=True):
        [stamped] = transform.transforms
        assert (stamped.header.frame_id, stamped.child_frame_id) == ("odom", "base_link")
        assert stamped.header.stamp == odometry.header.stamp
        np.testing.assert_array_equal(matrix_from_transform(stamped.transform), matrix_from_pose(odometry.pose.pose))


def transform_to(make: Any, parent: str, child: str, parent_from_child: Float, stamp_ns: int = 1) -> Any:
    pose = make(
        "geometry_msgs/msg/Transform",
        translation=make_vector(make, parent_from_child[:3, 3]),
        rotation=make_quaternion(make, parent_from_child[:3, :3]),
    )
    header = make_header(make, stamp_ns, parent)
    return make("geometry_msgs/msg/TransformStamped", header=header, child_frame_id=child, transform=pose)

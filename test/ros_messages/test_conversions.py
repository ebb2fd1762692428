"""What the front-end says, through the bytes of ROS messages and back."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.interfaces import Nodetype
from scipy.spatial.transform import Rotation

from feature_matcher_ros.datatypes import (
    Camera,
    DistortionModel,
    Estimator,
    FrontEndResult,
    GateMeasurement,
    KeyframeReason,
    Matches,
    MotionType,
    Odometry,
    RelativePose,
    ScaleSource,
    Status,
    TrackingState,
)
from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.evaluation.rosbags_messages import RosbagsMessages
from feature_matcher_ros.geometry import invert_pose, pose_from, rotation_from_vector, rotation_vector
from feature_matcher_ros.ros.conversions import (
    UNKNOWN_VARIANCE,
    compressed_image_message,
    path_message,
    ros_covariance,
)
from feature_matcher_ros.ros.correspondences import correspondences_from_cloud
from feature_matcher_ros.ros.messages import matrix_from_pose, matrix_from_transform, stamp_ns_of
from feature_matcher_ros.ros.topics import (
    CORRESPONDENCES,
    DIAGNOSTICS,
    KEYFRAME,
    ODOMETRY,
    RELATIVE_POSE,
    TF,
    TOPICS,
    TopicOptions,
    messages_of,
)

MAKE = RosbagsMessages()
CAMERA = Camera(np.array([[500.0, 0, 320], [0, 505, 240], [0, 0, 1]]), 640, 480, np.array([0.1, -0.05, 0.001, 0.002]),
                DistortionModel.PLUMB_BOB)  # fmt: skip
RANDOM = np.random.default_rng(5)
COUNT = 200
MATCHES = Matches(
    RANDOM.uniform(0, 480, (COUNT, 2)).astype(np.float32),
    RANDOM.uniform(0, 480, (COUNT, 2)).astype(np.float32),
    RANDOM.uniform(0, 1, COUNT).astype(np.float32),
    layers_run=3,
)
ROOT = RANDOM.normal(0, 0.02, (6, 6))
METRIC = RelativePose(rotation_from_vector([0.2, -0.1, 0.3]), np.array([0.6, 0.0, 0.8]), 0.5, ScaleSource.STEREO,
                      MotionType.GENERAL, ROOT @ ROOT.T, Estimator.ABSOLUTE_POSE)  # fmt: skip
WORLD_FROM_CAM = pose_from(rotation_from_vector([0.1, 0.5, -0.2]), [1.0, 2.0, 3.0])
RESULT = FrontEndResult(
    stamp_ns=1_700_000_000_123_456_789,
    frame_id="camera_optical",
    status=Status.OK,
    state=TrackingState.OK,
    motion_type=MotionType.GENERAL,
    keyframe_stamp_ns=1_700_000_000_023_456_788,
    keyframe_reason=KeyframeReason.PARALLAX,
    gate=GateMeasurement(12.5, 14.0, 0.75, 1.5),
    matches=MATCHES,
    inliers=RANDOM.random(COUNT) < 0.7,
    track_ids=RANDOM.integers(1, 2**32, COUNT, dtype=np.uint32),
    pose=METRIC,
    odometry=Odometry(WORLD_FROM_CAM, ScaleSource.STEREO, 2),
    stages_ms={"gate": 6.5, "total": 80.25},
)
ALL = TopicOptions(publish_tf=True, publish_unscaled=True)


def through_bytes(message: Any, type_name: str) -> Any:
    return MAKE.typestore.deserialize_cdr(MAKE.serialize(message, type_name), type_name)


def topics_of(result: FrontEndResult, options: TopicOptions = ALL) -> dict[Any, Any]:
    """All messages, as a subscriber gets them."""
    return {
        topic: through_bytes(message, topic.type_name) for topic, message in messages_of(MAKE, result, CAMERA, options)
    }


def test_correspondences_come_back_bit_for_bit() -> None:
    read = correspondences_from_cloud(topics_of(RESULT)[CORRESPONDENCES])
    assert (read.stamp_ns, read.frame_id) == (RESULT.stamp_ns, "camera_optical")
    assert read.keyframe_stamp_ns == RESULT.keyframe_stamp_ns
    for name in ("points0", "points1", "scores"):
        written = getattr(MATCHES, name)
        assert getattr(read.matches, name).tobytes() == written.tobytes()
        assert getattr(read.matches, name).dtype == written.dtype
    np.testing.assert_array_equal(read.inliers, RESULT.inliers)
    np.testing.assert_array_equal(read.track_ids, RESULT.track_ids)
    assert read.track_ids.dtype == np.uint32 and read.inliers.dtype == np.bool_
    np.testing.assert_allclose(np.linalg.norm(read.rays, axis=1), 1, atol=1e-6)
    projected, _ = cv2.projectPoints(
        read.rays.astype(np.float64), np.zeros(3), np.zeros(3), CAMERA.K, CAMERA.distortion
    )
    np.testing.assert_allclose(projected.reshape(-1, 2), MATCHES.points1, atol=1e-3)


def test_the_cloud_is_one_that_cloud_tools_read() -> None:
    """The layout that the documentation promises, read byte by byte."""
    cloud = topics_of(RESULT)[CORRESPONDENCES]
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (1, COUNT, 48, 48 * COUNT)
    assert cloud.is_dense and not cloud.is_bigendian and len(cloud.data) == 48 * COUNT
    fields = {field.name: (field.offset, field.datatype, field.count) for field in cloud.fields}
    names = ["x", "y", "z", "x0", "y0", "x1", "y1", "score"]
    assert [fields[name] for name in names] == [(4 * number, 7, 1) for number in range(8)]
    assert fields["track_id"] == (32, 6, 1) and fields["keyframe_sec"] == (36, 6, 1)
    assert fields["keyframe_nanosec"] == (40, 6, 1) and fields["inlier"] == (44, 2, 1)
    point = bytes(cloud.data[48 * 7 : 48 * 8])
    assert RESULT.track_ids is not None and RESULT.inliers is not None
    assert int.from_bytes(point[32:36], "little") == RESULT.track_ids[7]
    assert int.from_bytes(point[36:40], "little") == 1_700_000_000
    assert int.from_bytes(point[40:44], "little") == 23_456_788
    assert point[44] == RESULT.inliers[7] and point[45:] == b"\0\0\0"


def test_matches_without_tracks_and_without_anything() -> None:
    lost = replace(RESULT, pose=None, track_ids=None, status=Status.TOO_FEW_INLIERS, state=TrackingState.LOST)
    assert not correspondences_from_cloud(topics_of(lost)[CORRESPONDENCES]).track_ids.any()
    nothing = Matches(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    empty = replace(lost, matches=nothing, inliers=np.zeros(0, np.bool_))
    read = correspondences_from_cloud(topics_of(empty)[CORRESPONDENCES])
    assert len(read.matches) == 0 and read.keyframe_stamp_ns is None and read.rays.shape == (0, 3)


def test_a_cloud_of_something_else_is_refused() -> None:
    cloud = topics_of(RESULT)[CORRESPONDENCES]
    with pytest.raises(SourceError, match="holds only 100 bytes"):
        correspondences_from_cloud(replace(cloud, data=cloud.data[:100]))
    with pytest.raises(SourceError, match="no field 'score'"):
        correspondences_from_cloud(replace(cloud, fields=[f for f in cloud.fields if f.name != "score"]))


def test_the_relative_pose_has_the_keyframe_in_the_current_frame() -> None:
    message = topics_of(RESULT)[RELATIVE_POSE]
    assert (stamp_ns_of(message.header), message.header.frame_id) == (RESULT.stamp_ns, "camera_optical")
    np.testing.assert_allclose(matrix_from_pose(message.pose.pose), METRIC.cam1_from_cam0, atol=1e-12)
    np.testing.assert_array_equal(message.pose.covariance.reshape(6, 6), ros_covariance(METRIC))


def test_the_covariance_is_that_of_position_and_fixed_axes() -> None:
    """Against drawn samples of the small motion that the pose's own covariance describes."""
    samples = RANDOM.multivariate_normal(np.zeros(6), METRIC.covariance, 20000)
    pose = METRIC.cam1_from_cam0
    deviations = np.empty_like(samples)
    for number, (rho, theta) in enumerate(zip(samples[:, :3], samples[:, 3:], strict=True)):
        moved = pose_from(rotation_from_vector(theta), rho) @ pose
        deviations[number, :3] = moved[:3, 3] - pose[:3, 3]
        deviations[number, 3:] = rotation_vector(moved[:3, :3] @ pose[:3, :3].T)
    sampled, covariance = np.cov(deviations.T), ros_covariance(METRIC)
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(sampled / scale, covariance / scale, atol=0.04)


def test_what_is_not_known_has_a_large_finite_variance() -> None:
    across = np.eye(3) - np.outer(METRIC.direction, METRIC.direction)
    known = np.zeros((6, 6))
    known[:3, :3], known[3:, 3:] = 1e-4 * across, 1e-6 * np.eye(3)
    unscaled = replace(METRIC, baseline_m=None, scale_source=ScaleSource.NONE, covariance=known)
    covariance = ros_covariance(unscaled)
    direction = np.array([0.6, 0.0, 0.8])
    assert direction @ covariance[:3, :3] @ direction == pytest.approx(UNKNOWN_VARIANCE)
    sideways = np.array([0.8, 0.0, -0.6])
    assert sideways @ covariance[:3, :3] @ sideways == pytest.approx(1e-4 + 1e-6)
    rotation_only = replace(unscaled, direction=None, motion_type=MotionType.ROTATION_ONLY, covariance=np.eye(3) * 1e-6)
    covariance = ros_covariance(rotation_only)
    np.testing.assert_array_equal(covariance, np.diag([UNKNOWN_VARIANCE] * 3 + [1e-6] * 3))
    for pose in (METRIC, unscaled, rotation_only):
        covariance = ros_covariance(pose)
        assert np.all(np.isfinite(covariance)) and np.array_equal(covariance, covariance.T)
        assert np.all(np.linalg.eigvalsh(covariance) > -1e-9)
    message = topics_of(replace(RESULT, pose=rotation_only))[RELATIVE_POSE]
    assert message.pose.pose.position.x == message.pose.pose.position.z == 0.0


def test_odometry_has_the_axes_of_rep_103() -> None:
    """A camera that moves ahead moves along x; one that moves right along -y; up along z."""
    for moved, expected in (([0, 0, 2.0], [2, 0, 0]), ([2.0, 0, 0], [0, -2, 0]), ([0, -2.0, 0], [0, 0, 2])):
        odometry = Odometry(pose_from(np.eye(3), moved), ScaleSource.DEPTH, 0)
        message = topics_of(replace(RESULT, odometry=odometry))[ODOMETRY]
        position = message.pose.pose.position
        np.testing.assert_allclose([position.x, position.y, position.z], expected, atol=1e-12)
    assert (message.header.frame_id, message.child_frame_id) == ("odom", "camera_optical")
    # The camera's own axes: its optical axis is x of the odometry frame, its y points down.
    np.testing.assert_allclose(matrix_from_pose(message.pose.pose)[:3, 2], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(matrix_from_pose(message.pose.pose)[:3, 1], [0, 0, -1], atol=1e-12)
    assert np.diag(message.pose.covariance.reshape(6, 6)).tolist() == [UNKNOWN_VARIANCE] * 6


def test_the_covariance_of_odometry_is_that_of_the_camera_about_the_fixed_axes() -> None:
    """Small motions of the camera, drawn in its own axes, spread position and rotation in the odometry frame so."""
    odometry = replace(RESULT.odometry, covariance=METRIC.covariance * 1e-4)
    message = topics_of(replace(RESULT, odometry=odometry))[ODOMETRY]
    place = matrix_from_pose(message.pose.pose)
    errors = []
    for small in np.random.default_rng(0).multivariate_normal(np.zeros(6), odometry.covariance, 20_000):
        other = place @ pose_from(rotation_from_vector(small[3:]), small[:3])
        turn = Rotation.from_matrix(other[:3, :3] @ place[:3, :3].T).as_rotvec()
        errors.append(np.concatenate([other[:3, 3] - place[:3, 3], turn]))
    covariance = message.pose.covariance.reshape(6, 6)
    np.testing.assert_allclose(np.cov(np.array(errors).T), covariance, atol=0.03 * covariance.diagonal().max())


def test_the_covariance_of_odometry_can_be_inverted_where_a_segment_begins() -> None:
    begin = topics_of(replace(RESULT, odometry=replace(RESULT.odometry, covariance=np.zeros((6, 6)))))[ODOMETRY]
    assert np.linalg.eigvalsh(begin.pose.covariance.reshape(6, 6))[0] > 0.0


def test_motion_between_two_odometry_messages_is_that_of_the_camera() -> None:
    later = replace(RESULT, odometry=Odometry(WORLD_FROM_CAM @ METRIC.cam1_from_cam0, ScaleSource.STEREO, 2))
    one, two = (matrix_from_pose(topics_of(result)[ODOMETRY].pose.pose) for result in (RESULT, later))
    np.testing.assert_allclose(invert_pose(one) @ two, METRIC.cam1_from_cam0, atol=1e-9)
    transform = topics_of(later)[TF].transforms[0]
    np.testing.assert_allclose(matrix_from_transform(transform.transform), two, atol=1e-12)
    assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "camera_optical")


def test_the_keyframe_topic_has_the_header_and_the_reason() -> None:
    message = topics_of(RESULT)[KEYFRAME]
    assert stamp_ns_of(message.header) == RESULT.stamp_ns
    [status] = message.status
    assert (status.message, status.level) == ("PARALLAX", 0)
    assert {entry.key: entry.value for entry in status.values} == {
        "previous_keyframe_stamp": "1700000000.023456788", "segment": "2"
    }  # fmt: skip


def test_diagnostics() -> None:
    [status] = topics_of(RESULT)[DIAGNOSTICS].status
    values = {entry.key: entry.value for entry in status.values}
    assert (status.level, status.message, status.hardware_id) == (0, "OK", "camera_optical")
    assert values["motion_type"] == "GENERAL" and values["scale_source"] == "STEREO"
    assert values["estimator"] == "ABSOLUTE_POSE"
    assert values["layers_run"] == "3" and values["num_matches"] == "200" and values["total_ms"] == "80.250"
    gated = replace(RESULT, status=Status.GATED, matches=None, inliers=None, track_ids=None, pose=None,
                    keyframe_reason=None, odometry=None)  # fmt: skip
    [status] = topics_of(gated)[DIAGNOSTICS].status
    assert status.level == 0 and "num_matches" not in {entry.key for entry in status.values}
    [status] = topics_of(replace(gated, status=Status.DEGENERATE))[DIAGNOSTICS].status
    assert (status.level, status.message) == (1, "DEGENERATE")
    [status] = topics_of(replace(gated, state=TrackingState.LOST))[DIAGNOSTICS].status
    assert status.level == 2


def test_which_result_goes_where() -> None:
    first = replace(RESULT, status=Status.FIRST_FRAME, keyframe_stamp_ns=None, gate=None, matches=None, inliers=None,
                    track_ids=None, pose=None, keyframe_reason=KeyframeReason.FIRST_FRAME)  # fmt: skip
    assert set(topics_of(first)) == {ODOMETRY, KEYFRAME, TF, DIAGNOSTICS}
    unscaled = replace(RESULT, odometry=Odometry(WORLD_FROM_CAM, ScaleSource.NONE, 0))
    plain = TopicOptions()
    assert set(topics_of(unscaled, plain)) == {CORRESPONDENCES, RELATIVE_POSE, KEYFRAME, DIAGNOSTICS}
    assert set(topics_of(RESULT, plain)) == {CORRESPONDENCES, RELATIVE_POSE, ODOMETRY, KEYFRAME, DIAGNOSTICS}
    assert ODOMETRY in topics_of(unscaled, TopicOptions(publish_unscaled=True))
    assert topics_of(RESULT, TopicOptions(odom_frame_id="earth"))[ODOMETRY].header.frame_id == "earth"
    assert set(topics_of(replace(RESULT, odometry=None))) == {CORRESPONDENCES, RELATIVE_POSE, KEYFRAME, DIAGNOSTICS}


def test_nothing_is_made_for_a_topic_without_subscribers() -> None:
    made: list[str] = []

    def make(type_name: str, /, **fields: Any) -> Any:
        made.append(type_name)
        return MAKE(type_name, **fields)

    assert [topic for topic, _ in messages_of(make, RESULT, CAMERA, ALL, wanted=[DIAGNOSTICS])] == [DIAGNOSTICS]
    assert "sensor_msgs/msg/PointCloud2" not in made and "nav_msgs/msg/Odometry" not in made


def other_messages() -> Iterator[tuple[str, Any]]:
    yield "nav_msgs/msg/Path", path_message(MAKE, [(1, WORLD_FROM_CAM), (2, np.eye(4))], 3, "odom")
    yield "sensor_msgs/msg/CompressedImage", compressed_image_message(MAKE, 4, "camera", np.zeros((8, 9, 3), np.uint8))


def test_every_value_has_the_type_that_rclpy_asks_for() -> None:
    """Its setters take int, float, bool and str proper, and arrays of the field's own number type."""
    messages = [(topic.type_name, message) for topic, message in messages_of(MAKE, RESULT, CAMERA, ALL)]
    for type_name, message in [*messages, *other_messages()]:
        check_types(message, type_name)
        through_bytes(message, type_name)
    assert {name for name, _ in messages} <= {topic.type_name for topic in TOPICS}


def check_types(message: Any, type_name: str) -> None:
    assert message.__msgtype__ == type_name
    for name, (node, details) in MAKE.typestore.fielddefs[type_name][1]:
        value = getattr(message, name)
        if node == Nodetype.NAME:
            check_types(value, details)
        elif node == Nodetype.BASE:
            check_number(value, details[0])
        else:
            (inner, inner_details), length = details
            assert not length or len(value) == length
            if inner == Nodetype.NAME:
                for element in value:
                    check_types(element, inner_details)
            elif inner_details[0] != "string":
                assert isinstance(value, np.ndarray) and value.dtype == np.dtype(inner_details[0]) and value.ndim == 1


def check_number(value: Any, kind: str) -> None:
    expected = {"string": str, "bool": bool, "float64": float, "float32": float}.get(kind, int)
    assert type(value) is expected, (value, kind)

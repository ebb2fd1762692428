"""The demo recording: what it claims to be true is measured in its images, and its bag says the same."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from feature_matcher_ros.datatypes import DistortionModel, MotionType
from feature_matcher_ros.errors import ConfigError, OutputError
from feature_matcher_ros.evaluation.demo_rig import DemoOptions
from feature_matcher_ros.evaluation.demo_scene import DemoRecording, demo_frames, write_demo_bag
from feature_matcher_ros.evaluation.scene_renderer import RayGrid, Scene, render_view
from feature_matcher_ros.evaluation.sequences import Modality, open_sequence
from feature_matcher_ros.geometry import (
    essential_from_pose,
    invert_pose,
    normalize_points,
    pose_from,
    project_points,
    rotation_angle_deg,
    rotation_from_quaternion,
    sampson_error,
    transform_points,
)

SMALL = DemoOptions(width=160, rate_hz=5.0)


@pytest.fixture(scope="module")
def recording():
    return DemoRecording(DemoOptions())


@pytest.fixture(scope="module")
def small_bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "bag"
    return path, write_demo_bag(path, SMALL)


def frames_of(recording, name):
    script = recording.script
    return [n for n, stamp in enumerate(script.ground_truth.stamps_ns) if script.stretch_at(int(stamp)).name == name]


def match(image0, image1):
    sift = cv2.SIFT_create(1000)
    (keypoints0, descriptors0), (keypoints1, descriptors1) = (sift.detectAndCompute(i, None) for i in (image0, image1))
    pairs = cv2.BFMatcher().knnMatch(descriptors0, descriptors1, 2)
    good = [best for best, second in pairs if best.distance < 0.7 * second.distance]
    points0 = np.array([keypoints0[m.queryIdx].pt for m in good])
    return points0, np.array([keypoints1[m.trainIdx].pt for m in good])


def test_path_is_smooth_and_its_stretches_hold_what_they_say(recording):
    script = recording.script
    poses = script.ground_truth.world_from_cam
    steps = [invert_pose(before) @ after for before, after in pairwise(poses)]
    assert max(rotation_angle_deg(step[:3, :3]) for step in steps) < 5.0
    assert max(np.linalg.norm(step[:3, 3]) for step in steps) < 0.12

    turning, standing, planar = (poses[frames_of(recording, name)] for name in ("rotation only", "static", "planar"))
    assert not np.ptp(turning[:, :3, 3], axis=0).any()
    assert rotation_angle_deg(turning[0, :3, :3].T @ turning[-1, :3, :3]) > 20.0
    assert not np.ptp(standing, axis=0).any()
    assert np.linalg.norm(planar[-1, :3, 3] - planar[0, :3, 3]) > 1.0


def test_stretches_cover_the_recording(recording):
    script, stamps = recording.script, recording.script.ground_truth.stamps_ns
    types = [script.stretch_at(int(stamp)).motion_type for stamp in stamps]
    assert set(types) == set(MotionType)
    for before, after in pairwise(script.stretches):
        assert before.end_ns == after.start_ns
    first = int(stamps[0])
    assert script.motion_type(first, first + 1) is MotionType.GENERAL
    assert script.motion_type(first, script.stretches[1].start_ns) is MotionType.UNKNOWN
    with pytest.raises(ValueError, match="outside the recording"):
        script.stretch_at(first - 1)


def test_only_one_wall_is_seen_on_the_planar_stretch(recording):
    rig, poses = recording.rig, recording.script.ground_truth.world_from_cam
    scene = Scene(recording.quads)
    for camera, cam_from_left in ((rig.left, np.eye(4)), (rig.right, rig.right_from_left)):
        grid = RayGrid(camera)
        for number in frames_of(recording, "planar")[::6] + frames_of(recording, "static")[-1:]:
            assert len(np.unique(render_view(scene, grid, poses[number] @ invert_pose(cam_from_left)).quad_index)) == 1


def test_the_room_is_closed(recording):
    scene, grid = Scene(recording.quads), RayGrid(recording.rig.left)
    for pose in recording.script.ground_truth.world_from_cam[::12]:
        view = render_view(scene, grid, pose)
        assert (view.quad_index >= 0).all()
        assert 0.5 < view.depth_m.min() < view.depth_m.max() < 7.0


def test_every_frame_that_is_not_black_is_rich_in_features(recording):
    sift = cv2.SIFT_create()
    black = frames_of(recording, "black-out")
    for number in [*range(0, len(recording), 16), black[0], black[-1]]:
        num_features = len(sift.detect(recording.frame(number).image))
        assert num_features < 20 if number in black else num_features > 1500


def test_images_agree_with_poses_depth_and_stereo():
    frames = list(demo_frames(Modality.RGBD, stride=14, width=320))[:4]
    for (frame0, pose0), (frame1, pose1) in pairwise(frames):
        points0, points1 = match(frame0.image, frame1.image)
        columns, rows = np.rint(points0).astype(int).T
        rays = np.concatenate([normalize_points(points0, frame0.camera), np.ones((len(points0), 1))], axis=1)
        points = rays * frame0.depth.depth_m[rows, columns, None]
        errors = project_points(transform_points(invert_pose(pose1) @ pose0, points), frame1.camera) - points1
        assert len(points0) > 60
        assert np.median(np.linalg.norm(errors, axis=1)) < 0.5

    for frame, _ in demo_frames(Modality.STEREO, stride=60, width=320):
        left, right = match(frame.image, frame.stereo.image)
        rays = normalize_points(left, frame.camera), normalize_points(right, frame.stereo.camera)
        errors = sampson_error(essential_from_pose(frame.stereo.right_from_left), *rays) * frame.camera.K[0, 0]
        assert len(left) > 100
        assert np.median(np.abs(errors)) < 0.25


def test_bag_says_what_is_true(small_bag):
    path, script = small_bag
    recording = DemoRecording(SMALL)
    rig = recording.rig
    with AnyReader([path]) as reader:
        messages = {}
        for connection, logged_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            messages.setdefault(connection.topic, []).append((logged_ns, message))
    transforms = [(logged_ns, message.transforms[0]) for logged_ns, message in messages["/tf"]]
    assert [logged_ns for logged_ns, _ in transforms] == script.ground_truth.stamps_ns.tolist()
    for (_, transform), pose in zip(transforms, script.ground_truth.world_from_cam, strict=True):
        assert (transform.header.frame_id, transform.child_frame_id) == ("world", "camera_left_optical")
        np.testing.assert_allclose(pose_of(transform), pose, atol=1e-12)
    ((_, static),) = messages["/tf_static"]
    np.testing.assert_allclose(pose_of(static.transforms[0]), invert_pose(rig.right_from_left), atol=1e-12)

    left, right = (messages[f"/camera/{side}/camera_info"][7][1] for side in ("left", "right"))
    np.testing.assert_array_equal(left.k.reshape(3, 3), rig.left.K)
    np.testing.assert_array_equal(right.d, rig.right.distortion)
    beside = pose_from(np.eye(3), [right.p[3] / right.p[0], 0, 0])  # in the rectified axes
    right_from_left = (
        pose_from(right.r.reshape(3, 3).T, np.zeros(3)) @ beside @ pose_from(left.r.reshape(3, 3), np.zeros(3))
    )
    np.testing.assert_allclose(right_from_left, rig.right_from_left, atol=1e-9)

    frame = recording.frame(7)
    for side, image in (("left", frame.image), ("right", frame.stereo.image)):
        _, message = messages[f"/camera/{side}/image_raw/compressed"][7]
        assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == frame.stamp_ns
        decoded = cv2.imdecode(message.data, cv2.IMREAD_UNCHANGED)
        assert np.abs(decoded.astype(int) - image).mean() < 4.0


def pose_of(transform):
    rotation, translation = transform.transform.rotation, transform.transform.translation
    quaternion = [rotation.x, rotation.y, rotation.z, rotation.w]
    return pose_from(rotation_from_quaternion(quaternion), [translation.x, translation.y, translation.z])


def test_depth_in_the_bag(tmp_path):
    options = DemoOptions(Modality.RGBD, width=96, rate_hz=2.0, color=True)
    write_demo_bag(tmp_path / "bag", options)
    with AnyReader([tmp_path / "bag"]) as reader:
        (depth,) = (c for c in reader.connections if c.topic == "/camera/depth/image_raw")
        message = reader.deserialize(next(reader.messages([depth]))[2], depth.msgtype)
        topics = {connection.topic for connection in reader.connections}
    assert {"/camera/color/image_raw/compressed", "/camera/color/camera_info", "/camera/depth/camera_info"} <= topics
    assert (message.encoding, message.step) == ("16UC1", 2 * 96)
    written = message.data.view("<u2").reshape(72, 96) / 1000.0
    expected = DemoRecording(options).frame(0).depth.depth_m
    np.testing.assert_allclose(written[written > 0], expected[written > 0], atol=6e-4)
    assert np.isnan(expected[written == 0]).all()
    assert (written > 0).mean() > 0.9


def test_replay_reads_the_bag_without_any_option(small_bag):
    path, script = small_bag
    recording, sequence = DemoRecording(SMALL), open_sequence(path)
    assert sequence.modality is Modality.STEREO
    np.testing.assert_array_equal(sequence.ground_truth.stamps_ns, script.ground_truth.stamps_ns)
    np.testing.assert_allclose(sequence.ground_truth.world_from_cam, script.ground_truth.world_from_cam, atol=1e-12)
    frames = list(sequence.frames())
    assert not sequence.skipped
    assert [frame.stamp_ns for frame in frames] == script.ground_truth.stamps_ns.tolist()
    np.testing.assert_allclose(frames[5].stereo.right_from_left, recording.rig.right_from_left, atol=1e-9)
    assert np.abs(frames[5].stereo.image.astype(int) - recording.frame(5).stereo.image).mean() < 4.0


def test_same_options_give_the_same_bytes(small_bag, tmp_path):
    path, _ = small_bag
    write_demo_bag(tmp_path / "bag", SMALL)
    assert (path / "bag.mcap").read_bytes() == (tmp_path / "bag" / "bag.mcap").read_bytes()


def test_replaces_its_own_bag_and_nothing_else(tmp_path):
    options = DemoOptions(Modality.MONO, width=64, rate_hz=1.0)
    steps = []
    for _ in range(2):
        write_demo_bag(tmp_path / "bag", options, on_progress=lambda done, total: steps.append((done, total)))
    assert steps == 2 * [(n + 1, 14) for n in range(14)]

    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"")
    with pytest.raises(OutputError, match="no demo bag: remove it"):
        write_demo_bag(other, options)
    assert (other / "cat.jpg").exists()
    with pytest.raises(OutputError, match="cannot write the bag"):
        write_demo_bag(other / "cat.jpg" / "bag", options)


def test_an_interruption_leaves_nothing_behind(tmp_path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo_bag(tmp_path / "bag", DemoOptions(width=64, rate_hz=1.0), on_progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_rectified_cameras_are_pinholes_side_by_side():
    rig = DemoRecording(DemoOptions(width=64, rate_hz=1.0, rectified=True)).rig
    assert rig.right.distortion_model is DistortionModel.NONE
    np.testing.assert_array_equal(rig.right_from_left, pose_from(np.eye(3), [-0.12, 0.0, 0.0]))


@pytest.mark.parametrize("wrong", [{"width": 30}, {"width": 322}, {"rate_hz": 0.0}])
def test_impossible_options(wrong):
    with pytest.raises(ConfigError, match="cannot be"):
        DemoOptions(**wrong)

"""Reading bags: what was written comes out, and what cannot be read is said in one sentence."""

import shutil
import sqlite3
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from tiny_bags import HEIGHT, KINDS, PERIOD_NS, START_NS, WIDTH, K, TinyBag, picture, stamp

from feature_matcher_ros.datatypes import DistortionModel, Frame
from feature_matcher_ros.errors import CalibrationError, FeatureMatcherError, SourceError
from feature_matcher_ros.evaluation.bag_file import BagFile
from feature_matcher_ros.evaluation.sequences import Modality, Selection, open_sequence
from feature_matcher_ros.geometry import invert_pose, pose_from, rotation_from_vector

BASELINE = pose_from(rotation_from_vector([0.01, -0.02, 0.03]), [-0.12, 0.002, 0.001])
OTHER = pose_from(rotation_from_vector([0.3, 0.2, -0.1]), [0.05, -0.1, 0.2])


def moving(number: int) -> np.ndarray:
    return pose_from(rotation_from_vector([0.1 * number, 0.02, -0.05 * number]), [0.3 * number, 1.0, -0.1 * number])


def frames_of(path: Path, selection: Selection | None = None) -> list[Frame]:
    return list(open_sequence(path, selection).frames())


def refusal(path: Path, selection: Selection | None = None) -> str:
    """The sentence with which a source is refused, be it at opening or while reading."""
    with pytest.raises(FeatureMatcherError) as caught:
        frames_of(path, selection)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


@pytest.mark.parametrize("kind", KINDS)
def test_a_bag_of_one_camera(kind: str, tmp_path: Path) -> None:
    bag = TinyBag(kind)
    bag.camera(d=np.array([0.1, -0.05, 0.001, 0.002, 0.01]))
    for number in range(5):
        bag.pose_stamped("/ground_truth/pose", stamp(number), moving(number))
    sequence = open_sequence(bag.write(tmp_path))
    assert (sequence.name, sequence.modality, len(sequence)) == ("tiny", Modality.MONO, 5)
    assert sequence.info.layout == {
        "ros1": "ROS 1 bag", "sqlite3": "ROS 2 bag (sqlite3)", "mcap": "ROS 2 bag (MCAP)"
    }[kind]  # fmt: skip
    assert sequence.info.origins == {"image": "/camera/image_raw", "ground_truth": "/ground_truth/pose"}
    for _ in range(2):  # each iteration starts again
        frames = list(sequence.frames())
        assert [frame.stamp_ns for frame in frames] == [stamp(number) for number in range(5)]
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.image, picture(number))
    camera = frames[0].camera
    np.testing.assert_array_equal(camera.K, K)
    assert camera.distortion_model is DistortionModel.PLUMB_BOB
    assert camera.distortion.tolist() == [0.1, -0.05, 0.001, 0.002, 0.01]
    assert frames[0].frame_id == "camera"
    assert sequence.ground_truth is not None
    np.testing.assert_allclose(sequence.ground_truth.world_from_cam, [moving(n) for n in range(5)], atol=1e-12)
    assert not sequence.skipped


@pytest.mark.parametrize("kind", KINDS)
def test_stereo_by_name_with_the_baseline_of_camera_info(kind: str, tmp_path: Path) -> None:
    bag = TinyBag(kind)
    P = np.hstack([K, np.array([[-0.12 * K[0, 0]], [0], [0]])])
    bag.camera("/stereo/left/image_rect")
    bag.info("/stereo/right/camera_info", p=P.reshape(-1), frame_id="right")
    for number in range(5):
        bag.image("/stereo/right/image_rect", stamp(number), picture(100 + number), frame_id="right")
    path = bag.write(tmp_path)
    sequence = open_sequence(path)
    assert sequence.modality is Modality.STEREO
    assert sequence.info.origins["right"] == "/stereo/right/image_rect"
    for number, frame in enumerate(sequence.frames()):
        assert frame.stereo is not None
        np.testing.assert_array_equal(frame.image, picture(number))
        np.testing.assert_array_equal(frame.stereo.image, picture(100 + number))
        np.testing.assert_allclose(frame.stereo.right_from_left, pose_from(np.eye(3), [-0.12, 0, 0]), atol=1e-12)
    mono = frames_of(path, Selection(modality=Modality.MONO))
    assert len(mono) == 5 and all(frame.stereo is None for frame in mono)


def stereo_bag(kind: str = "mcap") -> TinyBag:
    """A pair whose baseline its CameraInfo does not tell."""
    bag = TinyBag(kind)
    bag.camera("/cam0/image_raw", frame_id="cam0")
    bag.camera("/cam1/image_raw", frame_id="cam1")
    for index, (topic, type_name, recorded_ns, message) in enumerate(bag.entries):
        message.header.frame_id = topic[1:5]
        bag.entries[index] = (topic, type_name, recorded_ns, message)
    return bag


def test_stereo_with_the_baseline_of_tf_static(tmp_path: Path) -> None:
    bag = stereo_bag()
    base_from_cam0 = moving(3)
    edges = [("base", "cam0", base_from_cam0), ("base", "mount", OTHER),
             ("mount", "cam1", invert_pose(OTHER) @ base_from_cam0 @ invert_pose(BASELINE))]  # fmt: skip
    bag.tf("/tf_static", START_NS, edges)
    frame = frames_of(bag.write(tmp_path))[0]
    assert frame.stereo is not None
    np.testing.assert_allclose(frame.stereo.right_from_left, BASELINE, atol=1e-12)


def test_stereo_without_a_baseline_is_refused(tmp_path: Path) -> None:
    path = stereo_bag().write(tmp_path)
    assert "the baseline from /cam0/image_raw to /cam1/image_raw is not known" in refusal(path)
    assert len(frames_of(path, Selection(modality=Modality.MONO))) == 5


def test_a_calibration_file_takes_the_place_of_camera_info(tmp_path: Path) -> None:
    path = stereo_bag().write(tmp_path)
    numbers = ", ".join(map(str, (K + np.diag([1, 1, 0])).reshape(-1)))
    camera = f"width: {WIDTH}\nheight: {HEIGHT}\nK: [{numbers}]\n"
    file = tmp_path / "calibration.yaml"
    file.write_text(camera)
    assert "says nothing of /cam1/image_raw" in refusal(path, Selection(calibration=file))
    pose = ", ".join(map(str, BASELINE.reshape(-1)))
    file.write_text(
        camera + f"right:\n  width: {WIDTH}\n  height: {HEIGHT}\n  K: [{numbers}]\n  right_from_left: [{pose}]\n"
    )
    frame = frames_of(path, Selection(calibration=file))[0]
    assert frame.camera.K[0, 0] == K[0, 0] + 1 and frame.stereo is not None
    np.testing.assert_allclose(frame.stereo.right_from_left, BASELINE)


def depth_map(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(500, 5000, (HEIGHT, WIDTH)).astype(np.uint16)


def rgbd_bag(kind: str, frame_id: str, topic: str = "/camera/depth/image_raw", with_info: bool = True) -> TinyBag:
    bag = TinyBag(kind)
    bag.camera("/camera/color/image_raw")
    if with_info:
        bag.info(topic.rpartition("/")[0] + "/camera_info", frame_id=frame_id, k=(K + np.diag([9, 9, 0])).reshape(-1))
    for number in range(5):
        bag.image(topic, stamp(number), depth_map(number), "16UC1", frame_id)
    return bag


@pytest.mark.parametrize("kind", KINDS)
def test_registered_depth(kind: str, tmp_path: Path) -> None:
    sequence = open_sequence(rgbd_bag(kind, "camera").write(tmp_path))
    assert sequence.modality is Modality.RGBD and sequence.info.assumptions == ()
    for number, frame in enumerate(sequence.frames()):
        assert frame.depth is not None
        np.testing.assert_allclose(frame.depth.depth_m, depth_map(number) / 1000, rtol=1e-6)
        np.testing.assert_array_equal(frame.depth.cam_from_depth, np.eye(4))
        assert frame.depth.camera.K[0, 0] == K[0, 0] + 9


def test_depth_of_another_camera_needs_tf_static(tmp_path: Path) -> None:
    bag = rgbd_bag("mcap", "depth_camera")
    (tmp_path / "lost").mkdir()
    assert "where /camera/depth/image_raw stands to /camera/color/image_raw" in refusal(bag.write(tmp_path / "lost"))
    for pose in (BASELINE, OTHER):  # the newest counts
        bag.tf("/tf_static", START_NS, [("camera", "depth_camera", pose)])
    frame = frames_of(bag.write(tmp_path))[0]
    assert frame.depth is not None
    np.testing.assert_allclose(frame.depth.cam_from_depth, OTHER, atol=1e-12)


def test_depth_that_is_called_registered(tmp_path: Path) -> None:
    bag = rgbd_bag("mcap", "somewhere", "/camera/aligned_depth_to_color/image_raw")
    sequence = open_sequence(bag.write(tmp_path))
    assert "registered to /camera/color/image_raw, by its name" in sequence.info.assumptions[0]


def test_depth_without_camera_info_has_the_camera_of_the_image(tmp_path: Path) -> None:
    frame = frames_of(rgbd_bag("mcap", "camera", with_info=False).write(tmp_path))[0]
    assert frame.depth is not None
    np.testing.assert_array_equal(frame.depth.camera.K, K)


def test_depth_of_another_size(tmp_path: Path) -> None:
    half = np.full((HEIGHT // 2, WIDTH // 2), 1500, np.uint16)
    bag = TinyBag()
    bag.camera("/camera/color/image_raw")
    for number in range(5):
        bag.image("/camera/depth/image_raw", stamp(number), half, "16UC1")
    frame = frames_of(bag.write(tmp_path))[0]
    assert frame.depth is not None and frame.depth.depth_m.shape == (HEIGHT // 2, WIDTH // 2)
    assert (frame.depth.camera.width, frame.depth.camera.K[0, 0]) == (WIDTH // 2, K[0, 0] / 2)
    bag.info("/camera/depth/camera_info")  # says that depth is as large as the image
    (tmp_path / "wrong").mkdir()
    assert "the images on /camera/depth/image_raw have 16x12 pixels" in refusal(bag.write(tmp_path / "wrong"))


def test_compressed_transports(tmp_path: Path) -> None:
    bag = TinyBag()
    bag.info("/camera/color/camera_info")
    for number in range(3):
        bag.compressed(
            "/camera/color/image_raw/compressed", stamp(number), picture(number, 3), "rgb8; png compressed bgr8"
        )
        bag.compressed("/camera/depth/image_raw/compressedDepth", stamp(number), depth_map(number),
                       "16UC1; compressedDepth png", head=bytes(12))  # fmt: skip
    sequence = open_sequence(bag.write(tmp_path), Selection(color=True))
    assert sequence.info.origins["depth"] == "/camera/depth/image_raw/compressedDepth"
    for number, frame in enumerate(sequence.frames()):
        assert frame.depth is not None
        np.testing.assert_array_equal(frame.image, picture(number, 3))
        np.testing.assert_allclose(frame.depth.depth_m, depth_map(number) / 1000, rtol=1e-6)


def test_raw_is_read_where_compressed_lies_beside_it(tmp_path: Path) -> None:
    bag = TinyBag()
    bag.camera()
    for number in range(5):
        bag.compressed("/camera/image_raw/compressed", stamp(number), picture(50 + number))
    path = bag.write(tmp_path)
    np.testing.assert_array_equal(frames_of(path)[0].image, picture(0))
    chosen = frames_of(path, Selection(image_topic="/camera/image_raw/compressed"))
    np.testing.assert_array_equal(chosen[0].image, picture(50))


def test_two_candidates_are_listed(tmp_path: Path) -> None:
    bag = rgbd_bag("mcap", "camera")
    bag.camera("/rear/image_raw")
    path = bag.write(tmp_path)
    sentence = refusal(path)
    assert "holds 2 cameras, /camera/color/image_raw (mono8, 5 messages), /rear/image_raw" in sentence
    assert "--image-topic TOPIC" in sentence
    assert len(frames_of(path, Selection(image_topic="/rear/image_raw", modality=Modality.MONO))) == 5
    assert "there is no image on '/front'" in refusal(path, Selection(image_topic="/front"))
    assert "no right image beside /rear/image_raw" in refusal(
        path, Selection(image_topic="/rear/image_raw", modality=Modality.STEREO)
    )
    assert "no two cameras of the bag are called left and right" in refusal(path, Selection(modality=Modality.STEREO))


def test_two_depth_topics(tmp_path: Path) -> None:
    bag = rgbd_bag("mcap", "depth_camera")
    bag.image("/camera/aligned_depth_to_color/image_raw", stamp(0), depth_map(9), "16UC1")
    path = bag.write(tmp_path)  # the registered one is read
    assert open_sequence(path).info.origins["depth"] == "/camera/aligned_depth_to_color/image_raw"
    bag.image("/other/depth/image_raw", stamp(0), depth_map(9), "16UC1", frame_id="camera")
    (tmp_path / "more").mkdir()
    assert "2 depth topics" not in refusal(bag.write(tmp_path / "more"), Selection(depth_topic="/missing"))
    chosen = Selection(depth_topic="/other/depth/image_raw")
    assert open_sequence(tmp_path / "more" / "tiny", chosen).info.origins["depth"] == "/other/depth/image_raw"


def test_stereo_and_depth_in_one_bag_must_be_chosen_from(tmp_path: Path) -> None:
    bag = stereo_bag()
    bag.tf("/tf_static", START_NS, [("cam0", "cam1", invert_pose(BASELINE))])
    bag.image("/cam0/depth", stamp(0), depth_map(0), "16UC1", "cam0")
    path = bag.write(tmp_path)
    assert "choose with --modality STEREO or RGBD" in refusal(path)
    for modality in Modality:
        assert open_sequence(path, Selection(modality=modality)).modality is modality


def test_partners_are_found_by_time(tmp_path: Path) -> None:
    """Depth that is recorded before, after and much later than its image, 20 ms off; that of image 4 is missing."""
    bag = TinyBag()
    bag.camera("/camera/color/image_raw", count=12)
    for number, lag in enumerate([0, -0.5, 1.5, 2.5, 0, 3, 3, 2.2, 1.3, 0.5, -0.3, 0]):
        if number != 4:
            bag.image("/camera/depth/image_raw", stamp(number + 0.2), depth_map(number), "16UC1",
                      recorded_ns=stamp(number + lag))  # fmt: skip
    sequence = open_sequence(bag.write(tmp_path))
    frames = list(sequence.frames())
    assert [frame.stamp_ns for frame in frames] == [stamp(number) for number in range(12) if number != 4]
    for frame in frames:
        assert frame.depth is not None
        number = (frame.stamp_ns - START_NS) // PERIOD_NS
        np.testing.assert_allclose(frame.depth.depth_m, depth_map(number) / 1000, rtol=1e-6)
    [(reason, count)] = sequence.skipped.items()
    assert count == 1 and reason.startswith("no message on /camera/depth/image_raw lies within")


def test_no_partner_is_taken_from_afar_where_the_camera_pauses(tmp_path: Path) -> None:
    """In a bag that goes on for a minute without the camera, whose images are on average 13 s apart."""
    bag = TinyBag()
    bag.camera("/rgb/image_raw", count=5)
    for number in (0, 0.4, 1, 3.4, 4.6):  # none for the third image, and only one too far away for the fifth
        bag.image("/depth/image_raw", stamp(number), np.full((HEIGHT, WIDTH), 1000, np.uint16), "16UC1")
    bag.tf("/tf", stamp(640), [("odom", "base", np.eye(4))])
    bag.entries.sort(key=lambda entry: entry[2])
    sequence = open_sequence(bag.write(tmp_path))
    assert [frame.stamp_ns for frame in sequence.frames()] == [stamp(0), stamp(1), stamp(3)]
    assert sequence.skipped == {"no message on /depth/image_raw lies within 50.0 ms of the image": 2}


def test_a_stereo_pair_out_of_step_gives_no_frame(tmp_path: Path) -> None:
    bag = TinyBag()
    P = np.hstack([K, np.array([[-0.12 * K[0, 0]], [0], [0]])])
    bag.camera("/left/image_rect")
    bag.info("/right/camera_info", p=P.reshape(-1))
    for number in range(5):
        bag.image("/right/image_rect", stamp(number + 0.1), picture(number))
    sentence = refusal(bag.write(tmp_path))
    assert "no frame of" in sentence and "no message on /right/image_rect lies within 5.0 ms" in sentence


def test_images_that_cannot_be_decoded_are_counted(tmp_path: Path) -> None:
    bag = TinyBag()
    bag.camera()
    topic = "/camera/image_raw"
    bag.image(topic, stamp(5), picture(5), "yuv999")
    bag.image(topic, stamp(6), picture(6), step=5)
    bag.image(topic, stamp(7), picture(7), data=np.zeros(10, np.uint8))
    bag.image(topic, stamp(8), picture(8), height=0, width=0)
    bag.image(topic, stamp(9), np.zeros((1, 1), np.uint8))
    bag.add(topic, "sensor_msgs/msg/Image", stamp(10), b"\0\1\0\0cut off")
    bag.image(topic, stamp(11), picture(11))
    sequence = open_sequence(bag.write(tmp_path))
    frames = list(sequence.frames())
    assert [frame.stamp_ns for frame in frames] == [stamp(number) for number in (0, 1, 2, 3, 4, 11)]
    assert len(sequence) == 12 == len(frames) + sequence.skipped.total()
    for part in ("'yuv999' is not supported", "a step of 5", "holds 10", "0x0 pixels", "has 1x1 pixels", "was cut off"):
        assert sum(part in reason for reason in sequence.skipped) >= 1, part


def test_stamps_are_passed_on_as_they_are(tmp_path: Path) -> None:
    bag = TinyBag()
    bag.info("/camera/camera_info")
    numbers = [5, 6, 6, 7, 2, 3, 4]
    for recorded, number in enumerate(numbers):
        bag.image("/camera/image_raw", stamp(number), picture(recorded), recorded_ns=stamp(recorded))
    assert [frame.stamp_ns for frame in frames_of(bag.write(tmp_path))] == [stamp(number) for number in numbers]


def test_a_jump_back_in_time_keeps_its_pairs(tmp_path: Path) -> None:
    bag = TinyBag()
    bag.info("/camera/color/camera_info")
    for recorded, number in enumerate([5, 6, 7, 1, 2, 3, 4, 5, 6]):
        bag.image("/camera/color/image_raw", stamp(number), picture(recorded), recorded_ns=stamp(recorded))
        bag.image(
            "/camera/depth/image_raw", stamp(number), depth_map(recorded), "16UC1", recorded_ns=stamp(recorded + 0.1)
        )
    frames = frames_of(bag.write(tmp_path))
    assert len(frames) == 9
    for recorded, frame in enumerate(frames):
        assert frame.depth is not None
        np.testing.assert_array_equal(frame.image, picture(recorded))
        np.testing.assert_allclose(frame.depth.depth_m, depth_map(recorded) / 1000, rtol=1e-6)


@pytest.mark.parametrize("with_depth", [False, True])
def test_a_stretch_of_a_bag(with_depth: bool, tmp_path: Path) -> None:
    bag = TinyBag()
    bag.camera("/camera/color/image_raw", count=30)
    for number in range(30 if with_depth else 0):
        bag.image("/camera/depth/image_raw", stamp(number), depth_map(number), "16UC1", recorded_ns=stamp(number + 1.5))
    bag.entries.sort(key=lambda entry: entry[2])
    selection = Selection(start_s=0.5, duration_s=1.0, stride=3)
    sequence = open_sequence(bag.write(tmp_path), selection)
    assert [frame.stamp_ns for frame in sequence.frames()] == [stamp(number) for number in (5, 8, 11, 14)]
    assert len(sequence) == 4 and not sequence.skipped
    late = Selection(start_s=99)
    assert "none lies in the selected stretch" in refusal(tmp_path / "tiny", late)


def test_ground_truth_of_tf(tmp_path: Path) -> None:
    """world -> rig moves, rig -> camera is fixed, published over and over as ROS 1 did."""
    bag = TinyBag("ros1")
    bag.camera()
    for number in range(5):
        bag.tf("/tf", stamp(number), [("/world", "/rig", moving(number)), ("/rig", "/camera", OTHER)])
        bag.tf("/tf", stamp(number + 0.5), [("/world", "/stranger", OTHER)])
    sequence = open_sequence(bag.write(tmp_path))
    assert sequence.info.origins["ground_truth"] == "/tf (world <- rig <- camera)"
    assert sequence.ground_truth is not None
    assert sequence.ground_truth.stamps_ns.tolist() == [stamp(number) for number in range(5)]
    np.testing.assert_allclose(sequence.ground_truth.world_from_cam, [moving(n) @ OTHER for n in range(5)], atol=1e-9)


def test_ground_truth_of_a_body_is_moved_to_the_camera(tmp_path: Path) -> None:
    bag = TinyBag()
    bag.camera()
    bag.tf("/tf_static", START_NS, [("base_link", "camera", OTHER)])
    for number in range(5):
        bag.odometry("/robot/ground_truth", stamp(number), moving(number), "base_link")
    sequence = open_sequence(bag.write(tmp_path))
    assert sequence.info.assumptions == () and sequence.ground_truth is not None
    np.testing.assert_allclose(sequence.ground_truth.world_from_cam, [moving(n) @ OTHER for n in range(5)], atol=1e-9)


def test_ground_truth_of_an_unconnected_frame_is_the_cameras_with_a_note(tmp_path: Path) -> None:
    bag = TinyBag()
    bag.camera()
    for number in range(5):
        message = bag.transform(stamp(number), "vicon", "helmet", moving(number))
        bag.add("/vicon/helmet/helmet", "geometry_msgs/msg/TransformStamped", stamp(number), message)
    sequence = open_sequence(bag.write(tmp_path))
    assert "'helmet', which /tf_static does not connect to 'camera'" in sequence.info.assumptions[0]
    assert sequence.ground_truth is not None
    np.testing.assert_allclose(sequence.ground_truth.world_from_cam, [moving(n) for n in range(5)], atol=1e-9)


def test_which_poses_are_the_truth(tmp_path: Path) -> None:
    bag = TinyBag()
    bag.camera()
    for number in range(3):
        bag.pose_stamped("/estimate/pose", stamp(number), moving(number))
        bag.tf("/tf", stamp(number), [("odom", "camera", moving(number))])
    path = bag.write(tmp_path)
    assert open_sequence(path).ground_truth is None  # an estimate is no truth, nor is odom -> camera
    for topic in ("/estimate/pose", "/tf"):
        chosen = open_sequence(path, Selection(ground_truth_topic=topic))
        assert chosen.ground_truth is not None and len(chosen.ground_truth) == 3
    assert "there are no poses on '/camera/image_raw'" in refusal(
        path, Selection(ground_truth_topic="/camera/image_raw")
    )
    bag.pose_stamped("/gt/pose", stamp(0), OTHER)
    bag.pose_stamped("/mocap/pose", stamp(0), OTHER)
    (tmp_path / "two").mkdir()
    sequence = open_sequence(bag.write(tmp_path / "two"))
    assert sequence.ground_truth is None and "--ground-truth-topic" in sequence.info.assumptions[0]


def test_a_bag_that_is_no_bag(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "missing.bag")
    for missing in ("missing.bag", "missing"):  # also where a bag and nothing else is asked for, as doctor does
        with pytest.raises(SourceError, match=r"missing.* does not exist: give the file or folder of a bag"):
            BagFile(tmp_path / missing)
    for suffix in (".bag", ".mcap", ".db3"):
        path = tmp_path / f"file{suffix}"
        path.write_bytes(b"")
        assert "is empty" in refusal(path)
        path.write_bytes(b"this is a text, not a recording" * 9)
        assert "is no whole bag" in refusal(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bag_without_messages(kind: str, tmp_path: Path) -> None:
    assert "holds no message" in refusal(TinyBag(kind).write(tmp_path))


def storage_file(path: Path) -> Path:
    return path if path.is_file() else next(file for file in path.iterdir() if file.suffix in (".mcap", ".db3"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bag_that_is_cut_off_anywhere(kind: str, tmp_path: Path) -> None:
    bag = TinyBag(kind)
    bag.camera(count=30)
    path = bag.write(tmp_path)
    file = storage_file(path)
    whole = file.read_bytes()
    for length in (1, 9, 40, 100, *np.linspace(200, len(whole) - 1, 25).astype(int)):
        file.write_bytes(whole[:length])
        try:
            frames_of(path)
        except SourceError as error:
            assert str(error).endswith(".") and "\n" not in str(error)
        else:  # a database finds out only about the pages that it needs
            assert kind == "sqlite3" and length > 0.9 * len(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bag_with_damaged_bytes(kind: str, tmp_path: Path) -> None:
    bag = TinyBag(kind)
    bag.camera(count=10)
    path = bag.write(tmp_path)
    file = storage_file(path)
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 20):
            damaged[place] = random.integers(256)
        file.write_bytes(damaged)
        try:
            frames_of(path)
        except FeatureMatcherError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("kind", ["sqlite3", "mcap"])
def test_a_recording_that_was_killed_has_no_metadata(kind: str, tmp_path: Path) -> None:
    bag = TinyBag(kind)
    bag.camera()
    path = bag.write(tmp_path)
    (path / "metadata.yaml").unlink()
    assert len(frames_of(path)) == 5
    assert len(frames_of(storage_file(path))) == 5
    file = storage_file(path)
    first, second = (path / f"walk_{number}{file.suffix}" for number in range(2))
    shutil.copy(file.rename(first), second)
    assert len(frames_of(path)) == 10


@pytest.mark.parametrize("kind", ["sqlite3", "mcap"])
def test_recordings_that_lie_in_one_folder_are_not_joined(kind: str, tmp_path: Path) -> None:
    bag = TinyBag(kind)
    bag.camera()
    file = storage_file(bag.write(tmp_path / "bag"))
    for name in ("walk", "drive_0"):
        (tmp_path / "recordings").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "recordings" / f"{name}{file.suffix}")
    with pytest.raises(SourceError, match=r"holds 2: give one of '.*drive_0\..*', '.*walk\."):
        open_sequence(tmp_path / "recordings")


def test_definitions_are_not_needed(tmp_path: Path) -> None:
    bag = TinyBag("sqlite3")
    bag.camera()
    path = bag.write(tmp_path)
    with sqlite3.connect(storage_file(path)) as database:
        database.execute("DELETE FROM message_definitions")
    assert len(frames_of(path)) == 5


def test_types_that_nobody_knows_do_no_harm(tmp_path: Path) -> None:
    bag = TinyBag()
    bag.camera()
    path = tmp_path / "strange"
    with Ros2Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        strange = writer.add_connection("/strange", "odd_msgs/msg/Thing", msgdef="no type at all %$", rihs01="RIHS01_0")
        writer.write(strange, START_NS, b"\0\1\0\0 whatever")
        bag._write_entries(writer, bag.store.serialize_cdr, {})
    assert len(frames_of(path)) == 5


def test_no_camera_and_no_calibration(tmp_path: Path) -> None:
    bag = TinyBag()
    bag.pose_stamped("/pose", START_NS, np.eye(4))
    assert "there is no camera topic in the bag, no image at all" in refusal(bag.write(tmp_path))

    def refusal_of(name: str, bag: TinyBag, selection: Selection | None = None) -> str:
        (tmp_path / name).mkdir()
        return refusal(bag.write(tmp_path / name), selection)

    only_depth = TinyBag()
    only_depth.image("/camera/depth/image_raw", START_NS, depth_map(0), "16UC1")
    assert "only /camera/depth/image_raw (16UC1, 1 messages)" in refusal_of("depth", only_depth)

    bare = TinyBag()
    bare.image("/camera/image_raw", START_NS, picture(0))
    assert "there is no CameraInfo for /camera/image_raw: give a calibration file" in refusal_of("bare", bare)
    bare.info("/elsewhere/camera_info")
    assert "there is one on /elsewhere/camera_info" in refusal_of("elsewhere", bare)
    chosen = Selection(camera_info_topic="/elsewhere/camera_info")
    assert len(frames_of(tmp_path / "elsewhere" / "tiny", chosen)) == 1
    wrong = Selection(camera_info_topic="/nowhere")
    assert "no CameraInfo on '/nowhere'" in refusal(tmp_path / "elsewhere" / "tiny", wrong)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"k": np.zeros(9)}, "'/camera/camera_info': K[0] is 0"),
        ({"distortion_model": "ftheta", "d": np.ones(4)}, "distortion_model 'ftheta'"),
        ({"distortion_model": "plumb_bob", "d": np.ones(7)}, "7 distortion coefficients do not fit"),
        ({"width": 0, "height": 0}, "a camera cannot have 0x0 pixels"),
        ({"width": 640, "height": 480}, "have 32x24 pixels but their calibration 640x480"),
    ],
)
def test_a_calibration_that_cannot_be(changes: dict[str, object], sentence: str, tmp_path: Path) -> None:
    bag = TinyBag()
    bag.camera(**changes)
    path = bag.write(tmp_path)
    assert sentence in refusal(path)
    with pytest.raises(CalibrationError):
        open_sequence(path)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_bag(kind: str, tmp_path: Path) -> None:
    bag = TinyBag(kind)
    bag.info("/camera/camera_info", width=640, height=480)
    pixels = np.zeros((480, 640), np.uint8)
    for number in range(80):  # 25 MB
        bag.image("/camera/image_raw", stamp(number), pixels)
    path = bag.write(tmp_path)
    del bag
    tracemalloc.start()
    try:
        assert sum(1 for _ in open_sequence(path).frames()) == 80
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10e6


@pytest.mark.data
def test_a_real_bag(shared_data: Path) -> None:
    sequence = open_sequence(shared_data / "bags" / "redkitchen_300_jpeg")
    assert (sequence.modality, len(sequence)) == (Modality.MONO, 300)
    assert sequence.ground_truth is not None and len(sequence.ground_truth) == 300
    frames = [frame.stamp_ns for frame in sequence.frames()]
    assert len(frames) == 300 and not sequence.skipped

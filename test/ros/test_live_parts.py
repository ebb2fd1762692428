"""The parts of the server that need no middleware."""

import re
import threading
import time
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from feature_matcher_ros.config import FrontEndConfig, override
from feature_matcher_ros.datatypes import Camera, Frame, FrontEndResult, Matches, MotionType, Status, TrackingState
from feature_matcher_ros.errors import CalibrationError
from feature_matcher_ros.evaluation.bag_topics import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE
from feature_matcher_ros.evaluation.rosbags_messages import RosbagsMessages
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.ros.frame_ledger import DropReason, FrameLedger
from feature_matcher_ros.ros.frame_statistics import FrameRecord, FrameStatistics, FrameSummary
from feature_matcher_ros.ros.graph import RELIABLE, SENSOR_DATA, Endpoint
from feature_matcher_ros.ros.input_topics import InputTopic
from feature_matcher_ros.ros.latest_slot import LatestSlot, PatientQueue
from feature_matcher_ros.ros.live_rig import LiveRig, Role
from feature_matcher_ros.ros.markers import marker_message
from feature_matcher_ros.ros.node_diagnostics import judge
from feature_matcher_ros.ros.startup_check import explain_topic
from feature_matcher_ros.ros.synchronizer import Bundle, Synchronizer
from feature_matcher_ros.ros.turned_matcher import TurnedMatcher
from feature_matcher_ros.ros.vins_features import CHANNELS, VinsFeatures

MAKE = RosbagsMessages()
CAMERA = Camera(np.array([[300.0, 0, 160], [0, 310, 120], [0, 0, 1]]), 320, 240)
MS = 1_000_000


def test_of_a_slot_everything_is_taken_or_dropped_and_the_last_is_never_lost() -> None:
    changed = threading.Condition()
    slot = LatestSlot[int](changed)
    dropped: list[int] = []
    taken: list[int] = []

    def bring(numbers: range) -> None:
        dropped.extend(number for number in map(slot.put, numbers) if number is not None)

    def fetch() -> None:
        while not taken or taken[-1] != 20_000:
            with changed:
                item = slot.take()
                if item is None:
                    changed.wait(1.0)
            if item is not None:
                taken.append(item)

    worker = threading.Thread(target=fetch)
    worker.start()
    bring(range(1, 20_001))
    worker.join(20.0)
    assert sorted(taken + dropped) == list(range(1, 20_001))
    assert taken == sorted(taken)
    slot.put(7)
    assert slot.close() == 1 and slot.put(8) == 8 and slot.take() is None


def test_a_queue_keeps_everything_and_lets_the_hasty_wait() -> None:
    changed = threading.Condition()
    queue = PatientQueue[int](changed, 3)
    bringer = threading.Thread(target=lambda: [queue.put(number) for number in range(100)])
    bringer.start()
    time.sleep(0.05)
    assert len(queue) == 3
    taken: list[int] = []
    while len(taken) < 100:
        item = queue.take()
        taken += [] if item is None else [item]
    bringer.join()
    assert taken == list(range(100))
    full = PatientQueue[int](changed, 1)
    full.put(1)
    waiting = threading.Thread(target=lambda: full.put(2))
    waiting.start()
    time.sleep(0.02)
    assert full.close() == 1
    waiting.join(5.0)
    assert not waiting.is_alive()


def test_the_ledger_balances() -> None:
    ledger = FrameLedger()
    for _ in range(5):
        ledger.receive()
    ledger.process()
    ledger.drop(DropReason.TOO_OLD, 2)
    counts = ledger.counts()
    assert (counts.received, counts.processed, counts.num_dropped, counts.waiting) == (5, 1, 2, 2)


def streams(seed: int, jitter_ms: float, lost: float) -> tuple[list[tuple[int, int, int]], list[int], list[int]]:
    """Two streams of 30 Hz in the order of arrival, (stream, stamp, arrival); the second is offset and incomplete."""
    random = np.random.default_rng(seed)
    images = (np.arange(1, 101) * 33.3 * MS).astype(np.int64)
    seconds = images + (random.uniform(-jitter_ms, jitter_ms, 100) * MS).astype(np.int64)
    seconds = seconds[random.random(100) >= lost]
    events = [(0, int(stamp), int(stamp + random.uniform(5, 15) * MS)) for stamp in images]
    events += [(1, int(stamp), int(stamp + random.uniform(5, 15) * MS)) for stamp in seconds]
    return sorted(events, key=lambda event: event[2]), images.tolist(), seconds.tolist()


def run(synchronizer: Synchronizer, events: list[tuple[int, int, int]]) -> list[tuple[Bundle, int]]:
    decided: list[tuple[Bundle, int]] = []
    for stream, stamp, arrival in events:
        add = synchronizer.add_second if stream else synchronizer.add_image
        decided += [(bundle, arrival) for bundle in add(stamp, stamp)]
    return decided + [(bundle, events[-1][2]) for bundle in synchronizer.finish()]


@pytest.mark.parametrize("is_prompt", [False, True])
@pytest.mark.parametrize(("jitter_ms", "lost"), [(0.0, 0.0), (0.0, 0.3), (4.0, 0.0), (4.0, 0.3)])
def test_pairs_are_the_nearest_within_the_tolerance(is_prompt: bool, jitter_ms: float, lost: float) -> None:
    events, images, seconds = streams(3, jitter_ms, lost)
    decided = [bundle for bundle, _ in run(Synchronizer(5 * MS, is_prompt=is_prompt), events)]
    assert [bundle.stamp_ns for bundle in decided] == images
    for bundle in decided:
        nearest = min(seconds, key=lambda stamp: abs(stamp - bundle.stamp_ns))
        if abs(nearest - bundle.stamp_ns) <= 5 * MS:
            assert bundle.second == nearest and bundle.skew_ns == nearest - bundle.stamp_ns
        else:
            assert bundle.second is None


def test_a_prompt_synchronizer_does_not_wait_a_period() -> None:
    events = sorted(
        [(0, number * 33 * MS, number * 33 * MS + 5 * MS) for number in range(1, 60)]
        + [(1, number * 33 * MS - MS, number * 33 * MS + 2 * MS) for number in range(1, 60)],
        key=lambda event: event[2],
    )
    waits = {}
    for is_prompt in (False, True):
        decided = run(Synchronizer(5 * MS, is_prompt=is_prompt), events)[5:-1]
        assert all(bundle.skew_ns == -MS for bundle, _ in decided)
        waits[is_prompt] = max(arrival - bundle.stamp_ns for bundle, arrival in decided) / MS
    assert waits == {False: 35.0, True: 5.0}


def test_a_second_stream_without_images_is_kept_in_bounds() -> None:
    """And once images come again they are paired."""
    synchronizer = Synchronizer(5 * MS, is_prompt=True)
    for number in range(1, 1001):
        assert not list(synchronizer.add_second(number * 33 * MS, number))
    assert 8 < synchronizer.second_lead <= 32  # a stream that is 8 ahead is made to wait where no image may be lost
    (bundle,) = synchronizer.add_image(1000 * 33 * MS, 1000)
    assert (bundle.second, synchronizer.second_lead) == (1000, 0)


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
def test_a_turned_camera_gives_the_pixels_of_its_own_image(rotation_deg: int, frames: list[Frame]) -> None:
    """What an upright matcher finds, moved to where the same grey values lie in the turned image."""
    config = override(FrontEndConfig(), {"extractor.name": "orb", "matcher.name": "mutual_nearest"})
    matcher = create_matcher(config)
    upright = [frames[0].image, frames[4].image]
    mask = np.zeros_like(upright[0])
    mask[:, :250] = 255
    expected = matcher.match(*(matcher.extract(image, mask) for image in upright))
    # The scene in a camera that is turned clockwise appears turned the other way.
    turns = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
    seen = [cv2.rotate(image, turns[rotation_deg]) for image in (*upright, mask)]
    turned = TurnedMatcher(matcher, rotation_deg)
    found = turned.match(*(turned.extract(image, seen[2]) for image in seen[:2]))
    assert len(found) == len(expected) > 50
    columns, rows = np.meshgrid(np.arange(320.0), np.arange(240.0))
    places = np.stack([columns, rows], axis=2).astype(np.float32)  # each pixel's own place, turned like the image
    turned_places = cv2.rotate(places, turns[rotation_deg])
    for points, there in ((expected.points0, found.points0), (expected.points1, found.points1)):
        maps = there[:, None, 0].copy(), there[:, None, 1].copy()
        back = cv2.remap(turned_places, *maps, cv2.INTER_LINEAR).reshape(-1, 2)
        np.testing.assert_allclose(back, points, atol=0.05)


def info(width: int = 320, focal: float = 300.0, tx: float = 0.0) -> Any:
    roi = SimpleNamespace(x_offset=0, y_offset=0, height=0, width=0)
    K = np.array([[focal, 0, 160], [0, focal, 120], [0, 0, 1]])
    P = np.hstack([K, [[tx], [0], [0]]])
    size = {"height": 240, "width": width, "binning_x": 0, "binning_y": 0, "roi": roi}
    return SimpleNamespace(
        distortion_model="plumb_bob", d=np.zeros(5), k=K.ravel(), r=np.eye(3).ravel(), p=P.ravel(), **size
    )


def test_cameras_come_late_and_change() -> None:
    rig = LiveRig(Role.RIGHT, {Role.IMAGE: "/left/image", Role.RIGHT: "/right/image"}, "")
    rig.hear_info(Role.IMAGE, info())
    assert rig.missing_infos() == [Role.RIGHT]
    rig.hear_info(Role.RIGHT, info(tx=-30.0))
    assert rig.missing_infos() == [] and rig.num_changes == 0
    cameras = rig.cameras("left", "right", (0, 0))
    assert cameras.second_pose is not None
    np.testing.assert_allclose(cameras.second_pose[:3, 3], [-0.1, 0, 0])
    for _ in range(3):
        rig.hear_info(Role.IMAGE, info())
    assert rig.num_changes == 0 and rig.cameras("left", "right", (0, 0)) is cameras
    rig.hear_info(Role.IMAGE, info(focal=250.0))
    assert rig.num_changes == 1 and rig.cameras("left", "right", (0, 0)).camera.K[0, 0] == 250.0
    rig.hear_info(Role.RIGHT, info(tx=0.0))
    with pytest.raises(CalibrationError, match=r"baseline from /left/image to /right/image is not known.*calibration"):
        rig.cameras("left", "right", (0, 0))
    for x in (-0.5, -0.2):  # published anew, corrected
        rig.hear_transforms(SimpleNamespace(transforms=[fixed_transform("right", "left", x)]))
        pose = rig.cameras("left", "right", (0, 0)).second_pose
        assert pose is not None and pose[0, 3] == x


def fixed_transform(parent: str, child: str, x: float) -> Any:
    header = SimpleNamespace(frame_id=parent, stamp=SimpleNamespace(sec=0, nanosec=0))
    moved, turned = SimpleNamespace(x=x, y=0.0, z=0.0), SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
    transform = SimpleNamespace(translation=moved, rotation=turned)
    return SimpleNamespace(header=header, child_frame_id=child, transform=transform)


def summary(**changes: Any) -> FrameSummary:
    values: dict[str, Any] = dict.fromkeys(("age_ms", "processing_ms", "overhead_ms", "max_skew_ms", "inlier_ratio"))
    values |= {"rate_hz": 10.0, "layers_run": {}, "state": TrackingState.OK, "silent_s": 0.1}
    return FrameSummary(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "new_drops", "may_be_silent", "level", "text"),
    [
        ({"state": None, "silent_s": None}, 0, False, 1, "WAITING"),
        ({}, 0, False, 0, "OK"),
        ({"state": TrackingState.RECOVERED}, 0, False, 0, "RECOVERED"),
        ({"state": TrackingState.LOST}, 3, False, 2, "LOST"),
        ({"silent_s": 5.0}, 0, False, 1, "DEGRADED: no frame for 5 s"),
        ({"silent_s": 5.0}, 0, True, 0, "OK"),
        ({"state": TrackingState.LOST, "silent_s": 5.0}, 0, False, 2, "DEGRADED: no frame for 5 s"),
        ({"state": None, "silent_s": None}, 0, False, 2, "WAITING: no image on /image"),
        ({"silent_s": 5.0}, 0, False, 2, "DEGRADED: no frame for 5 s: no image on /image"),
        ({}, 3, False, 1, "DEGRADED: 3 images could not be used"),
        ({"inlier_ratio": 0.2}, 0, False, 1, "DEGRADED: only 20%"),
        ({"silent_s": 40.0}, 0, True, 2, "DEGRADED: no frame for 40 s: no image on /image"),  # the front-end hangs
    ],
)
def test_the_verdict_names_what_is_wrong(
    changes: dict[str, Any], new_drops: int, may_be_silent: bool, level: int, text: str
) -> None:
    missing = "no image on /image" if "no image on" in text else ""
    verdict = judge(summary(**changes), new_drops=new_drops, may_be_silent=may_be_silent, missing=missing)
    assert verdict.level == level and str(verdict).startswith(text)


def test_images_of_two_cameras_on_one_topic_are_not_called_ok() -> None:
    mixed = judge(summary(), new_jumps=10, num_publishers=2)
    assert mixed.level == 1 and mixed.reason == (
        "the stamps of the images went back 10 times, and 2 publishers send images: end all but one"
    )
    lost = judge(summary(state=TrackingState.LOST), num_publishers=2)
    assert lost.level == 2 and str(lost).endswith("and 2 publishers send images: end all but one")
    assert str(judge(summary(), num_publishers=2)) == "OK"  # of which one has ended a moment ago, say
    assert str(judge(summary(), new_jumps=1)) == "OK"  # a bag that begins again


WANTED = InputTopic(Role.IMAGE, "/image", "/image", IMAGE)
INFO = InputTopic(Role.IMAGE, "/camera_info", "/camera_info", CAMERA_INFO, is_info=True)
RIGHT_INFO = InputTopic(Role.RIGHT, "/camera_info", "/camera_info", CAMERA_INFO, is_info=True)
OFFERED = Endpoint("/camera/image_raw", IMAGE, RELIABLE)


@pytest.mark.parametrize(
    ("wanted", "there", "sentence"),
    [
        (WANTED, None, "no node of any kind can be seen.*ROS_DOMAIN_ID"),
        (
            WANTED,
            OFFERED,
            r"nobody publishes it; of this type there are /camera/image_raw.*-r /image:=/camera/image_raw",
        ),
        (
            WANTED,
            Endpoint("/image/compressed", COMPRESSED_IMAGE, None),
            "only /image/compressed below it: set node.image",
        ),
        (WANTED, Endpoint("/c/image/compressed", COMPRESSED_IMAGE, None), "there is nothing, only /c/image/compressed"),
        (
            WANTED,
            Endpoint("/image", COMPRESSED_IMAGE, RELIABLE),
            "published as .*/CompressedImage, name the topic above",
        ),
        (WANTED, Endpoint("/image", "std_msgs/msg/String", RELIABLE), r"published as std_msgs.*node\.image_topic"),
        (WANTED, Endpoint("/image", IMAGE, SENSOR_DATA), "is best effort and the node asks for reliable.*node.qos"),
        (WANTED, Endpoint("/image", IMAGE, RELIABLE), "there is a publisher, but it sends nothing"),
        (WANTED, Endpoint("/rosout", "rcl_interfaces/msg/Log", RELIABLE), "nobody publishes images of any kind"),
        (
            InputTopic(Role.DEPTH, "/d/image/compressedDepth", "/d/image/compressedDepth", COMPRESSED_IMAGE),
            Endpoint("/d/image", IMAGE, RELIABLE),
            "only /d/image above it, which is raw: set node.depth_transport to raw.",
        ),
        (INFO, OFFERED, r"nobody publishes any: .*node\.calibration"),
        (
            RIGHT_INFO,
            Endpoint("/r/camera_info", CAMERA_INFO, None),
            r"of the right image.*node\.right_camera_info_topic",
        ),
    ],
)
def test_silence_is_explained_with_the_remedy(wanted: InputTopic, there: Endpoint | None, sentence: str) -> None:
    found = explain_topic(wanted, RELIABLE, [] if there is None else [there])
    assert re.search(sentence, found), found
    assert found.endswith(".") and wanted.topic in found and wanted.type_name in found


def matched(number: int, points: np.ndarray, ids: list[int]) -> FrontEndResult:
    return FrontEndResult(
        stamp_ns=number * 100 * MS, frame_id="camera", status=Status.OK, state=TrackingState.OK,
        motion_type=MotionType.GENERAL, keyframe_stamp_ns=0, keyframe_reason=None, gate=None,
        matches=Matches(points, points, np.ones(len(ids), np.float32)), inliers=np.array([i != 9 for i in ids]),
        track_ids=np.array(ids, np.uint32), pose=None, odometry=None, stages_ms={},
    )  # fmt: skip


def test_vins_channels_hold_ids_pixels_and_velocities() -> None:
    features = VinsFeatures()
    points = np.array([[160, 120], [190, 151], [10, 10], [20, 20]], np.float32)
    ids = [5, (1 << 24) + 6, 0, 9]  # the third has no track, the fourth is no inlier
    first = features.message(MAKE, matched(1, points, ids), CAMERA)
    assert [channel.name for channel in first.channels] == list(CHANNELS) and len(CHANNELS) == 9
    assert [channel.values.tolist() for channel in first.channels] == [
        [5, 6], [0, 0], [160, 190], [120, 151], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0]
    ]  # fmt: skip
    np.testing.assert_allclose([[p.x, p.y, p.z] for p in first.points], [[0, 0, 1], [0.1, 0.1, 1]], atol=1e-6)
    moved = features.message(MAKE, matched(2, points + np.float32([3, 0]), ids), CAMERA)
    np.testing.assert_allclose(moved.channels[4].values, [0.1, 0.1], atol=1e-5)  # 3 px of 300 in 0.1 s
    np.testing.assert_allclose(moved.channels[5].values, 0.0, atol=1e-6)
    MAKE.serialize(moved, "sensor_msgs/msg/PointCloud")


def test_markers_show_where_the_camera_looks() -> None:
    message = marker_message(MAKE, 5, "odom", np.eye(4), CAMERA, [np.eye(4)] * 3)
    pyramid, keyframes = message.markers
    ends = np.array([[p.x, p.y, p.z] for p in pyramid.points])
    assert len(ends) == 16 and len(keyframes.points) == 3
    corner = ends[1] / ends[1, 2]
    np.testing.assert_allclose((CAMERA.K @ corner)[:2], [0, 0], atol=1e-9)  # it is seen at the first pixel
    MAKE.serialize(message, "visualization_msgs/msg/MarkerArray")
    assert [marker.ns for marker in marker_message(MAKE, 6, "odom", np.eye(4), CAMERA, []).markers] == ["camera"]


def test_frames_are_forgotten_also_when_nobody_asks() -> None:
    statistics, now_s = FrameStatistics(), time.monotonic()
    result = matched(1, np.zeros((0, 2), np.float32), [])
    for number in range(1500):
        statistics.add(FrameRecord(now_s - 50.0 + number / 30, None, 1.0, 1.0, 0.0, result))
    assert len(statistics._records) == 301  # of ten seconds at 30 Hz, with both ends

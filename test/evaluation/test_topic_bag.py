"""The bag of topics, read back by rosbags alone."""

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosReliability

from feature_matcher_ros.datatypes import (
    Camera,
    Frame,
    FrontEndResult,
    KeyframeReason,
    Matches,
    MotionType,
    Odometry,
    ScaleSource,
    Status,
    TrackingState,
)
from feature_matcher_ros.errors import OutputError, SourceError
from feature_matcher_ros.evaluation.topic_bag import TopicBag, read_correspondences
from feature_matcher_ros.geometry import pose_from
from feature_matcher_ros.ros.messages import stamp_ns_of
from feature_matcher_ros.ros.topics import TopicOptions

CAMERA = Camera(np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), 64, 48)
IMAGE = np.zeros((48, 64), np.uint8)
START_NS = 1_700_000_000_000_000_000


def result(number: int, count: int = 30, segment: int = 0) -> FrontEndResult:
    random = np.random.default_rng(number)
    points = random.uniform(0, 48, (2, count, 2)).astype(np.float32)
    return FrontEndResult(
        stamp_ns=START_NS + number * 100_000_001,
        frame_id="camera",
        status=Status.OK,
        state=TrackingState.OK,
        motion_type=MotionType.GENERAL,
        keyframe_stamp_ns=START_NS,
        keyframe_reason=KeyframeReason.PARALLAX if number % 2 == 0 else None,
        gate=None,
        matches=Matches(points[0], points[1], random.random(count).astype(np.float32)),
        inliers=random.random(count) < 0.8,
        track_ids=random.integers(1, 2**32, count, dtype=np.uint32),
        pose=None,
        odometry=Odometry(pose_from(np.eye(3), [0, 0, number]), ScaleSource.STEREO, segment),
        stages_ms={"match": 1.0},
    )


def frame(of: FrontEndResult) -> Frame:
    return Frame(of.stamp_ns, IMAGE, CAMERA, of.frame_id)


def write_all(bag: TopicBag, results: list[FrontEndResult]) -> None:
    for one in results:
        bag.write(frame(one), one)


def messages(path: Path) -> list[tuple[str, int, Any]]:
    with AnyReader([path]) as reader:
        return [
            (connection.topic, stamp_ns, reader.deserialize(data, connection.msgtype))
            for connection, stamp_ns, data in reader.messages()
        ]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    results = [result(number) for number in range(7)]
    with TopicBag(tmp_path / "topics") as bag:
        write_all(bag, results)
    read = messages(tmp_path / "topics")
    counts = {topic: sum(name == topic for name, _, _ in read) for topic, _, _ in read}
    assert counts == {
        "/feature_matcher/correspondences": 7,
        "/feature_matcher/odometry": 7,
        "/feature_matcher/keyframe": 4,
        "/feature_matcher/path": 1,
        "/diagnostics": 7,
    }
    for topic, stamp_ns, message in read:
        expected = results[-1].stamp_ns if topic.endswith("path") else stamp_ns_of(message.header)
        assert stamp_ns == expected
    for one, written in zip(read_correspondences(tmp_path / "topics"), results, strict=True):
        assert written.matches is not None and one.stamp_ns == written.stamp_ns
        assert one.matches.points0.tobytes() == written.matches.points0.tobytes()
        assert one.matches.points1.tobytes() == written.matches.points1.tobytes()
        assert one.matches.scores.tobytes() == written.matches.scores.tobytes()
        np.testing.assert_array_equal(one.inliers, written.inliers)
        np.testing.assert_array_equal(one.track_ids, written.track_ids)


def test_the_path_of_each_segment_is_written_once(tmp_path: Path) -> None:
    with TopicBag(tmp_path / "topics") as bag:
        write_all(bag, [result(number, segment=number // 4) for number in range(8)])
    paths = [message for topic, _, message in messages(tmp_path / "topics") if topic.endswith("/path")]
    places = [[pose.pose.position.x for pose in path.poses] for path in paths]
    assert places == [[0, 2], [4, 6]]


def test_quality_of_service_and_schemas_are_there_for_players(tmp_path: Path) -> None:
    with TopicBag(tmp_path / "topics") as bag:
        write_all(bag, [result(0)])
    with AnyReader([tmp_path / "topics"]) as reader:  # which raises unless every type has its definition
        for connection in reader.connections:
            [qos] = connection.ext.offered_qos_profiles  # type: ignore[union-attr]
            assert qos.reliability is QosReliability.RELIABLE and qos.depth in (1, 10)
            assert connection.msgdef.data
    assert (tmp_path / "topics" / "metadata.yaml").is_file()


def test_options_reach_the_topics(tmp_path: Path) -> None:
    unscaled = replace(result(0), odometry=Odometry(np.eye(4), ScaleSource.NONE, 0))
    with TopicBag(tmp_path / "topics") as bag:
        write_all(bag, [unscaled])
    assert not {"/tf", "/feature_matcher/odometry"} & {topic for topic, _, _ in messages(tmp_path / "topics")}
    options = TopicOptions(odom_frame_id="start", publish_tf=True, publish_unscaled=True)
    with TopicBag(tmp_path / "topics", options) as bag:  # takes the place of the old one
        write_all(bag, [unscaled])
    topics = {topic: message for topic, _, message in messages(tmp_path / "topics")}
    assert topics["/tf"].transforms[0].header.frame_id == "start"
    assert "/feature_matcher/path" in topics and "/feature_matcher/odometry" in topics


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_a_whole_bag(interruption: type[BaseException], tmp_path: Path) -> None:
    def run() -> None:
        with TopicBag(tmp_path / "topics") as bag:
            write_all(bag, [result(number) for number in range(3)])
            raise interruption

    with pytest.raises(interruption):
        run()
    assert len(list(read_correspondences(tmp_path / "topics"))) == 3


def test_a_bag_without_frames_is_whole(tmp_path: Path) -> None:
    with TopicBag(tmp_path / "topics"):
        pass
    with pytest.raises(SourceError, match="holds no message"):
        list(read_correspondences(tmp_path / "topics"))


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "topics"):
        with pytest.raises(OutputError) as caught:
            TopicBag(path)
        assert str(caught.value).endswith("rights to write.") and "\n" not in str(caught.value)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("do not delete")
    with pytest.raises(OutputError, match="exists already"):
        TopicBag(tmp_path / "full")
    assert (tmp_path / "full" / "thesis.txt").is_file()


@pytest.mark.parametrize(("limit", "survivors"), [(200, 0), (500_000, 0), (1_300_000, 5), (2_500_000, 10)])
def test_a_full_disk_is_one_sentence(limit: int, survivors: int, tmp_path: Path) -> None:
    """The limit on the size of a file stands in for a disk without space: both fail in the midst of writing.

    Of each whole megabyte, what is in it is saved.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def run() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        with TopicBag(tmp_path / "topics") as bag:
            write_all(bag, [result(number, 5000) for number in range(12)])

    try:
        with pytest.raises(OutputError, match=r"File too large.*on a disk with space"):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    if survivors:
        assert len(list(read_correspondences(tmp_path / "topics"))) == survivors


def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    bag = TopicBag(tmp_path / "topics")
    write_all(bag, [result(0)])
    bag.close()
    bag.close()
    assert len(list(read_correspondences(tmp_path / "topics"))) == 1

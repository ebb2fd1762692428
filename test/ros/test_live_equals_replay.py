"""A camera process, the node's process and this consumer: the node says over the wire what replay says of the bag."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

from live_harness import ADAPTERS, FAST, Consumer, LiveNode, remap, settings

from feature_matcher_ros.config import FrontEndConfig, override
from feature_matcher_ros.evaluation.bag_file import BagFile
from feature_matcher_ros.evaluation.replay import replay
from feature_matcher_ros.evaluation.rosbags_messages import RosbagsMessages
from feature_matcher_ros.ros.topics import (
    CORRESPONDENCES,
    DIAGNOSTICS,
    KEYFRAME,
    ODOMETRY,
    PATH,
    RELATIVE_POSE,
    STATUS,
    TF,
    Topic,
)

MESSAGES = RosbagsMessages()
EXACT = (CORRESPONDENCES, RELATIVE_POSE, ODOMETRY, KEYFRAME)
SEVERAL_KEYFRAMES = {"keyframes.min_parallax_px": 3.0}
PLAYER = Path(__file__).with_name("play_bag.py")


def cdr(message: Any, topic: Topic) -> bytes:
    return bytes(MESSAGES.serialize(message, topic.type_name))


def replayed(source: Path, output: Path) -> dict[Topic, list[Any]]:
    replay(source, output, config=override(FrontEndConfig(), FAST | SEVERAL_KEYFRAMES))
    topics = {topic.full_name: topic for topic in (*EXACT, PATH, DIAGNOSTICS)}
    found: dict[Topic, list[Any]] = {topic: [] for topic in topics.values()}
    with BagFile(output / "topics") as bag:
        for message in bag.messages([name for name in topics if name in bag.topics]):
            found[topics[message.topic]].append(bag.decode(message))
    return found


def without_times(message: Any) -> list[tuple[str, str]]:
    """What a status says, but for the times of its stages."""
    status = message.status[0]
    return [(status.name, status.message)] + [(v.key, v.value) for v in status.values if not v.key.endswith("_ms")]


def last_of_each_segment(paths: list[Any]) -> Iterator[bytes]:
    """The node sends a growing path, replay sends it once."""
    for path, following in zip(paths, [*paths[1:], None], strict=True):
        if following is None or len(following.poses) <= len(path.poses):
            yield b"".join(cdr(pose, Topic("", "geometry_msgs/msg/PoseStamped")) for pose in path.poses)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("modality", ["stereo", "rgbd"])
def test_the_node_says_what_replay_says(
    modality: str, adapter: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bag: Path = request.getfixturevalue(f"{modality}_bag")
    expected = replayed(bag, tmp_path / "run")
    count = len(expected[DIAGNOSTICS])
    with BagFile(bag) as file:
        image = next(name for name in file.topics if name.endswith("image_raw/compressed")).removesuffix("/compressed")
        assert count == file.topics[f"{image}/compressed"].count
    partner = {
        "stereo": {"right__image": "/camera/right/image_raw"},
        "rgbd": {"depth__image": "/camera/depth/image_raw"},
    }
    lossless = settings(
        node__modality=modality,
        node__image_transport="compressed",
        node__process_every_frame=True,
        node__qos="reliable",
        node__publish_tf=True,
        keyframes__min_parallax_px=SEVERAL_KEYFRAMES["keyframes.min_parallax_px"],
    )
    node = LiveNode(*remap(image=image, **partner[modality]), adapter=adapter, **lossless)
    with node, Consumer([*EXACT, PATH, STATUS, TF, DIAGNOSTICS]) as consumer:
        consumer.wait_for_node()
        camera = subprocess.Popen([sys.executable, str(PLAYER), str(bag), "keep_all=1"])
        try:
            consumer.wait_for(STATUS, count)
        finally:
            camera.kill()
            camera.wait()
        code, _ = node.interrupt()
    assert code == 0
    assert len(expected[RELATIVE_POSE]) > count / 2 and expected[ODOMETRY] and len(expected[KEYFRAME]) > 1
    for topic in EXACT:
        live = [cdr(message, topic) for message in consumer.messages[topic]]
        assert live == [cdr(message, topic) for message in expected[topic]], topic.name
    assert [*map(without_times, consumer.messages[STATUS])] == [*map(without_times, expected[DIAGNOSTICS])]
    assert [*last_of_each_segment(consumer.messages[PATH])] == [*last_of_each_segment(expected[PATH])]
    stamps = [message.header.stamp for message in expected[ODOMETRY]]
    assert [message.transforms[0].header.stamp for message in consumer.messages[TF]] == stamps
    assert not consumer.damaged

"""What the live node must say of a bag: what replay says of it, message for message."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from live_harness import FAST, Consumer, LiveNode, remap, settings

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
    Topic,
)

MESSAGES = RosbagsMessages()
EXACT = (CORRESPONDENCES, RELATIVE_POSE, ODOMETRY, KEYFRAME)
HEARD = (*EXACT, PATH, STATUS, DIAGNOSTICS)
CONFIG = FAST | {"keyframes.min_parallax_px": 3.0}  # several keyframes
IMAGES = {"stereo": "/camera/left/image_raw", "rgbd": "/camera/color/image_raw"}
PARTNERS = {
    "stereo": {"right__image": "/camera/right/image_raw"},
    "rgbd": {"depth__image": "/camera/depth/image_raw"},
}


def replayed(source: Path, output: Path) -> dict[Topic, list[Any]]:
    """The messages of ``feature-matcher replay``; its bag lies in ``output / "topics"``."""
    replay(source, output, config=override(FrontEndConfig(), CONFIG))
    topics = {topic.full_name: topic for topic in (*EXACT, PATH, DIAGNOSTICS)}
    found: dict[Topic, list[Any]] = {topic: [] for topic in topics.values()}
    with BagFile(output / "topics") as bag:
        for message in bag.messages([name for name in topics if name in bag.topics]):
            found[topics[message.topic]].append(bag.decode(message))
    return found


def lossless_node(modality: str, adapter: str, *ros_arguments: str, **changes: object) -> LiveNode:
    """A node that processes every frame of a bag of the demo."""
    lossless = settings(
        node__modality=modality,
        node__image_transport="compressed",
        node__process_every_frame=True,
        node__qos="reliable",
        keyframes__min_parallax_px=CONFIG["keyframes.min_parallax_px"],
    )
    named = remap(image=IMAGES[modality], **PARTNERS[modality])
    return LiveNode(*named, *ros_arguments, adapter=adapter, **lossless | changes)


def assert_same(consumer: Consumer, expected: dict[Topic, list[Any]]) -> None:
    """Compare byte for byte, but for the times that the stages took."""
    count = len(expected[DIAGNOSTICS])
    assert len(expected[RELATIVE_POSE]) > count / 2 and expected[ODOMETRY] and len(expected[KEYFRAME]) > 1
    for topic in EXACT:
        live = [cdr(message, topic) for message in consumer.messages[topic]]
        assert live == [cdr(message, topic) for message in expected[topic]], topic.name
    assert [*map(without_times, consumer.messages[STATUS])] == [*map(without_times, expected[DIAGNOSTICS])]
    assert [*last_of_each_segment(consumer.messages[PATH])] == [*last_of_each_segment(expected[PATH])]
    assert not consumer.damaged


def cdr(message: Any, topic: Topic) -> bytes:
    return bytes(MESSAGES.serialize(message, topic.type_name))


def without_times(message: Any) -> list[tuple[str, str]]:
    """What a status says, but for the times of its stages."""
    status = message.status[0]
    return [(status.name, status.message)] + [(v.key, v.value) for v in status.values if not v.key.endswith("_ms")]


def last_of_each_segment(paths: list[Any]) -> Iterator[bytes]:
    """The node sends a growing path, replay sends it once."""
    for path, following in zip(paths, [*paths[1:], None], strict=True):
        if following is None or len(following.poses) <= len(path.poses):
            yield b"".join(cdr(pose, Topic("", "geometry_msgs/msg/PoseStamped")) for pose in path.poses)

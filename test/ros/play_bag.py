"""A camera: publishes the messages of a bag, as they were recorded. ``python play_bag.py BAG key=value...``.

rate_hz: frames per second, 0 as fast as subscribers take them; loops: how often; frames: no more than these;
restamp: stamps of now; raw: compressed images as pixels, on the topic above; reliable, keep_all: quality of service;
skip: topics left out; wait_for: whether to wait until every topic has a subscriber; linger_s: how long to stay
afterwards.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from feature_matcher_ros.evaluation.bag_file import BagFile, RawMessage
from feature_matcher_ros.evaluation.bag_topics import IMAGE
from feature_matcher_ros.evaluation.rosbags_messages import RosbagsMessages
from feature_matcher_ros.ros.conversions import image_message
from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.graph import QosProfile
from feature_matcher_ros.ros.image_decoder import decode_compressed_image
from feature_matcher_ros.ros.messages import stamp_ns_of
from feature_matcher_ros.ros.names import NodeName

COMPRESSED = "/compressed"
_PATIENCE_S = 30.0
_DISCOVERY_S = 0.5  # a publisher may know of a subscription before that knows of it, and takes nothing until then


def play(bag: BagFile, graph: DdsGraph, options: dict[str, str]) -> None:
    skipped = options.get("skip", "").split(",")
    topics = {name: topic.type_name for name, topic in bag.topics.items() if name not in skipped and name != "/tf"}
    messages = list(bag.messages(list(topics)))
    if options.get("raw") == "1":
        topics = {raw_topic(name): IMAGE if name.endswith(COMPRESSED) else kind for name, kind in topics.items()}
        messages = [as_raw(bag, graph.make, message) for message in messages]
    reliable, depth = options.get("reliable", "1") == "1", 0 if options.get("keep_all", "0") == "1" else 10
    publishers = {
        name: graph.advertise(name, kind, QosProfile(reliable or name == "/tf_static", depth, name == "/tf_static"))
        for name, kind in topics.items()
    }
    deadline = time.monotonic() + _PATIENCE_S
    while options.get("wait_for", "1") == "1" and not all(p.has_subscribers() for p in publishers.values()):
        if time.monotonic() > deadline:
            sys.exit("nobody listens")
        time.sleep(0.02)
    time.sleep(_DISCOVERY_S)
    period_s = 1.0 / float(options["rate_hz"]) if float(options.get("rate_hz", "0")) else 0.0
    next_s = time.monotonic()
    frames = [*frames_of(messages)][: int(options.get("frames", "1000000"))]
    for _ in range(int(options.get("loops", "1"))):
        for frame in frames:
            if period_s:
                time.sleep(max(0.0, next_s - time.monotonic()))
                next_s = max(next_s + period_s, time.monotonic() - period_s)
            now_ns = time.time_ns()
            for message in frame:
                data = message.data
                if options.get("restamp") == "1" and message.topic != "/tf_static":
                    data = restamped(bytes(data), now_ns)
                if not publishers[message.topic].publish_cdr(bytes(data)) and depth == 0:
                    sys.exit(f"nobody took a message on {message.topic}")
    time.sleep(float(options.get("linger_s", "1")))


def raw_topic(name: str) -> str:
    return name.removesuffix(COMPRESSED)


def as_raw(bag: BagFile, make: RosbagsMessages, message: RawMessage) -> RawMessage:
    """A compressed image as mono8, whatever else as it is."""
    if not message.topic.endswith(COMPRESSED):
        return message
    compressed = bag.decode(message)
    stamp_ns, frame_id = stamp_ns_of(compressed.header), compressed.header.frame_id
    image = image_message(make, stamp_ns, frame_id, decode_compressed_image(compressed))
    return replace(message, topic=raw_topic(message.topic), data=bytes(make.serialize(image, IMAGE)))


def frames_of(messages: list[RawMessage]) -> Iterator[list[RawMessage]]:
    """Messages that were recorded at the same time."""
    frame: list[RawMessage] = []
    for message in messages:
        if frame and message.recorded_ns != frame[0].recorded_ns:
            yield frame
            frame = []
        frame.append(message)
    yield frame


def restamped(data: bytes, now_ns: int) -> bytes:
    """The header, which stands first in every message of a camera, with another stamp."""
    seconds, rest = divmod(now_ns, 1_000_000_000)
    return data[:4] + seconds.to_bytes(4, "little") + rest.to_bytes(4, "little") + data[12:]


def main(arguments: list[str]) -> None:
    options: dict[str, Any] = dict(argument.split("=", 1) for argument in arguments[1:])
    with BagFile(Path(arguments[0])) as bag, DdsGraph(NodeName("camera_player")) as graph:
        play(bag, graph, options)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What RViz and Foxglove are told to show is what the node publishes."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

from live_harness import NEEDS_RCLPY, ORB, wait_until

from feature_matcher_ros.config import FrontEndConfig, override
from feature_matcher_ros.datatypes import Frame
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.node_config import NodeConfig
from feature_matcher_ros.ros import topics
from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.graph import QosProfile
from feature_matcher_ros.ros.names import NodeName
from feature_matcher_ros.ros.outputs import Outputs
from feature_matcher_ros.ros.rviz_view import SHOWN, rviz_view
from feature_matcher_ros.ros.topics import Topic

ROOT = Path(__file__).parents[2]
RVIZ, FOXGLOVE = ROOT / "config" / "front_end.rviz", ROOT / "config" / "front_end.foxglove.json"
PUBLISHED = {topic.full_name: topic for topic in vars(topics).values() if isinstance(topic, Topic)}
OWN = {name for name in PUBLISHED if name.startswith(topics.NODE_NAME)}
SOFTWARE = {"LIBGL_ALWAYS_SOFTWARE": "1"}
TYPES = {
    "Image": "sensor_msgs/msg/Image",
    "Path": "nav_msgs/msg/Path",
    "Odometry": "nav_msgs/msg/Odometry",
    "MarkerArray": "visualization_msgs/msg/MarkerArray",
    "PointCloud2": "sensor_msgs/msg/PointCloud2",
}


def test_rviz_shows_what_the_node_publishes() -> None:
    """Topics with their types and a quality of service that hears them; the launch file remaps them all."""
    manager = yaml.safe_load(RVIZ.read_text())["Visualization Manager"]
    shown = {entry["Class"].split("/")[1]: entry["Topic"] for entry in manager["Displays"] if "Topic" in entry}
    assert set(shown) == set(TYPES)
    for kind, topic in shown.items():
        published = PUBLISHED[topic["Value"]]
        assert (published.type_name, topic["Durability Policy"]) == (TYPES[kind], "Volatile")
        assert topic["Depth"] <= published.depth
    assert {topic.full_name for topic in SHOWN} == {topic["Value"] for topic in shown.values()}
    assert manager["Global Options"]["Fixed Frame"] == NodeConfig().odom_frame_id
    assert manager["Views"]["Current"]["Target Frame"] == topics.VIEW_FRAME


def strings(value: Any) -> Iterator[str]:
    """All texts in a tree, keys included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (key, *strings(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def test_foxglove_shows_what_the_node_publishes() -> None:
    content = json.loads(FOXGLOVE.read_text())
    named = {found[0] for text in strings(content["configById"]) if (found := re.match(r"/[\w/]+", text))}
    assert named <= set(PUBLISHED) and "/diagnostics" in named and len(named & OWN) >= 4
    placed = {text for text in strings(content["layout"]) if "!" in text}
    assert placed == set(content["configById"])


@contextmanager
def opened_rviz(log: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """RViz with its output in a file, on a virtual screen where there is none, until one leaves."""
    command = ["rviz2", *arguments]
    if "DISPLAY" not in os.environ:
        command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", *command]
    # A group of its own: the virtual screen has to end with it. On that, and often elsewhere, no GPU draws.
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=os.environ | SOFTWARE
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.ros
@NEEDS_RCLPY
@pytest.mark.skipif(shutil.which("rviz2") is None, reason="rviz2 is not installed")
@pytest.mark.skipif(
    "DISPLAY" not in os.environ and shutil.which("xvfb-run") is None, reason="there is no screen for rviz2"
)
def test_rviz_hears_all_that_its_configuration_shows(frames: list[Frame], tmp_path: Path) -> None:
    """Types and quality of service match those of the node, what it publishes is drawn, and nobody complains."""
    front_end = FrontEnd(override(FrontEndConfig(), ORB | {"keyframes.match_every_frame": True}))
    log, view = tmp_path / "log", rviz_view(topics.NODE_NAME, {})
    rules = [text for rule in view.remappings for text in ("-r", ":=".join(rule))]
    with (
        DdsGraph(NodeName("feature_matcher")) as graph,
        opened_rviz(log, "-d", str(RVIZ), "-f", view.fixed_frame, "--ros-args", *rules) as rviz,
    ):
        published = Outputs(graph, NodeConfig(publish_unscaled=True), "")
        asked = [
            graph.advertise(topic.full_name, topic.type_name, QosProfile(is_reliable=True, depth=topic.depth))
            for topic in (*SHOWN, topics.VIEW_TF)
        ]
        wait_until(
            lambda: all(publisher.has_subscribers() for publisher in asked) or rviz.poll() is not None,
            f"an RViz that listens to every topic: {log}",
        )
        for frame in frames:
            published.publish(frame, front_end.process(frame))
            time.sleep(0.2)
        assert rviz.poll() is None, log.read_text()
    said = log.read_text()
    assert "OpenGl version" in said and not re.search(r"\[ERROR\]|[Ff]ailed|[Ee]xception|could not|incompat", said), (
        said
    )

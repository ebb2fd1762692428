"""What RViz and Foxglove are told to show is what the node publishes."""

import ast
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from feature_matcher_ros.ros import topics
from feature_matcher_ros.ros.topics import Topic

ROOT = Path(__file__).parents[2]
RVIZ, FOXGLOVE = ROOT / "config" / "front_end.rviz", ROOT / "config" / "front_end.foxglove.json"
PUBLISHED = {topic.full_name: topic for topic in vars(topics).values() if isinstance(topic, Topic)}
OWN = {name for name in PUBLISHED if name.startswith(topics.NODE_NAME)}
TYPES = {
    "Image": "sensor_msgs/msg/Image",
    "Path": "nav_msgs/msg/Path",
    "Odometry": "nav_msgs/msg/Odometry",
    "MarkerArray": "visualization_msgs/msg/MarkerArray",
    "PointCloud2": "sensor_msgs/msg/PointCloud2",
}


def test_rviz_shows_what_the_node_publishes() -> None:
    """Topics with their types and a quality of service that hears them; the launch file remaps them all."""
    displays = yaml.safe_load(RVIZ.read_text())["Visualization Manager"]["Displays"]
    shown = {display["Class"].split("/")[1]: display["Topic"] for display in displays if "Topic" in display}
    assert set(shown) == set(TYPES)
    for kind, topic in shown.items():
        published = PUBLISHED[topic["Value"]]
        assert (published.type_name, topic["Durability Policy"]) == (TYPES[kind], "Volatile")
        assert topic["Depth"] <= published.depth
    tree = ast.parse((ROOT / "launch" / "front_end.launch.py").read_text())
    [remapped] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SHOWN"
    ]
    assert {f"{topics.NODE_NAME}/{name}" for name in remapped} == {topic["Value"] for topic in shown.values()}


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


@pytest.mark.ros
@pytest.mark.skipif(shutil.which("rviz2") is None, reason="rviz2 is not installed")
def test_rviz_loads_its_configuration(tmp_path: Path) -> None:
    """It lives on, and misses no class; where there is no screen it needs a virtual one (xvfb-run)."""
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(["rviz2", "-d", str(RVIZ)], stdout=output, stderr=subprocess.STDOUT)
        try:
            time.sleep(8.0)
            if process.poll() is not None and "could not connect to display" in log.read_text():
                pytest.skip("there is no screen for rviz2")
            assert process.poll() is None, log.read_text()
        finally:
            process.kill()
            process.wait()
    assert not re.search(r"could not be loaded|[Pp]arse error|[Ff]ailed to load", log.read_text()), log.read_text()

"""The example consumers of docs/, in Python and C++, read what the node publishes."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

from live_harness import NEEDS_RCLPY, PATIENCE_S, wait_until

from feature_matcher_ros.datatypes import Frame, FrontEndResult, Matches, MotionType, Status, TrackingState
from feature_matcher_ros.ros.correspondences import cloud_from_result
from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.graph import RELIABLE
from feature_matcher_ros.ros.names import NodeName
from feature_matcher_ros.ros.topics import CORRESPONDENCES

pytestmark = [pytest.mark.ros, NEEDS_RCLPY]
DOCS = Path(__file__).parents[2] / "docs"
PREFIXES = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(":")]
HAS_RCLCPP = shutil.which("cmake") and any((prefix / "share" / "rclcpp").is_dir() for prefix in PREFIXES)
PROJECT = f"""
cmake_minimum_required(VERSION 3.16)
project(consumer CXX)
set(CMAKE_CXX_STANDARD 17)
find_package(rclcpp REQUIRED)
find_package(sensor_msgs REQUIRED)
add_executable(consumer {DOCS}/consumer.cpp)
target_compile_options(consumer PRIVATE -Wall -Wextra -Werror)
target_link_libraries(consumer rclcpp::rclcpp ${{sensor_msgs_TARGETS}})
"""


def cloud(make: Any, frame: Frame, number: int) -> tuple[Any, list[str]]:
    """A message, and what there is to read in it."""
    random = np.random.default_rng(number)
    points0, points1 = random.uniform(0, 320, (2, 40, 2)).astype(np.float32)
    inliers, tracks = random.random(40) < 0.7, random.integers(1, 2**32 - 1, 40, dtype=np.uint32)
    matches = Matches(points0, points1, np.ones(40, np.float32))
    result = FrontEndResult(
        stamp_ns=number, frame_id="camera", status=Status.OK, state=TrackingState.OK, motion_type=MotionType.GENERAL,
        keyframe_stamp_ns=1, keyframe_reason=None, gate=None, matches=matches, inliers=inliers, track_ids=tracks,
        pose=None, odometry=None, stages_ms={},
    )  # fmt: skip
    lines = [
        f"{tracks[i]}: {points0[i, 0]:.1f} {points0[i, 1]:.1f} -> {points1[i, 0]:.1f} {points1[i, 1]:.1f}"
        for i in np.flatnonzero(inliers)
    ]
    return cloud_from_result(make, result, frame.camera), lines


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output)
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_S)


def assert_reads(command: list[str], frame: Frame, log: Path) -> None:
    with DdsGraph(NodeName("feature_matcher")) as graph, running(command, log):
        publisher = graph.advertise(CORRESPONDENCES.full_name, CORRESPONDENCES.type_name, RELIABLE)
        wait_until(publisher.has_subscribers, "the consumer")
        clouds = [cloud(graph.make, frame, number) for number in range(3)]
        expected = [line for _, lines in clouds for line in lines]
        for message, _ in clouds:
            assert publisher.publish(message)
        wait_until(lambda: len(log.read_text().splitlines()) >= len(expected), "what was published")
    assert log.read_text().splitlines() == expected


def test_the_consumer_in_python(frames: list[Frame], tmp_path: Path) -> None:
    assert_reads([sys.executable, str(DOCS / "consumer.py")], frames[0], tmp_path / "log")


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RCLCPP, reason="needs rclcpp and cmake")
def test_the_consumer_in_cpp(frames: list[Frame], tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(PROJECT)
    for command in (["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    assert_reads([str(tmp_path / "build" / "consumer")], frames[0], tmp_path / "log")

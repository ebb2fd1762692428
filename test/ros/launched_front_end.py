"""The launch file, started by launch_testing, with a bag played to it: it says what replay says, and ends cleanly.

``python -m launch_testing.launch_test launched_front_end.py bag:=BAG config:=YAML expected:=TOPICS`` where ROS 2 and
the package are sourced; TOPICS is the bag that ``feature-matcher replay`` wrote of the same bag.
"""

import hashlib
import subprocess
import sys
import time
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import rclpy
from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_testing.actions import ReadyToTest
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2

from feature_matcher_ros.evaluation.bag_file import BagFile

TOPIC = "/robot/feature_matcher/correspondences"
ARGUMENTS = ("bag", "config", "expected")
PATIENCE_S = 60.0


def generate_test_description() -> LaunchDescription:
    launched = Path(get_package_share_directory("feature_matcher_ros")) / "launch" / "front_end.launch.py"
    given = {
        "sensor": "stereo",
        "image": "/camera/left/image_raw",
        "second": "/camera/right/image_raw",
        "transport": "compressed",
        "process_every_frame": "true",
        "namespace": "robot",
        "config": LaunchConfiguration("config"),
    }
    include = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(launched)), launch_arguments=given.items())
    return LaunchDescription([*map(DeclareLaunchArgument, ARGUMENTS), include, ReadyToTest()])


class TestLive(unittest.TestCase):
    """While the node runs."""

    def setUp(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node("consumer")
        self.clouds: list[Any] = []
        everything = QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(PointCloud2, TOPIC, self.clouds.append, everything)

    def tearDown(self) -> None:
        self.node.destroy_node()
        rclpy.shutdown()

    def test_it_says_what_replay_says(self, test_args: dict[str, str]) -> None:
        with BagFile(Path(test_args["expected"])) as bag:
            topic = "/feature_matcher/correspondences"
            expected = [bag.decode(message) for message in bag.messages([topic])]
        self.spin_until(lambda: self.node.count_publishers(TOPIC) == 1)
        player = Path(__file__).with_name("play_bag.py")
        with subprocess.Popen([sys.executable, str(player), test_args["bag"], "keep_all=1"]):
            self.spin_until(lambda: len(self.clouds) == len(expected))
        self.assertGreater(len(expected), 10)
        self.assertEqual([summary(cloud) for cloud in self.clouds], [summary(cloud) for cloud in expected])

    def spin_until(self, condition: Any) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"{len(self.clouds)} clouds")
            rclpy.spin_once(self.node, timeout_sec=0.1)


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    """When launch has ended it."""

    def test_it_ends_cleanly(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)


def summary(cloud: Any) -> tuple[int, int, int, str]:
    """Stamp, number of points and a digest of the bytes, of which unittest could not show a difference in time."""
    stamp = cloud.header.stamp
    return int(stamp.sec), int(stamp.nanosec), int(cloud.width), hashlib.sha256(bytes(cloud.data)).hexdigest()

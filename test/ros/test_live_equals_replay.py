"""A camera process, the node's process and this consumer: the node says over the wire what replay says of the bag."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

from live_harness import ADAPTERS, Consumer
from same_as_replay import HEARD, IMAGES, assert_same, lossless_node, replayed

from feature_matcher_ros.evaluation.bag_file import BagFile
from feature_matcher_ros.ros.topics import DIAGNOSTICS, ODOMETRY, STATUS, TF

PLAYER = Path(__file__).with_name("play_bag.py")


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("modality", ["stereo", "rgbd"])
def test_the_node_says_what_replay_says(
    modality: str, adapter: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bag: Path = request.getfixturevalue(f"{modality}_bag")
    expected = replayed(bag, tmp_path / "run")
    count = len(expected[DIAGNOSTICS])
    with BagFile(bag) as file:
        assert count == file.topics[f"{IMAGES[modality]}/compressed"].count
    node = lossless_node(modality, adapter, node__publish_tf=True)
    with node, Consumer([*HEARD, TF]) as consumer:
        consumer.wait_for_node()
        camera = subprocess.Popen([sys.executable, str(PLAYER), str(bag), "keep_all=1"])
        try:
            consumer.wait_for(STATUS, count)
        finally:
            camera.kill()
            camera.wait()
        code, _ = node.interrupt()
    assert code == 0
    assert_same(consumer, expected)
    stamps = [message.header.stamp for message in expected[ODOMETRY]]
    assert [message.transforms[0].header.stamp for message in consumer.messages[TF]] == stamps

"""Bags of this package in the hands of ROS: ``ros2 bag play`` to the node, ``ros2 bag info`` of what replay wrote."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

from live_harness import NEEDS_BAG, NEEDS_RCLPY, PATIENCE_S, Consumer
from loopback import NUM_FRAMES
from same_as_replay import EXACT, HEARD, assert_same, cdr, lossless_node, replayed

from feature_matcher_ros.evaluation.bag_file import BagFile
from feature_matcher_ros.ros.topics import DIAGNOSTICS, KEYFRAME, STATUS

pytestmark = [pytest.mark.ros, NEEDS_RCLPY, NEEDS_BAG]
DELAY_S = 3.0  # until who listens has found the player


@contextmanager
def played(bag: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A bag that is being played, until its end or until one leaves."""
    command = ["ros2", "bag", "play", str(bag), "--disable-keyboard-controls", "--delay", str(DELAY_S), *options]
    # A group of its own: what ros2 starts has to end with it.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(PATIENCE_S)


@pytest.mark.parametrize("modality", ["stereo", "rgbd"])
def test_the_node_says_of_a_played_bag_what_replay_says(
    modality: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """On the clock of the bag, slowly enough for a machine that is busy with other things."""
    bag: Path = request.getfixturevalue(f"{modality}_bag")
    expected = replayed(bag, tmp_path / "run")
    node = lossless_node(modality, "rclpy", "-p", "use_sim_time:=true")
    with node, Consumer(HEARD) as consumer:
        consumer.wait_for_node()
        node.wait_until_it_listens()
        with played(bag, "--clock", "100", "--rate", "0.5") as player:
            consumer.wait_for(STATUS, len(expected[DIAGNOSTICS]))
            assert player.wait(PATIENCE_S) == 0
        assert node.interrupt()[0] == 0
    assert_same(consumer, expected)


def test_a_bag_that_is_played_again_begins_a_new_segment(stereo_bag: Path) -> None:
    """Not before: stamps and clock run on within a turn, and what follows a jump back is followed as well."""
    node = lossless_node("stereo", "rclpy", "-p", "use_sim_time:=true")
    with node, Consumer([STATUS, KEYFRAME]) as consumer:
        consumer.wait_for_node()
        node.wait_until_it_listens()
        with played(stereo_bag, "--clock", "100", "--rate", "0.5", "--loop"):
            consumer.wait_for(STATUS, 2 * NUM_FRAMES)
        assert node.interrupt()[0] == 0 and "Traceback" not in node.log
    reasons = [message.status[0].message for message in consumer.messages[KEYFRAME]]
    turns = len(consumer.messages[STATUS]) / NUM_FRAMES
    assert reasons[0] == "FIRST_FRAME" and 1 <= reasons.count("TIME_JUMP") <= turns
    statuses = [message.status[0].message for message in consumer.messages[STATUS]]
    assert statuses[1:NUM_FRAMES] == ["OK"] * (NUM_FRAMES - 1) == statuses[NUM_FRAMES + 1 : 2 * NUM_FRAMES]


def test_what_replay_writes_is_a_bag_of_ros(stereo_bag: Path, tmp_path: Path) -> None:
    """``ros2 bag info`` counts what was written, and who plays it hears it unchanged."""
    expected = replayed(stereo_bag, tmp_path / "run")
    topics = tmp_path / "run" / "topics"
    told = subprocess.run(["ros2", "bag", "info", str(topics)], capture_output=True, text=True, timeout=PATIENCE_S)
    assert told.returncode == 0, told.stderr
    listed = re.findall(r"Topic: (\S+) \| Type: (\S+) \| Count: (\d+)", told.stdout)
    with BagFile(topics) as bag:
        written = {(name, topic.type_name, str(topic.count)) for name, topic in bag.topics.items()}
    assert set(listed) == written and len(listed) == len(written) > len(EXACT)
    with Consumer([*EXACT, DIAGNOSTICS]) as consumer, played(topics, "--rate", "0.5"):
        for topic in (*EXACT, DIAGNOSTICS):
            consumer.wait_for(topic, len(expected[topic]))
    for topic in (*EXACT, DIAGNOSTICS):
        assert [cdr(m, topic) for m in consumer.messages[topic]] == [cdr(m, topic) for m in expected[topic]], topic.name

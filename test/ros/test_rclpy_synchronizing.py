"""Streams as our synchroniser pairs them, and as message_filters does where what is right is beyond doubt."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs a sourced ROS 2 environment")
pytest.importorskip("message_filters", reason="needs message_filters of ROS 2")

from message_filters import ApproximateTimeSynchronizer, SimpleFilter, TimeSynchronizer

from feature_matcher_ros.ros.messages import make_header, stamp_ns_of
from feature_matcher_ros.ros.rclpy_messages import RclpyMessages
from feature_matcher_ros.ros.synchronizer import Synchronizer

pytestmark = pytest.mark.ros

PERIOD_NS = 33_333_333
MAKE = RclpyMessages()
Stream = list[tuple[int, int]]  # stamps in the order of arrival: (0 for an image, 1 for its partner; stamp)


def stream(jitter_ns: int, lost: float) -> Stream:
    """Two cameras at 30 Hz, each of which loses images; a partner comes before or after its image."""
    rng = np.random.default_rng(7)
    found: Stream = []
    for number in range(300):
        stamp_ns = 1_000_000_000 + number * PERIOD_NS
        pair = [(0, stamp_ns), (1, stamp_ns + int(rng.integers(-jitter_ns, jitter_ns + 1)))]
        found += [one for one in (pair, pair[::-1])[rng.integers(2)] if rng.random() >= lost]
    return found


def ours(messages: Stream, tolerance_ns: int, *, is_prompt: bool) -> set[tuple[int, int]]:
    synchronizer = Synchronizer(tolerance_ns, is_prompt=is_prompt)
    bundles = []
    for which, stamp_ns in messages:
        bundles += (synchronizer.add_second if which else synchronizer.add_image)(stamp_ns, stamp_ns)
    bundles += synchronizer.finish()
    return {(bundle.stamp_ns, bundle.second) for bundle in bundles if bundle.second is not None}


def theirs(messages: Stream, tolerance_ns: int) -> set[tuple[int, int]]:
    streams = [SimpleFilter(), SimpleFilter()]
    synchronizer = (
        ApproximateTimeSynchronizer(streams, 10, tolerance_ns * 1e-9) if tolerance_ns else TimeSynchronizer(streams, 10)
    )
    pairs: set[tuple[int, int]] = set()
    synchronizer.registerCallback(lambda *both: pairs.add((stamp_ns_of(both[0].header), stamp_ns_of(both[1].header))))
    for which, stamp_ns in messages:
        streams[which].signalMessage(MAKE("sensor_msgs/msg/Image", header=make_header(MAKE, stamp_ns, "camera")))
    return pairs


@pytest.mark.parametrize("is_prompt", [True, False])
@pytest.mark.parametrize("lost", [0.0, 0.3])
@pytest.mark.parametrize("jitter_ns", [0, 4_000_000])
def test_both_find_the_same_pairs(jitter_ns: int, lost: float, is_prompt: bool) -> None:
    """The tolerance is less than half a period, so that no image has two possible partners."""
    messages = stream(jitter_ns, lost)
    expected = theirs(messages, jitter_ns and jitter_ns + 1_000_000)
    assert len(expected) > 120
    assert ours(messages, jitter_ns + 1_000_000, is_prompt=is_prompt) == expected

"""Time that is not the computer's: of a simulation, or of a bag that is played again and again."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

from live_harness import ADAPTERS, NEEDS_RCLPY, Consumer, LiveCamera, LiveNode, graph_of, remap, settings, wait_until
from test_base_frame import transform_to

from feature_matcher_ros.datatypes import Frame
from feature_matcher_ros.geometry import pose_from
from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.graph import LATCHED, RELIABLE, SENSOR_DATA
from feature_matcher_ros.ros.names import NodeName
from feature_matcher_ros.ros.topics import DIAGNOSTICS, KEYFRAME, PATH, STATUS

SECOND_NS = 1_000_000_000


class Clock:
    """Tells the time on ``/clock``."""

    def __init__(self, graph: DdsGraph) -> None:
        self._make = graph.make
        self._publisher = graph.advertise("/clock", "rosgraph_msgs/msg/Clock", SENSOR_DATA)
        wait_until(self._publisher.has_subscribers, "a node that asks for the time")

    def tick(self, stamp_ns: int) -> None:
        stamp = self._make("builtin_interfaces/msg/Time", sec=stamp_ns // SECOND_NS, nanosec=stamp_ns % SECOND_NS)
        self._publisher.publish(self._make("rosgraph_msgs/msg/Clock", clock=stamp))


@contextmanager
def simulator() -> Iterator[DdsGraph]:
    with DdsGraph(NodeName("simulator")) as graph:
        yield graph


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_time_of_a_simulation_is_followed(adapter: str) -> None:
    with simulator() as other, graph_of(adapter, "node", use_sim_time=True) as graph:
        assert graph.now_ns() == 0 and graph.is_time_paused()
        clock = Clock(other)
        for stamp_ns in (5_000_000_001, 6_500_000_000, 2_000_000_000):  # and a jump back
            clock.tick(stamp_ns)
            wait_until(lambda: graph.now_ns() == stamp_ns, "the time")  # noqa: B023
            assert not graph.is_time_paused()
        wait_until(graph.is_time_paused, "the pause", timeout_s=5.0)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_bag_may_begin_again_and_be_paused(adapter: str, frames: list[Frame]) -> None:
    """Stamps and clock jump back: a new segment, and the age of images is theirs on the clock of the bag."""
    told = [*remap(image="/camera/image"), "-p", "use_sim_time:=true"]
    changes = settings(node__qos="reliable", node__publish_unscaled=True)
    node = LiveNode(*told, adapter=adapter, **changes)
    with (
        node,
        LiveCamera() as camera,
        Consumer([STATUS, KEYFRAME, PATH, DIAGNOSTICS]) as consumer,
        simulator() as other,
    ):
        clock = Clock(other)
        camera.wait_for_node()
        consumer.wait_for_node()

        def play(stamps_s: list[float], late_s: float = 0.0) -> None:
            for frame, stamp_s in zip(frames, stamps_s, strict=False):
                clock.tick(round((stamp_s + late_s) * SECOND_NS))
                time.sleep(0.1)  # the clock must be there before the image
                camera.send(frame, round(stamp_s * SECOND_NS))
                time.sleep(0.2)

        loop_s = [100.0, 100.5, 101.0, 101.5]
        for number in (1, 2):
            play(loop_s)
            consumer.wait_for(STATUS, number * len(loop_s))
        play([101.6], late_s=3.0)
        values = consumer.wait_for_diagnostics(lambda values: "dropped_too_old" in values, "an image that is too old")
        values = consumer.wait_for_diagnostics(lambda values: values["time_paused"] == "true", "the pause")
        time.sleep(3.0)
        values = consumer.diagnostics()
        assert node.interrupt()[0] == 0
        assert "Traceback" not in node.log
    assert [message.status[0].message for message in consumer.messages[STATUS]] == ["FIRST_FRAME", "OK", "OK", "OK"] * 2
    reasons = [message.status[0].message for message in consumer.messages[KEYFRAME]]
    assert reasons[0] == "FIRST_FRAME" and reasons.count("TIME_JUMP") == 1
    assert {len(path.poses) for path in consumer.messages[PATH] if path.header.stamp.sec == 100} == {1}
    assert (values["time_jumps"], values["dropped_too_old"], values["other_clock"]) == ("1", "1", "false")
    assert values["message"] == "OK", "nobody complains of silence while time stands still"


@pytest.mark.ros
@NEEDS_RCLPY
def test_tf_of_before_is_forgotten_when_a_bag_begins_again() -> None:
    """tf keeps ten seconds and passes over what is older, which after a jump back would be all that comes.

    What stands still stays known.
    """
    kind = "tf2_msgs/msg/TFMessage"
    mount = pose_from(np.eye(3), [0, 0, 0.5])
    with simulator() as other, graph_of("rclpy", "node", use_sim_time=True) as graph:
        clock, moving = Clock(other), other.advertise("/tf", kind, RELIABLE)
        static = other.advertise("/tf_static", kind, LATCHED)
        static.publish(other.make(kind, transforms=[transform_to(other.make, "camera", "lens", mount)]))

        def x_of_camera(stamp_ns: int, x_m: float) -> float | None:
            pose = transform_to(other.make, "base_link", "camera", pose_from(np.eye(3), [x_m, 0, 0]), stamp_ns)
            moving.publish(other.make(kind, transforms=[pose]))
            found = graph.transform("base_link", "camera", stamp_ns)
            return None if found is None else float(found[0, 3])

        for stamp_ns, x_m in ((100 * SECOND_NS, 1.0), (5 * SECOND_NS, 2.0)):
            clock.tick(stamp_ns)
            wait_until(lambda: graph.now_ns() == stamp_ns, "the time")  # noqa: B023
            for _ in range(3):  # as if they had been on their way
                x_of_camera(100 * SECOND_NS, 1.0)
            wait_until(lambda: x_of_camera(stamp_ns, x_m) == x_m, "the transform", timeout_s=5.0)  # noqa: B023
            found = graph.transform("camera", "lens", stamp_ns)
            assert found is not None
            np.testing.assert_allclose(found, mount)

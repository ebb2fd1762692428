"""The node of rclpy in a process of its own: its life, its parameters, its services, its names and its end.

The camera and the consumer are processes without ROS, so that each of these tests crosses from one to the other.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")
pytest.importorskip("rclpy", reason="needs a sourced ROS 2 environment")

import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from live_harness import PATIENCE_S, RCLPY_NODE, Consumer, LiveCamera, LiveNode, liar, remap, settings, wait_until
from rcl_interfaces.msg import Parameter, ParameterDescriptor
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter as RclpyParameter
from std_srvs.srv import Trigger

from feature_matcher_ros.config import iterate_parameters
from feature_matcher_ros.datatypes import Frame
from feature_matcher_ros.node_config import LiveConfig
from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.names import NodeName
from feature_matcher_ros.ros.topics import CORRESPONDENCES, DIAGNOSTICS, KEYFRAME, STATUS, Topic

pytestmark = pytest.mark.ros

LISTENING = remap(image="/camera/image")
PLAIN = settings(node__qos="reliable", node__max_frame_age_ms=0, node__startup_timeout_s=2.0)


class Operator:
    """Calls the services of the node, as ros2 lifecycle, ros2 param and ros2 service do."""

    def __init__(self, node: str = "/feature_matcher") -> None:
        self._name = node
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = Node("operator", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def call(self, kind: type, name: str, **fields: Any) -> Any:
        client = self._node.create_client(kind, f"{self._name}/{name}")
        try:
            assert client.wait_for_service(PATIENCE_S), name
            future = client.call_async(kind.Request(**fields))  # type: ignore[attr-defined]
            self._executor.spin_until_future_complete(future, PATIENCE_S)
            assert future.done(), f"{name} does not answer"
            return future.result()
        finally:
            self._node.destroy_client(client)

    def change(self, transition: int) -> bool:
        return bool(self.call(ChangeState, "change_state", transition=Transition(id=transition)).success)

    def state(self) -> int:
        return int(self.call(GetState, "get_state").current_state.id)

    def set(self, **values: Any) -> tuple[bool, str]:
        """Set parameters, "__" for the dot; the first that is refused counts."""
        named = [RclpyParameter(name.replace("__", "."), value=value) for name, value in values.items()]
        parameters: list[Parameter] = [parameter.to_parameter_msg() for parameter in named]
        results = self.call(SetParameters, "set_parameters", parameters=parameters).results
        refused = [result for result in results if not result.successful]
        return (False, refused[0].reason) if refused else (True, "")

    def get(self, name: str) -> Any:
        [value] = self.call(GetParameters, "get_parameters", names=[name]).values
        return rclpy.parameter.parameter_value_to_python(value)

    def describe(self, *names: str) -> list[ParameterDescriptor]:
        return list(self.call(DescribeParameters, "describe_parameters", names=names).descriptors)

    def trigger(self, name: str) -> tuple[bool, str]:
        answer = self.call(Trigger, name)
        return answer.success, answer.message

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


@pytest.fixture
def operator() -> Iterator[Operator]:
    found = Operator()
    yield found
    found.close()


def show(camera: LiveCamera, consumer: Consumer, frames: list[Frame]) -> list[str]:
    """Send frames one by one and return what the node said of each."""
    for frame in frames:
        count = len(consumer.messages[STATUS])
        camera.send(frame)
        consumer.wait_for(STATUS, count + 1)
    return [message.status[0].message for message in consumer.messages[STATUS][-len(frames) :]]


def test_it_goes_through_its_life_twice(operator: Operator, frames: list[Frame]) -> None:
    with (
        LiveNode(*LISTENING, adapter="rclpy", autostart=False, **PLAIN) as node,
        LiveCamera() as camera,
        Consumer([STATUS, CORRESPONDENCES]) as consumer,
    ):
        assert operator.state() == State.PRIMARY_STATE_UNCONFIGURED
        assert operator.trigger("reset") == (False, "the node is not configured.")
        for _ in range(2):
            assert operator.change(Transition.TRANSITION_CONFIGURE)
            assert operator.state() == State.PRIMARY_STATE_INACTIVE
            consumer.wait_for_node()
            assert not camera.has_listeners()
            for _ in range(2):
                assert operator.change(Transition.TRANSITION_ACTIVATE)
                camera.wait_for_node()
                assert show(camera, consumer, frames[:3]) == ["FIRST_FRAME", "OK", "OK"]
                assert operator.change(Transition.TRANSITION_DEACTIVATE)
                wait_until(lambda: not camera.has_listeners(), "the end of its subscriptions")
            assert operator.change(Transition.TRANSITION_CLEANUP)
            wait_until(lambda: not consumer.has_node(), "the end of its topics")
        assert operator.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        assert operator.state() == State.PRIMARY_STATE_FINALIZED
        assert node.interrupt()[0] == 0
    assert len(consumer.messages[CORRESPONDENCES]) == 8


def test_a_configuration_that_fails_leaves_it_unconfigured_and_says_why(operator: Operator, tmp_path: Path) -> None:
    changes = {"matcher__name": "lightglue", "matcher__graphs": str(tmp_path)}
    with LiveNode(adapter="rclpy", autostart=False, **changes) as node:
        assert not operator.change(Transition.TRANSITION_CONFIGURE)
        assert operator.state() == State.PRIMARY_STATE_UNCONFIGURED
        assert not operator.change(Transition.TRANSITION_ACTIVATE)  # which is answered, though there is no such way
        wait_until(lambda: "the state cannot be changed" in node.log, "the refusal")
        wait_until(lambda: f"{tmp_path}" in node.log and "[ERROR]" in node.log, "the reason")
        assert operator.set(matcher__name="mutual_nearest") == (True, "")
        assert operator.change(Transition.TRANSITION_CONFIGURE)


def test_parameters_change_at_run_time_where_they_can(operator: Operator, frames: list[Frame]) -> None:
    with (
        LiveNode(*LISTENING, adapter="rclpy", **PLAIN),
        LiveCamera() as camera,
        Consumer([STATUS, KEYFRAME]) as consumer,
    ):
        camera.wait_for_node()
        consumer.wait_for_node()
        assert show(camera, consumer, frames[:2]) == ["FIRST_FRAME", "OK"]
        assert operator.set(pose__min_inliers=5000) == (True, "")
        assert show(camera, consumer, frames[2:3]) == ["TOO_FEW_INLIERS"]
        assert operator.set(pose__min_inliers=12, matcher__match_budget_ms=20) == (True, "")
        assert show(camera, consumer, frames[3:4]) == ["OK"]
        assert operator.set(keyframes__match_every_frame=False, keyframes__max_interval_ms=1e6) == (True, "")
        assert "GATED" in show(camera, consumer, [frames[3]])
        refused = operator.set(extractor__max_keypoints=77, node__modality="stereo")
        assert refused == (
            False,
            "extractor.max_keypoints cannot change while the node is configured: clean it up before.",
        )
        assert operator.get("extractor.max_keypoints") == 400
        ok, reason = operator.set(matcher__max_ratio=7.0)
        assert not ok and "out of range" in reason
        ok, reason = operator.set(pose__min_inliers="many")
        assert (ok, reason) == (False, "pose.min_inliers = 'many' is not of type int: correct the value.")
        assert operator.set(autostart=False)[0] is False
        assert operator.get("pose.min_inliers") == 12
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
            assert operator.change(transition)
        assert operator.set(extractor__max_keypoints=77) == (True, "")
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            assert operator.change(transition)
        camera.wait_for_node()
        show(camera, consumer, frames[:1])


def test_what_ros2_param_dumps_starts_another_node(operator: Operator, tmp_path: Path) -> None:
    """Of rclpy, and without ROS."""
    with LiveNode(*LISTENING, adapter="rclpy", **PLAIN) as node:
        node.wait_until_it_listens()
        command = ["ros2", "param", "dump", "/feature_matcher"]
        dumped = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout
        assert operator.set(matcher__confidence_thresholds="None") == (True, "")  # as ``ros2 param load`` sends it
    path = tmp_path / "dumped.yaml"
    path.write_text(dumped)
    assert "confidence_thresholds: null" in dumped
    for adapter in ("rclpy", "dds"):
        with LiveNode(*LISTENING, "--params-file", str(path), adapter=adapter) as node:
            node.wait_until_it_listens()
            assert "listens to /camera/image" in node.log


def test_every_parameter_is_described(operator: Operator) -> None:
    known = list(iterate_parameters(LiveConfig()))
    with LiveNode(adapter="rclpy", autostart=False):
        described = operator.describe(*(entry.path for entry in known), "autostart")
        for entry, descriptor in zip(known, described[:-1], strict=True):
            assert entry.info.help in descriptor.description
        assert described[-1].read_only and described[-1].description
        by_name = {descriptor.name: descriptor for descriptor in described}
        [bounds] = by_name["matcher.max_ratio"].floating_point_range
        assert (bounds.from_value, bounds.to_value) == (0.0, 1.0)
        [bounds] = by_name["pose.max_iterations"].integer_range
        assert (bounds.from_value, bounds.to_value) == (10, 1_000_000)
        assert by_name["node.qos"].additional_constraints == "can be set while the node is unconfigured"
        assert by_name["pose.max_iterations"].additional_constraints == ""
        for entry in known:
            expected = list(entry.default) or None if isinstance(entry.default, tuple) else entry.default
            assert operator.get(entry.path) == expected, entry.path


def test_its_services(operator: Operator, frames: list[Frame], tmp_path: Path) -> None:
    node = LiveNode(*LISTENING, adapter="rclpy", **PLAIN, node__report_folder=tmp_path)
    with node, LiveCamera() as camera, Consumer([STATUS, DIAGNOSTICS]) as consumer:
        camera.wait_for_node()
        consumer.wait_for_node()
        assert show(camera, consumer, frames[:2]) == ["FIRST_FRAME", "OK"]
        assert operator.trigger("reset") == (True, "the next frame begins a new segment.")
        assert show(camera, consumer, frames[2:4]) == ["FIRST_FRAME", "OK"]
        consumer.wait_for_diagnostics(lambda values: values["processed"] == "4", "four frames")
        ok, path = operator.trigger("save_report")
        assert ok and Path(path).parent == tmp_path
        report = json.loads(Path(path).read_text())
        assert report["node"] == "/feature_matcher"
        assert report["cameras"]["camera"]["processed"] == "4"
        assert report["parameters"]["extractor.name"] == "orb"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-p", "keyframes.min_paralax_px:=3.0"], "unknown parameter 'keyframes.min_paralax_px': did you mean"),
        (["-p", "matcher.max_ratio:=3.0"], "matcher.max_ratio = 3.0 is out of range: give a value of 0 to 1."),
        (["-p", "node.mount_rotation_deg:=45"], "node.mount_rotation_deg = 45 is not 0, 90, 180 or 270."),
        (["-p", "autostart:=maybe"], "autostart = 'maybe' is not of type bool"),
        (["-p", "nonsense"], "nonsense"),
        (["-r", "image:=not a topic"], "not a topic"),
        (["-p", "node.image_topic:=9lives"], "'9lives' is no name of a topic"),
        (["-p", "node.calibration:=/nowhere.yaml"], "/nowhere.yaml"),
    ],
)
def test_what_is_wrong_from_the_beginning_ends_it_with_a_sentence(arguments: list[str], sentence: str) -> None:
    command = [*RCLPY_NODE, "--ros-args", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert sentence in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_names_are_remapped_and_two_nodes_live_in_one_domain(frames: list[Frame]) -> None:
    """One of rclpy, one without; the first under another name, in a namespace."""
    named = ["-r", "__ns:=/robot", "-r", "__node:=eyes", "-r", "~/correspondences:=/points"]
    status = Topic("/robot/eyes/status", STATUS.type_name)
    points = Topic("/points", CORRESPONDENCES.type_name)
    with (
        LiveNode(*LISTENING, *named, "-r", "/robot/image:=/camera/image", adapter="rclpy", **PLAIN),
        LiveNode(*LISTENING, **PLAIN),
        LiveCamera() as camera,
        Consumer([status, points, STATUS, CORRESPONDENCES]) as consumer,
    ):
        consumer.wait_for_node()
        wait_until(lambda: camera.num_listeners() == 2, "both nodes")
        for number in range(3):
            camera.send(frames[number])
            consumer.wait_for(status, number + 1)
            consumer.wait_for(STATUS, number + 1)
        consumer.wait_for(points, 2)
        consumer.wait_for(CORRESPONDENCES, 2)
    for one, other in zip(consumer.messages[points], consumer.messages[CORRESPONDENCES], strict=True):
        assert bytes(one.data) == bytes(other.data), "both adapters say the same of the same images"


def test_bytes_that_are_no_message_are_counted_and_passed_over(frames: list[Frame]) -> None:
    with (
        LiveNode(*LISTENING, adapter="rclpy", **PLAIN),
        LiveCamera() as camera,
        Consumer([STATUS, DIAGNOSTICS]) as consumer,
        DdsGraph(NodeName("vandal")) as vandal,
    ):
        camera.wait_for_node()
        consumer.wait_for_node()
        garbage = liar(vandal, "/camera/image", "sensor_msgs/msg/Image")
        wait_until(garbage.has_subscribers, "a node that listens")
        show(camera, consumer, frames[:1])
        garbage.publish_cdr(b"\0\1\0\0\5\0\0\0junk\0")
        consumer.wait_for_diagnostics(lambda values: values["damaged"] == "1", "the damage")
        assert show(camera, consumer, frames[1:3]) == ["OK", "OK"]


def test_what_is_missing_is_explained(frames: list[Frame]) -> None:
    """A subscription that asks for more than is offered never hears anything; so it is with another name."""
    with LiveCamera(reliable=False), LiveNode(*LISTENING, adapter="rclpy", **PLAIN) as node:
        wait_until(lambda: "its publisher is best effort and the node asks for reliable" in node.log, "the reason")
    with LiveCamera(), LiveNode(adapter="rclpy", **PLAIN) as node:
        wait_until(lambda: "remap it with -r image:=/camera/image" in node.log, "the reason")


def test_with_auto_it_asks_for_what_is_offered(frames: list[Frame]) -> None:
    changes = PLAIN | {"node__qos": "auto"}
    with LiveNode(*LISTENING, adapter="rclpy", **changes), Consumer([STATUS]) as consumer:
        consumer.wait_for_node()
        for reliable in (True, False):
            with LiveCamera(reliable=reliable) as camera:
                camera.wait_for_node()
                deadline = time.monotonic() + PATIENCE_S
                count = len(consumer.messages[STATUS])
                while len(consumer.messages[STATUS]) == count:
                    assert time.monotonic() < deadline
                    camera.send(frames[0])
                    time.sleep(0.3)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly_at_work(frames: list[Frame], number: signal.Signals, times: int) -> None:
    """Also when it comes twice, as ``ros2 launch`` sends it."""
    with LiveNode(*LISTENING, adapter="rclpy", **PLAIN) as node, LiveCamera() as camera:
        node.wait_until_it_listens()
        camera.wait_for_node()
        for frame in frames[:6]:
            camera.send(frame)
            time.sleep(0.02)
        if times == 2:
            node.process.send_signal(number)
        code, seconds = node.interrupt(number)
        assert code == 0 and seconds < 2.0 and "Traceback" not in node.log


def test_a_signal_ends_it_while_it_still_loads(frames: list[Frame]) -> None:
    with LiveNode(adapter="rclpy", matcher__name="lightglue", extractor__max_keypoints=2048) as node:
        wait_until(lambda: _threads(node.process.pid) > 3, "a node that starts")
        code, _ = node.interrupt()
        assert code == 0 and "Traceback" not in node.log


def test_a_signal_ends_it_while_python_still_imports() -> None:
    script = """
import importlib.abc, sys, time
from feature_matcher_ros.cli_live import front_end_node
class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "feature_matcher_ros.ros.rclpy_node":
            print("imports", flush=True)
            time.sleep(1)
sys.meta_path.insert(0, Slow())
front_end_node()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "imports\n"
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and "Traceback" not in said


def _threads(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("Threads")).split()[1])

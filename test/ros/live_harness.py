"""What the live tests share: a node in a process of its own, a camera, and a consumer."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType, new_class
from typing import Any

import numpy as np
import pytest
from cyclonedds.idl import IdlStruct

from feature_matcher_ros.datatypes import Camera, Frame
from feature_matcher_ros.ros.dds_endpoints import DdsPublisher
from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.dds_types import DdsTypes, dds_type_name
from feature_matcher_ros.ros.graph import RELIABLE, Graph, QosProfile
from feature_matcher_ros.ros.messages import MessageFactory, make_header
from feature_matcher_ros.ros.names import NodeName
from feature_matcher_ros.ros.topics import DIAGNOSTICS, Topic

# Small and fast: ORB with nearest neighbours, few points, every frame matched.
ORB = {"extractor.name": "orb", "matcher.name": "mutual_nearest"}
FAST = ORB | {"extractor.max_keypoints": 400, "keyframes.match_every_frame": True}
KEEP_ALL = QosProfile(is_reliable=True, depth=0)
PATIENCE_S = 40.0
# Both adapters of the graph, where a test is the same for either.
HAS_RCLPY = importlib.util.find_spec("rclpy") is not None
NEEDS_RCLPY = pytest.mark.skipif(not HAS_RCLPY, reason="needs a sourced ROS 2 environment")
NEEDS_BAG = pytest.mark.skipif(not importlib.util.find_spec("ros2bag"), reason="needs `ros2 bag`, of rosbag2")
ADAPTERS = ("dds", pytest.param("rclpy", marks=[pytest.mark.ros, NEEDS_RCLPY]))
# What ``ros2 run feature_matcher_ros front_end_node`` runs, without a workspace that was built.
RCLPY_NODE = [sys.executable, "-u", "-c", "from feature_matcher_ros.cli_live import front_end_node; front_end_node()"]


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)


class LiveNode:
    """The node in a process of its own: ``feature-matcher live``, or the one of rclpy."""

    def __init__(self, *ros_arguments: str, adapter: str = "dds", **settings: object) -> None:
        values = {name.replace("__", "."): value for name, value in settings.items()}
        if adapter == "dds":
            command = [sys.executable, "-u", "-m", "feature_matcher_ros.cli", "live"]
            command += [text for name, value in values.items() for text in ("--set", f"{name}={value}")]
            command += ["--ros-args", *ros_arguments] if ros_arguments else []
        else:
            command = [*RCLPY_NODE, "--ros-args", *ros_arguments]
            command += [text for name, value in values.items() for text in ("-p", f"{name}:={_yaml(value)}")]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed on leaving
        self.process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, env={**os.environ})

    @property
    def log(self) -> str:
        self._log.seek(0)
        return " ".join(self._log.read().split())  # the console wraps lines

    def wait_until_it_listens(self) -> None:
        """By what it says itself: endpoints of one that was ended in the middle of a frame stay for a while."""
        wait_until(lambda: "listens to" in self.log, "a node that listens")

    def interrupt(self, number: int = signal.SIGINT) -> tuple[int, float]:
        """End it; returns its exit code and how many seconds that took."""
        begun = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S), time.monotonic() - begun

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    def __enter__(self) -> "LiveNode":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # who is killed stays in the graph for a while
            try:
                self.process.wait(PATIENCE_S / 4)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if kind is not None:
            sys.stderr.write(self.log)
        self._log.close()


class Consumer:
    """Listens to the node and keeps all it says."""

    def __init__(self, topics: Iterable[Topic], node: str = "/feature_matcher", qos: QosProfile = KEEP_ALL) -> None:
        self._graph = DdsGraph(NodeName("consumer"))
        self._node = node.lstrip("/")
        self._lock = threading.Lock()
        self.messages: dict[Topic, list[Any]] = defaultdict(list)
        self.arrived_ns: dict[Topic, list[int]] = defaultdict(list)
        self.damaged: list[Exception] = []
        self._subscriptions = {
            topic: self._graph.subscribe(
                topic.name.replace("~", node, 1), topic.type_name, qos, self._keeper(topic), self.damaged.append
            )
            for topic in topics
        }

    def wait_for_node(self) -> None:
        wait_until(lambda: all(s.num_publishers() for s in self._subscriptions.values()), "the node's topics")

    def has_node(self) -> bool:
        return any(s.num_publishers() for s in self._subscriptions.values())

    def wait_for(self, topic: Topic, count: int, timeout_s: float = PATIENCE_S) -> None:
        wait_until(lambda: len(self.messages[topic]) >= count, f"{count} messages on {topic.name}", timeout_s)

    def reports(self) -> list[Any]:
        """The messages on /diagnostics of nodes that have started."""
        return [message for message in self.messages[DIAGNOSTICS] if not message.status[0].name.endswith(": start")]

    def diagnostics(self) -> dict[str, str]:
        """The newest values that the node told on /diagnostics, of its first camera; empty before it has started."""
        statuses = [message.status[0] for message in self.reports()]
        own = [status for status in statuses if status.name.startswith(f"{self._node}: ")]
        return {value.key: value.value for value in own[-1].values} | {"message": own[-1].message} if own else {}

    def wait_for_diagnostics(self, condition: Callable[[dict[str, str]], bool], what: str) -> dict[str, str]:
        wait_until(lambda: bool(self.diagnostics()) and condition(self.diagnostics()), what)
        return self.diagnostics()

    def _keeper(self, topic: Topic) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            now_ns = time.time_ns()
            with self._lock:
                self.messages[topic].append(message)
                self.arrived_ns[topic].append(now_ns)

        return keep

    def __enter__(self) -> "Consumer":
        return self

    def __exit__(self, *_: object) -> None:
        self._graph.close()


class LiveCamera:
    """A camera's driver: publishes images and CameraInfo."""

    def __init__(self, name: str = "camera", reliable: bool = True, namespace: str = "") -> None:
        self.graph = DdsGraph(NodeName(name))
        qos = QosProfile(reliable, depth=5)
        self.make = self.graph.make
        self._images = self.graph.advertise(f"{namespace}/camera/image", "sensor_msgs/msg/Image", qos)
        self._infos = self.graph.advertise(f"{namespace}/camera/camera_info", "sensor_msgs/msg/CameraInfo", qos)

    def wait_for_node(self) -> None:
        wait_until(lambda: self._images.has_subscribers() and self._infos.has_subscribers(), "a node that listens")

    def has_listeners(self) -> bool:
        return self._images.has_subscribers() or self._infos.has_subscribers()

    def num_listeners(self) -> int:
        return int(self._images.writer.get_publication_matched_status().current_count)

    def send(self, frame: Frame, stamp_ns: int | None = None, **changes: Any) -> None:
        self.send_info(frame.camera)
        self.send_image(frame, stamp_ns, **changes)

    def send_image(self, frame: Frame, stamp_ns: int | None = None, **changes: Any) -> None:
        height, width = frame.image.shape[:2]
        fields = {
            "header": make_header(self.make, time.time_ns() if stamp_ns is None else stamp_ns, frame.frame_id),
            "height": height,
            "width": width,
            "encoding": "mono8",
            "is_bigendian": 0,
            "step": width,
            "data": frame.image.reshape(-1),
        }
        self._images.publish(self.make("sensor_msgs/msg/Image", **(fields | changes)))

    def send_info(self, camera: Camera) -> None:
        self.publish_info(info_message(self.make, camera))

    def publish_info(self, message: Any) -> None:
        self._infos.publish(message)

    def close(self) -> None:
        self.graph.close()

    def __enter__(self) -> "LiveCamera":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def graph_of(adapter: str, name: str, *, use_sim_time: bool = False) -> Iterator[Graph]:
    """A node in this process."""
    if adapter == "dds":
        with DdsGraph(NodeName(name), use_sim_time=use_sim_time) as graph:
            yield graph
        return
    from rclpy_harness import rclpy_graph

    with rclpy_graph(name, use_sim_time=use_sim_time) as other:
        yield other


def liar(graph: DdsGraph, topic: str, type_name: str) -> DdsPublisher:
    """A publisher that announces a type and may send the bytes of a string, which Cyclone DDS then lets pass."""
    body = {"__annotations__": {"data": str}, "__module__": __name__}
    described = DdsTypes(graph.make.typestore)
    keywords = {"typename": dds_type_name(type_name)}
    described._made[type_name] = dataclass(new_class("Liar_", (IdlStruct,), keywords, lambda names: names.update(body)))
    return DdsPublisher(graph._participant, graph.make, described, topic, type_name, RELIABLE)


def _yaml(value: object) -> str:
    """A value as ROS reads it on the command line; text in quotes, that it stays text."""
    return json.dumps(value) if isinstance(value, (bool, int, float)) else f"'{value}'"


def info_message(make: MessageFactory, camera: Camera) -> Any:
    """The CameraInfo of a camera without a lens that distorts."""
    return make(
        "sensor_msgs/msg/CameraInfo",
        header=make_header(make, time.time_ns(), "camera"),
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=camera.K.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([camera.K, np.zeros((3, 1))]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )


def settings(**changes: object) -> dict[str, object]:
    """The fast settings, as keyword arguments."""
    return {name.replace(".", "__"): value for name, value in FAST.items()} | changes


def remap(**topics: str) -> list[str]:
    return [text for name, topic in topics.items() for text in ("-r", f"{name.replace('__', '/')}:={topic}")]

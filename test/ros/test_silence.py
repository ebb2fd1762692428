"""What is said of a camera that gives no frame: first of one that never gave any, then of one that gave some before."""

import threading
from typing import Any

import pytest

pytest.importorskip("cyclonedds", reason="the harness of live tests needs cyclonedds")

from live_harness import ADAPTERS, ORB, Consumer, LiveNode, graph_of, info_message, remap, settings, wait_until
from recording_graph import RecordingGraph

from feature_matcher_ros.config import override
from feature_matcher_ros.datatypes import Frame
from feature_matcher_ros.evaluation.bag_topics import CAMERA_INFO, IMAGE
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.node_config import LiveConfig, NodeConfig
from feature_matcher_ros.ros import silence as silence_module
from feature_matcher_ros.ros.camera_input import CameraInput
from feature_matcher_ros.ros.conversions import image_message
from feature_matcher_ros.ros.graph import LATCHED, RELIABLE, SENSOR_DATA, Endpoint
from feature_matcher_ros.ros.live_camera import LiveCamera
from feature_matcher_ros.ros.silence import Silence
from feature_matcher_ros.ros.topics import STATUS

HERE = [Endpoint("/image", IMAGE, RELIABLE), Endpoint("/camera_info", CAMERA_INFO, RELIABLE)]
CONFIG = override(LiveConfig(), ORB | {"node.qos": "reliable", "node.max_frame_age_ms": 0.0})


class Scene:
    """A camera that is open, and what has been said of its silence; nobody works but by ``work``."""

    def __init__(self, frame: Frame, config: LiveConfig = CONFIG) -> None:
        self.graph, self._frame, self._changed = RecordingGraph(HERE), frame, threading.Condition()
        self.graph.time_ns = 10**18
        source = CameraInput(self.graph, config.node, "", self._changed)
        self.camera = LiveCamera(self.graph, config.node, source, FrontEnd(config, create_matcher(config)))
        source.open()
        self._stamp_ns = self.graph.time_ns
        self.silence = Silence(self.camera, timeout_s=0.0)

    def show(self, count: int = 1, encoding: str = "mono8") -> None:
        for _ in range(count):
            self._stamp_ns += 10_000_000
            message = image_message(self.graph.make, self._stamp_ns, "camera", self._frame.image)
            message.encoding = encoding
            self.graph.tell("/image", message)

    def calibrate(self) -> None:
        self.graph.tell("/camera_info", info_message(self.graph.make, self._frame.camera))

    def work(self) -> None:
        with self._changed:
            bundle = self.camera.input.take()
        if bundle is not None:
            self.camera.process(bundle)

    def said(self) -> str:
        self.silence.follow(is_paused=False)
        return self.silence.explain(self.graph)


@pytest.fixture
def scene(frames: list[Frame]) -> Scene:
    return Scene(frames[0])


def test_a_camera_that_returns_with_other_policies_is_explained(scene: Scene) -> None:
    scene.calibrate()
    scene.show()
    scene.work()
    scene.silence.follow(is_paused=False)
    scene.graph.endpoints = []
    assert scene.said() == (
        "no image on /image (sensor_msgs/msg/Image): nobody publishes it any more: start the camera again."
    )
    scene.graph.endpoints = [Endpoint("/image", IMAGE, SENSOR_DATA)]
    assert "its publisher is best effort and the node asks for reliable" in scene.said()


def test_the_reason_is_that_of_the_newest_images(scene: Scene) -> None:
    """Hundreds were replaced while CameraInfo was awaited, which explains nothing any more."""
    scene.show(300)
    assert scene.said().startswith("no CameraInfo of the image on /camera_info")
    scene.calibrate()
    scene.work()
    scene.silence.follow(is_paused=False)
    for _ in range(3):
        scene.show(encoding="jpg8")
        scene.work()
    assert scene.said() == (
        "3 images came since the last one that could be used: they cannot be decoded, see the warning above."
    )


def test_a_bag_that_is_played_without_its_clock_is_told_from_a_camera(frames: list[Frame]) -> None:
    scene = Scene(frames[0], override(CONFIG, {"node.max_frame_age_ms": 500.0}))
    scene.calibrate()
    scene.graph.time_ns += 600_000_000_000  # recorded ten minutes ago
    scene.show()
    scene.work()
    assert "with a bag play it with --clock and set use_sim_time" in scene.said()


def test_a_slow_front_end_is_not_called_silence(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a frame is processed, or waits for another camera's: unless that takes for ever."""
    scene.calibrate()
    scene.show()
    assert scene.camera.is_at_work and scene.said() == ""  # there is no time for it as yet
    scene.work()
    assert not scene.camera.is_at_work
    scene.silence = Silence(scene.camera, timeout_s=0.0)
    said: list[str] = []

    def measure(frame: Frame) -> None:
        for stuck_s in (30.0, 0.0):
            monkeypatch.setattr(silence_module, "_STUCK_S", stuck_s)
            said.append(scene.said())
        raise RuntimeError("the front-end hung")

    monkeypatch.setattr(scene.camera.front_end, "process", measure)
    scene.show(3)
    scene.work()
    assert said == ["", "3 images came and none is processed yet: the front-end may still be at the first one."]
    assert not scene.camera.is_at_work
    assert (
        scene.said()
        == "3 images came since the last one that could be used: the front-end failed, see the error above."
    )


def test_calibration_is_asked_for_as_it_is_offered(frames: list[Frame]) -> None:
    def qos() -> Any:
        (found,) = (s.qos for s in graph.subscriptions if s.is_open and s.topic == "/camera_info")
        return found

    graph = RecordingGraph()
    camera = CameraInput(graph, NodeConfig(), "", threading.Condition())
    camera.open()
    assert qos() == SENSOR_DATA
    for offered, asked in ((RELIABLE, SENSOR_DATA), (LATCHED, LATCHED), (SENSOR_DATA, SENSOR_DATA), (LATCHED, LATCHED)):
        graph.endpoints = [Endpoint("/camera_info", CAMERA_INFO, offered)]
        camera.follow_publishers()
        assert qos() == asked
    graph.tell("/camera_info", info_message(graph.make, frames[0].camera))
    camera.follow_publishers()
    assert qos() == SENSOR_DATA  # which also hears a camera that returns with another policy


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_calibration_that_was_published_once_is_heard(adapter: str, frames: list[Frame]) -> None:
    node = LiveNode(*remap(image="/camera/image"), adapter=adapter, **settings(node__max_frame_age_ms=0))
    with graph_of("dds", "camera") as graph, Consumer([STATUS]) as consumer:
        info = graph.advertise("/camera/camera_info", CAMERA_INFO, LATCHED)
        info.publish(info_message(graph.make, frames[0].camera))
        images = graph.advertise("/camera/image", IMAGE, RELIABLE)
        with node:
            wait_until(images.has_subscribers, "a node that listens")
            for number in range(1, 200):
                images.publish(image_message(graph.make, number * 10**9, "camera", frames[0].image))
                if consumer.messages[STATUS]:
                    break
                threading.Event().wait(0.1)
    assert consumer.messages[STATUS][0].status[0].message == "FIRST_FRAME"

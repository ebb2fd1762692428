"""The server and its cameras, above a graph without a middleware: what fails, and what is said of it."""

import logging
import threading
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="the harness of live tests needs cyclonedds")

from live_harness import ORB, PATIENCE_S, info_message, wait_until
from recording_graph import RecordingGraph

from feature_matcher_ros.config import FrontEndConfig, override
from feature_matcher_ros.datatypes import Camera, Frame
from feature_matcher_ros.errors import FeatureMatcherError, MatcherError
from feature_matcher_ros.evaluation.bag_topics import CAMERA_INFO, IMAGE
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.node_config import LiveConfig, NodeConfig
from feature_matcher_ros.ros import server as server_module
from feature_matcher_ros.ros.camera_input import CameraInput
from feature_matcher_ros.ros.conversions import image_message
from feature_matcher_ros.ros.frame_ledger import DropReason
from feature_matcher_ros.ros.frame_statistics import FrameRecord
from feature_matcher_ros.ros.graph import RELIABLE, Endpoint
from feature_matcher_ros.ros.live_camera import LiveCamera
from feature_matcher_ros.ros.live_rig import Role
from feature_matcher_ros.ros.server import Server
from feature_matcher_ros.ros.startup_check import explain_silence
from feature_matcher_ros.ros.synchronizer import Bundle

ALWAYS = override(FrontEndConfig(), ORB | {"keyframes.match_every_frame": True})
DIAGNOSTICS = "/diagnostics"
BLANK = Frame(1, np.zeros((48, 64), np.uint8), Camera(np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), 64, 48))


def live_camera(graph: RecordingGraph, frame: Frame, matcher: Any = None) -> LiveCamera:
    """A camera whose CameraInfo has come."""
    config = NodeConfig()
    source = CameraInput(graph, config, "", threading.Condition())
    source.rig.hear_info(Role.IMAGE, info_message(graph.make, frame.camera))
    return LiveCamera(graph, config, source, FrontEnd(ALWAYS, matcher))


def show(graph: RecordingGraph, camera: LiveCamera, frame: Frame, stamp_ns: int) -> None:
    camera.process(Bundle(stamp_ns, image_message(graph.make, stamp_ns, "camera", frame.image)))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"node.mask": "/no/mask.png"}, "cannot read the mask"),
        ({"node.calibration": "/no/calibration.yaml"}, "/no/calibration.yaml"),
        ({"node.namespaces": "left, left"}, "names 'left' twice"),
        ({"node.mask_topic": "bad name"}, "'bad name' is no name of a topic"),
    ],
)
def test_what_is_wrong_is_said_before_networks_are_opened(
    values: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left open either, however often it is tried."""
    opened: list[object] = []
    monkeypatch.setattr(server_module, "create_matcher", opened.append)
    graph = RecordingGraph()
    for _ in range(2):
        server = Server(graph, override(LiveConfig(), ORB | values))
        with pytest.raises(FeatureMatcherError, match=sentence):
            server.configure()
        server.cleanup()
    status = graph.published(DIAGNOSTICS).messages[-1].status[0]
    assert status.level == 2 and status.message.startswith("FAILED: ") and sentence in status.message
    assert not opened and not any(publication.is_open for publication in graph.publications)


def test_an_activation_that_fails_may_be_tried_again() -> None:
    graph = RecordingGraph()
    server = Server(graph, override(LiveConfig(), ORB | {"node.namespaces": "left, right"}))
    server.configure()
    graph.refused = "/right/image"
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of resources"):
            server.activate()
        assert not graph.listened_to()
    assert server.deactivate()
    graph.refused = ""
    server.activate()
    topics = [f"/{side}/{name}" for side in ("left", "right") for name in ("camera_info", "image")]
    assert sorted(graph.listened_to()) == topics
    assert server.deactivate(PATIENCE_S) and not graph.listened_to()


class _Refusing:
    """A matcher that cannot use any image, for one reason."""

    name = "refusing"
    error: Exception = MatcherError("a descriptor is NaN")

    def extract(self, image: Any, mask: Any = None) -> Any:
        raise self.error

    def match(self, features0: Any, features1: Any) -> Any:
        raise self.error


def test_bad_frames_are_warned_of_once_and_hide_no_other_error(
    frames: list[Frame], caplog: pytest.LogCaptureFixture
) -> None:
    graph, matcher = RecordingGraph(), _Refusing()
    camera = live_camera(graph, frames[0], matcher)
    with caplog.at_level(logging.WARNING):
        for number in range(150):
            show(graph, camera, frames[0], 1 + number)
        matcher.error = RuntimeError("the GPU is gone")
        show(graph, camera, frames[0], 1000)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2, messages[:5]
    assert "a descriptor is NaN" in messages[0] and "the GPU is gone" in messages[1]
    assert camera.input.ledger.counts().dropped == {DropReason.FAILED: 151}


@pytest.mark.parametrize(("time_ns", "cause"), [(0, "nothing has come on /clock yet"), (1, "are of another clock")])
def test_a_clock_that_does_not_fit_is_told_from_one_that_was_never_heard(
    time_ns: int, cause: str, frames: list[Frame], caplog: pytest.LogCaptureFixture
) -> None:
    graph = RecordingGraph()
    graph.time_ns = time_ns
    camera = live_camera(graph, frames[0])
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            show(graph, camera, frames[0], (2 + number) * 3_600_000_000_000)
    (message,) = [record.getMessage() for record in caplog.records]
    assert cause in message


def test_a_reset_that_is_asked_for_during_a_reset_is_not_lost(
    frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = RecordingGraph()
    camera = live_camera(graph, frames[0])
    resets: list[int] = []

    def reset() -> None:
        resets.append(len(resets))
        if len(resets) == 1:
            camera.request_reset()  # as another thread may at this moment

    monkeypatch.setattr(camera.front_end, "reset", reset)
    camera.request_reset()
    for stamp_ns in (1, 2, 3):
        show(graph, camera, frames[0], stamp_ns)
    assert len(resets) == 2


def test_a_silent_camera_info_of_depth_is_named(frames: list[Frame]) -> None:
    """Somebody publishes one, so it is awaited; without it images wait for ever."""
    graph = RecordingGraph([Endpoint("/depth/camera_info", CAMERA_INFO, RELIABLE)])
    changed = threading.Condition()
    camera = CameraInput(graph, NodeConfig(modality="rgbd"), "", changed)
    camera.open()
    info = info_message(graph.make, frames[0].camera)
    graph.tell("/camera_info", info)
    for stamp_ns in range(1_000_000_000, 2_000_000_000, 100_000_000):
        for topic in ("/image", "/depth/image"):
            graph.tell(topic, image_message(graph.make, stamp_ns, "camera", frames[0].image))
    with changed:
        assert camera.take() is None
    (sentence,) = explain_silence(camera, graph.publishers())
    assert sentence.startswith("no CameraInfo of the depth on /depth/camera_info")
    assert "there is a publisher, but it sends nothing" in sentence
    graph.tell("/depth/camera_info", info)
    with changed:
        assert camera.take() is not None


def test_depth_whose_camera_info_nobody_publishes_is_not_waited_for(frames: list[Frame]) -> None:
    graph = RecordingGraph([Endpoint(topic, IMAGE, RELIABLE) for topic in ("/image", "/depth/image")])
    camera = CameraInput(graph, NodeConfig(modality="rgbd"), "", threading.Condition())
    camera.open()
    graph.tell("/camera_info", info_message(graph.make, frames[0].camera))
    for topic in ("/image", "/depth/image"):
        graph.tell(topic, image_message(graph.make, 1, "camera", frames[0].image))
    assert explain_silence(camera, graph.publishers()) == [
        "1 images came and none is processed yet: the front-end may still be at the first one."
    ]


def test_what_is_set_while_networks_are_opened_is_followed(
    frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open them may take minutes, in which parameters are accepted."""
    begun, wanted = override(LiveConfig(), ORB), override(LiveConfig(), ORB | {"matcher.max_ratio": 0.5})
    server = Server(RecordingGraph(), begun)
    create = server_module.create_matcher

    def create_meanwhile(config: LiveConfig) -> Any:
        matcher = create(config)
        server.follow(wanted)
        return matcher

    monkeypatch.setattr(server_module, "create_matcher", create_meanwhile)
    server.configure()
    (camera,) = server.cameras
    found, expected = (pair_of(matcher, frames) for matcher in (camera.front_end.matcher, create(wanted)))
    assert len(found) == len(expected) < len(pair_of(create(begun), frames))
    server.cleanup()


def pair_of(matcher: Any, frames: list[Frame]) -> Any:
    return matcher.match(*(matcher.extract(frame.image) for frame in (frames[0], frames[3])))


def test_who_begins_to_listen_to_diagnostics_hears_nothing_of_old_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_PERIOD_S", 0.01)
    graph = RecordingGraph()
    server = Server(graph, override(LiveConfig(), ORB))
    server.configure()
    diagnostics, (camera,) = graph.published(DIAGNOSTICS), server.cameras
    diagnostics.is_heard = False
    camera.statistics.add(FrameRecord(time.monotonic(), None, 1.0, 1.0, 0.0, FrontEnd(ALWAYS).process(BLANK)))
    server.activate()
    try:
        camera.input.ledger.drop(DropReason.OUT_OF_ORDER, 5000)
        looks = diagnostics.num_asked
        wait_until(lambda: diagnostics.num_asked >= looks + 2, "another look at the counters")
        before, diagnostics.is_heard = len(diagnostics.messages), True
        wait_until(lambda: len(diagnostics.messages) > before, "a message")
    finally:
        server.deactivate(PATIENCE_S)
    assert "could not be used" not in diagnostics.messages[before].status[0].message
    values = {value.key: value.value for value in diagnostics.messages[before].status[0].values}
    assert values["dropped_out_of_order"] == "5000"  # all that ever were are told all the same

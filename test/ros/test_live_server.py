"""The server and its cameras, above a graph without a middleware: what fails, and what is said of it."""

import threading

import pytest

pytest.importorskip("cyclonedds", reason="the harness of live tests needs cyclonedds")

from live_harness import ORB, PATIENCE_S, info_message
from recording_graph import RecordingGraph

from feature_matcher_ros.config import override
from feature_matcher_ros.datatypes import Frame
from feature_matcher_ros.errors import FeatureMatcherError
from feature_matcher_ros.evaluation.bag_topics import CAMERA_INFO, IMAGE
from feature_matcher_ros.node_config import LiveConfig, NodeConfig
from feature_matcher_ros.ros import server as server_module
from feature_matcher_ros.ros.camera_input import CameraInput
from feature_matcher_ros.ros.conversions import image_message
from feature_matcher_ros.ros.graph import RELIABLE, Endpoint
from feature_matcher_ros.ros.server import Server
from feature_matcher_ros.ros.startup_check import explain_silence

DIAGNOSTICS = "/diagnostics"


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

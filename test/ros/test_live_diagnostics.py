"""What the node says about itself on ``/diagnostics``: while it starts, and when nothing comes."""

import time

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

from live_harness import ADAPTERS, Consumer, LiveCamera, LiveNode, remap, settings, wait_until

from feature_matcher_ros.datatypes import Frame
from feature_matcher_ros.ros.topics import DIAGNOSTICS
from feature_matcher_ros.runtimes.manifest import read_manifest
from feature_matcher_ros.runtimes.shipped_graphs import shipped_graphs

OK, WARN, ERROR = 0, 1, 2


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_networks_are_opened_before_everybodys_eyes(adapter: str) -> None:
    with (
        Consumer([DIAGNOSTICS]) as consumer,
        LiveNode(adapter=adapter, matcher__runtime="onnx") as node,
    ):
        consumer.wait_for_diagnostics(lambda values: "input_rate_hz" in values, "a node that has started")
        assert node.interrupt()[0] == 0
    statuses = [message.status[0] for message in consumer.messages[DIAGNOSTICS]]
    starts = [status for status in statuses if status.name == "feature_matcher: start"]
    values = [{value.key: value.value for value in status.values} for status in starts]
    assert [value["state"] for value in values[-2:]] == ["CONFIGURING", "CONFIGURED"]
    opened = [int(value["graphs_opened"]) for value in values]
    assert opened == sorted(opened) and opened[-1] == len(read_manifest(shipped_graphs("lightglue_sift")).graphs)
    expected = {"networks": "lightglue", "runtime": "onnx", "precision": "float32"}
    for found in (values[-1], consumer.diagnostics()):
        assert expected.items() <= found.items()
    assert consumer.diagnostics()["matcher"] == "lightglue"


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_silence_is_an_error_with_its_reason(adapter: str, frames: list[Frame]) -> None:
    """At first there is no camera, then one whose images cannot be used, then frames, then nothing, then bad images."""
    node = LiveNode(*remap(image="/camera/image"), adapter=adapter, **settings(node__startup_timeout_s=3.0))

    def wait_for(level: int, text: str) -> None:
        def is_there() -> bool:
            found = consumer.reports()[-1].status[0] if consumer.reports() else None
            return found is not None and found.level == level and text in found.message

        wait_until(is_there, f"{level}: {text}")

    with node, Consumer([DIAGNOSTICS]) as consumer:
        wait_for(WARN, "WAITING: no frame yet")
        wait_for(ERROR, "WAITING: no CameraInfo of the image on /camera/camera_info")
        with LiveCamera() as camera:
            camera.wait_for_node()
            for _ in range(5):
                camera.send(frames[0], encoding="jpg8")
                time.sleep(0.2)
            wait_for(ERROR, "images came and none could be used: they cannot be decoded")
            for _ in range(10):
                camera.send(frames[0])
                time.sleep(0.2)
            wait_for(OK, "OK")
            wait_for(WARN, "DEGRADED: no frame for")
            wait_for(ERROR, "there is a publisher, but it sends nothing")
            for _ in range(5):
                camera.send_image(frames[0], data=np.zeros(9, np.uint8))
                time.sleep(0.2)
            wait_for(ERROR, "images came since the last one that could be used: they cannot be decoded")
        assert node.interrupt()[0] == 0

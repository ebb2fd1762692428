"""What the node publishes beside poses, of several cameras, turned and masked; and what it does not compute."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

import time

from live_harness import (
    ADAPTERS,
    KEEP_ALL,
    ORB,
    PATIENCE_S,
    Consumer,
    LiveCamera,
    LiveNode,
    remap,
    settings,
    wait_until,
)

from feature_matcher_ros.config import FrontEndConfig, override
from feature_matcher_ros.datatypes import Frame, TrackingState
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.node_config import NodeConfig, live_config
from feature_matcher_ros.ros import outputs, topics
from feature_matcher_ros.ros.conversions import image_message
from feature_matcher_ros.ros.correspondences import correspondences_from_cloud
from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.graph import LATCHED, SENSOR_DATA, QosProfile
from feature_matcher_ros.ros.image_decoder import decode_compressed_image, decode_image
from feature_matcher_ros.ros.names import NodeName, RemappingRule
from feature_matcher_ros.ros.server import Server
from feature_matcher_ros.ros.topics import (
    CORRESPONDENCES,
    DIAGNOSTICS,
    MARKERS,
    MATCHES_IMAGE,
    MATCHES_IMAGE_RAW,
    STATUS,
    VINS_FEATURES,
    Topic,
)


def of_camera(topic: Topic, namespace: str) -> Topic:
    return Topic(topic.name.replace("~", f"~/{namespace}"), topic.type_name)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_two_cameras_turned_and_masked_show_all_they_have(adapter: str, frames: list[Frame], tmp_path: Path) -> None:
    mask = np.zeros((240, 320), np.uint8)
    mask[:, :240] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    node = LiveNode(
        adapter=adapter,
        **settings(node__namespaces="front,rear", node__mount_rotation_deg=90, node__mask=tmp_path / "mask.png"),
        node__publish_vins_features=True,
        node__publish_unscaled=True,
        node__image_topic="camera/image",
        node__max_frame_age_ms=0,
    )
    kinds = (CORRESPONDENCES, STATUS, MARKERS, MATCHES_IMAGE, MATCHES_IMAGE_RAW, VINS_FEATURES)
    front, rear = ({kind: of_camera(kind, name) for kind in kinds} for name in ("front", "rear"))
    with (
        node,
        LiveCamera("front_driver", namespace="/front") as front_camera,
        LiveCamera("rear_driver", namespace="/rear") as rear_camera,
        Consumer([*front.values(), rear[CORRESPONDENCES], rear[STATUS], DIAGNOSTICS]) as consumer,
    ):
        consumer.wait_for_node()
        for camera in (front_camera, rear_camera):
            camera.wait_for_node()
        for number, frame in enumerate(frames):
            front_camera.send(frame)
            rear_camera.send(frames[-1 - number])
            wait_until(
                lambda: all(len(consumer.messages[of[STATUS]]) > number for of in (front, rear)),  # noqa: B023
                "both cameras' frames",
            )
        consumer.wait_for(front[MATCHES_IMAGE_RAW], len(frames) - 1)
        consumer.wait_for(front[VINS_FEATURES], len(frames) - 1)
        consumer.wait_for_diagnostics(lambda values: int(values["processed"]) == len(frames), "both cameras")
        statuses = consumer.reports()[-1].status
        assert {status.name for status in statuses} == {"feature_matcher: front", "feature_matcher: rear"}
        assert node.interrupt()[0] == 0

    clouds = [correspondences_from_cloud(cloud) for cloud in consumer.messages[front[CORRESPONDENCES]]]
    assert len(clouds) == len(frames) - 1 == len(consumer.messages[rear[CORRESPONDENCES]])
    for cloud in clouds:
        assert len(cloud.matches) > 50 and np.mean(cloud.inliers) > 0.5
        assert cloud.matches.points1[:, 0].max() < 241, "no point lies where the mask is black"
        assert cloud.matches.points1[:, 1].max() > 200
    features = consumer.messages[front[VINS_FEATURES]][-1]
    ids = clouds[-1].track_ids[clouds[-1].inliers & (clouds[-1].track_ids != 0)]
    assert features.channels[0].values.astype(int).tolist() == ids.astype(int).tolist()
    picture = decode_image(consumer.messages[front[MATCHES_IMAGE_RAW]][-1], color=True)
    small = decode_compressed_image(consumer.messages[front[MATCHES_IMAGE]][-1], color=True)
    assert picture.shape == small.shape == (240, 644, 3)
    assert np.mean(np.abs(picture.astype(int) - small)) < 12.0
    expected = cv2.convertScaleAbs(frames[-1].image, alpha=0.75)[:100, 250:]  # a corner without points
    assert np.median(np.abs(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[:100, 574:].astype(int) - expected)) <= 2
    assert consumer.messages[front[MARKERS]][-1].markers[0].header.frame_id == "front/odom"


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_two_cameras_may_be_swapped_by_remapping(frames: list[Frame], adapter: str) -> None:
    """A name is remapped once: the node that is told of the left camera listens to the right one, as it offers."""
    swapped = [
        text
        for kind in ("image", "camera_info")
        for one, other in (("left", "right"), ("right", "left"))
        for text in ("-r", f"/{one}/camera/{kind}:=/{other}/camera/{kind}")
    ]
    told = settings(node__image_topic="/left/camera/image", node__qos="auto", node__max_frame_age_ms=0)
    with (
        LiveCamera("left", namespace="/left", reliable=True) as left,
        LiveCamera("right", namespace="/right", reliable=False) as right,
        LiveNode(*swapped, adapter=adapter, **told),
        Consumer([STATUS]) as consumer,
    ):
        consumer.wait_for_node()
        right.wait_for_node()
        deadline = time.monotonic() + PATIENCE_S
        while not consumer.messages[STATUS]:
            assert time.monotonic() < deadline
            right.send(frames[0])
            time.sleep(0.2)
        assert not left.has_listeners()


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("qos", [LATCHED, SENSOR_DATA], ids=["latched", "volatile"])
def test_a_mask_comes_over_a_topic(frames: list[Frame], adapter: str, qos: QosProfile) -> None:
    mask = np.zeros((240, 320), np.uint8)
    mask[:, :200] = 255
    listening = remap(image="/camera/image")
    node = LiveNode(
        *listening,
        adapter=adapter,
        **settings(node__mask_topic="/mask", node__qos="reliable", node__max_frame_age_ms=0),
    )
    with node, LiveCamera() as camera, Consumer([CORRESPONDENCES, STATUS]) as consumer:
        masks = camera.graph.advertise("/mask", "sensor_msgs/msg/Image", qos)
        consumer.wait_for_node()
        camera.wait_for_node()
        wait_until(masks.has_subscribers, "a node that listens to masks")
        for number in range(2):
            camera.send(frames[number])
            consumer.wait_for(STATUS, number + 1)
        masks.publish(image_message(camera.make, 1, "camera", mask))
        time.sleep(0.3)
        for number in range(2, 5):
            camera.send(frames[number])
            consumer.wait_for(STATUS, number + 1)
    before, *_, after = (correspondences_from_cloud(cloud).matches for cloud in consumer.messages[CORRESPONDENCES])
    assert before.points1[:, 0].max() > 201.0 >= after.points1[:, 0].max()
    assert len(after) > 30


def test_nothing_is_computed_for_a_topic_without_subscribers(
    frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every function that makes a message fails; only when somebody listens does one get called."""

    def refuse(name: str) -> Callable[..., Any]:
        def fail(*_: object, **__: object) -> Any:
            raise AssertionError(f"{name} was called")

        return fail

    for module, names in (
        (topics, ["cloud_from_result", "relative_pose_message", "odometry_message", "keyframe_message"]),
        (topics, ["diagnostics_message", "transform_message"]),
        (
            outputs,
            ["draw_matches", "marker_message", "transforms_message", "compressed_image_message", "image_message"],
        ),
    ):
        for name in names:
            monkeypatch.setattr(module, name, refuse(name))
    for kind in (outputs.VinsFeatures, outputs.LivePath):
        monkeypatch.setattr(kind, "message", refuse(f"{kind.__name__}.message"))
    front_end = FrontEnd(override(FrontEndConfig(), ORB | {"keyframes.match_every_frame": True}))
    config = NodeConfig(publish_tf=True, publish_unscaled=True, publish_vins_features=True)
    with DdsGraph(NodeName("quiet")) as graph, DdsGraph(NodeName("listener")) as listener:
        published = outputs.Outputs(graph, config, "")
        for frame in frames[:3]:
            published.publish(frame, front_end.process(frame))
        topic = MARKERS.name.replace("~", "/quiet")
        subscription = listener.subscribe(topic, MARKERS.type_name, KEEP_ALL, lambda _: None, lambda _: None)
        wait_until(lambda: subscription.num_publishers() == 1, "the publisher of the markers")
        with pytest.raises(AssertionError, match="marker_message was called"):
            time.sleep(0.2)
            published.publish(frames[3], front_end.process(frames[3]))


def test_the_server_goes_through_its_life_twice(frames: list[Frame]) -> None:
    """Configure, activate, deactivate, activate, deactivate, cleanup; what it hears in between it passes over."""
    fast = ORB | {"keyframes.match_every_frame": True, "node.qos": "reliable"}
    node = NodeName("node", rules=(RemappingRule("image", "/camera/image"),))
    with DdsGraph(node) as graph, LiveCamera() as driver:
        server = Server(graph, live_config(fast | {"node.max_frame_age_ms": 0}))
        server.configure()
        ledger = server.cameras[0].input.ledger
        wait_until(lambda: not driver.has_listeners(), "the end of other nodes")
        for life in (1, 2):
            server.activate()
            driver.wait_for_node()
            for number, frame in enumerate(frames[:3]):
                driver.send(frame)
                expected = 3 * (life - 1) + number + 1
                wait_until(lambda: ledger.counts().processed == expected, f"frame {expected}")  # noqa: B023
            assert server.deactivate(timeout_s=10.0)
            wait_until(lambda: not driver.has_listeners(), "the end of its subscriptions")
            driver.send(frames[3])
        assert ledger.counts().received == 6
        assert server.cameras[0].statistics.summary().state is TrackingState.OK
        wait_until(lambda: bool(driver.graph.publishers()), "its topics")
        server.cleanup()
        assert server.cameras == ()
        wait_until(lambda: not driver.graph.publishers(), "the end of its topics")

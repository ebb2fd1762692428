"""What goes wrong with cameras and consumers, done to a node that runs in a process of its own."""

import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

from live_harness import (
    ADAPTERS,
    NEEDS_RCLPY,
    ORB,
    PATIENCE_S,
    Consumer,
    LiveCamera,
    LiveNode,
    graph_of,
    info_message,
    liar,
    remap,
    settings,
    wait_until,
)

from feature_matcher_ros.config import FrontEndConfig, override
from feature_matcher_ros.datatypes import Camera, Frame, TrackingState
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.node_config import NodeConfig
from feature_matcher_ros.ros.camera_input import CameraInput
from feature_matcher_ros.ros.conversions import image_message
from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.doctor import examine_graph
from feature_matcher_ros.ros.frame_ledger import DropReason
from feature_matcher_ros.ros.graph import LATCHED, RELIABLE
from feature_matcher_ros.ros.live_camera import LiveCamera as LivePipeline
from feature_matcher_ros.ros.live_rig import Role
from feature_matcher_ros.ros.names import NodeName, RemappingRule
from feature_matcher_ros.ros.synchronizer import Bundle
from feature_matcher_ros.ros.topics import CORRESPONDENCES, DIAGNOSTICS, STATUS

LISTENING = remap(image="/camera/image")
PATIENT = settings(node__startup_timeout_s=1.5, node__max_frame_age_ms=5000)
JUNK = b"\0\1\0\0\5\0\0\0junk\0"


class Scene:
    """One node with its consumer, and a camera that can be replaced."""

    def __init__(self, adapter: str, node: LiveNode, consumer: Consumer, frames: list[Frame]) -> None:
        self.adapter, self.node, self.consumer, self.frames = adapter, node, consumer, frames
        self.camera = LiveCamera()
        self.camera.wait_for_node()

    def show(self, count: int, pause_s: float = 0.1) -> None:
        """Send some frames, with time for the node to process them."""
        for number in range(count):
            self.camera.send_image(self.frames[number % len(self.frames)])
            time.sleep(pause_s)

    def show_until(self, condition: Any, what: str) -> dict[str, str]:
        """Send frames until the node's diagnostics say something."""
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                self.show(2)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            return self.consumer.wait_for_diagnostics(condition, what)
        finally:
            stop.set()
            sender.join()

    def send_until_counted(self, name: str, **changes: Any) -> None:
        """Send a frame, and again should a newer one have come before it."""
        before, deadline = self.count(name), time.monotonic() + PATIENCE_S
        while self.count(name) == before:
            assert time.monotonic() < deadline, (name, changes)
            self.camera.send_image(self.frames[0], **changes)
            time.sleep(0.4)

    def count(self, name: str) -> int:
        return int(self.consumer.diagnostics().get(name, "0"))


@pytest.fixture(scope="module", params=ADAPTERS)
def scene(request: pytest.FixtureRequest, frames: list[Frame]) -> Iterator[Scene]:
    node = LiveNode(*LISTENING, adapter=request.param, **PATIENT)
    with node, Consumer([CORRESPONDENCES, STATUS, DIAGNOSTICS]) as consumer:
        consumer.wait_for_node()
        scene = Scene(request.param, node, consumer, frames)
        yield scene
        scene.camera.close()
        assert node.interrupt(signal.SIGTERM)[0] == 0


def test_camera_info_may_come_late(scene: Scene) -> None:
    scene.show(20)
    wait_until(lambda: "no CameraInfo of the image on /camera/camera_info" in scene.node.log, "an explanation")
    assert "there is a publisher, but it sends nothing" in scene.node.log
    assert not scene.consumer.messages[STATUS]
    scene.camera.send_info(scene.frames[0].camera)
    scene.show_until(lambda values: int(values["processed"]) >= 3 and values["state"] == "OK", "frames")


def test_camera_info_may_change_and_be_wrong(scene: Scene) -> None:
    right, dropped = scene.frames[0].camera, scene.count("dropped_not_decoded")
    scene.camera.send_info(Camera(right.K, 640, 480))
    scene.show_until(lambda values: int(values.get("dropped_not_decoded", 0)) > dropped, "images of the wrong size")
    assert "the image has 320x240 pixels but its camera 640x480" in scene.node.log
    assert scene.consumer.diagnostics()["message"].startswith("DEGRADED")
    scene.camera.send_info(Camera(right.K * np.array([[0.9], [0.9], [1]]), 320, 240))
    values = scene.show_until(lambda values: values["state"] == "OK", "frames of the new camera")
    assert values["camera_changes"] == "2"
    scene.camera.send_info(right)


def test_images_that_cannot_be_used_are_counted_and_passed_over(scene: Scene) -> None:
    frame = scene.frames[0]
    colour = np.repeat(frame.image[:, :, None], 3, axis=2)
    scene.send_until_counted("processed", encoding="rgb8", step=960, data=colour.reshape(-1))
    for changes in (
        {"encoding": "jpg8"},
        {"data": frame.image.reshape(-1)[:1000]},  # cut off
        {"height": 0, "width": 0, "step": 0, "data": np.zeros(0, np.uint8)},
        {"encoding": "bayer_rggb8", "is_bigendian": 7, "step": 1},
    ):
        scene.send_until_counted("dropped_not_decoded", **changes)
    scene.send_until_counted("dropped_without_stamp", stamp_ns=0)
    scene.send_until_counted("dropped_too_old", stamp_ns=time.time_ns() - 20 * 10**9)  # a jump back, too
    scene.send_until_counted("processed", stamp_ns=2**31 * 10**9 - 1)  # the year 2038
    values = scene.show_until(lambda values: values["state"] == "OK", "frames")
    assert int(values["time_jumps"]) >= 2  # to the past, and back from the future
    assert values.get("dropped_failed", "0") == "0" and values["callback_errors"] == "0"
    assert "encoding 'jpg8' is not supported" in scene.node.log and "it was cut off" in scene.node.log


def send_some(publish: Callable[[bytes], object]) -> None:
    """More than one message: the first may be sent before the subscription knows of its publisher."""
    for _ in range(5):
        publish(JUNK)
        time.sleep(0.1)


def test_a_publisher_with_another_definition_does_no_harm(scene: Scene) -> None:
    """Bytes that are no Image, from one that says they are: DDS tells types apart, rclpy only their names."""
    scene.camera.send_info(scene.frames[0].camera)
    with DdsGraph(NodeName("liar")) as graph:
        garbage = liar(graph, "/camera/image", "sensor_msgs/msg/Image")
        if scene.adapter == "rclpy":
            wait_until(garbage.has_subscribers, "a node that listens")
            send_some(garbage.publish_cdr)
            scene.show_until(lambda values: int(values["damaged"]) > 0, "the damage")
        else:
            time.sleep(1.0)
            assert not garbage.has_subscribers()
    scene.show_until(lambda values: values["state"] == "OK", "frames")


@pytest.mark.ros
@NEEDS_RCLPY
def test_bytes_of_a_node_of_rclpy_that_are_no_message_do_no_harm(scene: Scene) -> None:
    """Its publishers say nothing of their type but the name; what DDS itself finds damaged never gets this far."""
    from rclpy_harness import raw_publisher

    scene.camera.send_info(scene.frames[0].camera)
    damaged = int(scene.show_until(lambda values: values["state"] == "OK", "frames")["damaged"])
    with raw_publisher("/camera/image", "sensor_msgs/msg/Image", RELIABLE) as garbage:
        wait_until(lambda: bool(garbage.get_subscription_count()), "a node that listens")
        send_some(garbage.publish)
    if scene.adapter == "rclpy":
        scene.show_until(lambda values: int(values["damaged"]) > damaged, "the damage")
    values = scene.show_until(lambda values: values["state"] == "OK", "frames")
    assert scene.adapter == "rclpy" or int(values["damaged"]) == damaged


def test_a_consumer_that_never_reads_holds_nobody_up(scene: Scene) -> None:
    script = Path(__file__).with_name("never_reads.py")
    topics = [text for topic in (CORRESPONDENCES, STATUS) for text in (topic.full_name, topic.type_name)]
    sleeper = subprocess.Popen([sys.executable, str(script), *topics], stdout=subprocess.PIPE, text=True)
    assert sleeper.stdout is not None
    try:
        scene.show_until(lambda _: bool(select.select([sleeper.stdout], [], [], 0)[0]), "a message that is not read")
        before = len(scene.consumer.messages[STATUS])
        # More than it, and the node for it, keep.
        scene.show_until(lambda _: len(scene.consumer.messages[STATUS]) >= before + 30, "frames past the sleeper")
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_camera_may_die_and_return(scene: Scene) -> None:
    scene.camera.close()
    values = scene.consumer.wait_for_diagnostics(lambda v: "no frame for" in v["message"], "a word about the silence")
    assert values["state"] == "DEGRADED"
    scene.camera = LiveCamera("another_camera", reliable=False)
    scene.camera.wait_for_node()
    scene.camera.send_info(scene.frames[0].camera)
    scene.show_until(lambda values: values["state"] == "OK", "frames of the camera that returned")
    wait_until(lambda: "frames are processed again" in scene.node.log, "a word about the return")


def test_the_account_balances_after_all_that(scene: Scene) -> None:
    time.sleep(1.2)  # until the next report
    values = scene.consumer.diagnostics()
    dropped = sum(int(value) for name, value in values.items() if name.startswith("dropped_"))
    assert int(values["received"]) == int(values["processed"]) + dropped
    assert int(values["processed"]) == len(scene.consumer.messages[STATUS])


def test_two_nodes_live_in_one_domain_and_one_stereo_stream_is_missed(scene: Scene) -> None:
    """Another node under another name, which wants stereo where there is only one camera."""
    names = ["-r", "__node:=second", "-r", "__ns:=/robot", "-p", "node.modality:=stereo"]
    other = LiveNode(*remap(image="/camera/image"), *names, adapter=scene.adapter, **PATIENT)
    with other, Consumer([DIAGNOSTICS]) as consumer:
        scene.show_until(lambda _: "no right image on" in other.log, "an explanation")
        assert (
            "no right image on /robot/right/image (sensor_msgs/msg/Image): nobody publishes it; of this type"
            in other.log
        )
        wait_until(lambda: len({m.status[0].name for m in consumer.reports()}) == 2, "diagnostics of both nodes")
        names = {message.status[0].name for message in consumer.reports()}
        assert names == {"feature_matcher: camera", "robot/second: camera"}
        assert other.interrupt()[0] == 0
    scene.show_until(lambda values: values["state"] == "OK", "frames of the first node")


def send_pair(left: LiveCamera, right: LiveCamera, frame: Frame, skew_ns: int) -> None:
    """Images and calibration of two cameras, the right one 0.1 m beside the left."""
    stamp_ns = time.time_ns()
    info = info_message(right.make, frame.camera)
    info.p[3] = -0.1 * info.p[0]
    right.publish_info(info)
    left.send(frame, stamp_ns)
    right.send_image(frame, stamp_ns + skew_ns)
    time.sleep(0.1)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_stereo_stream_may_stop_and_return(adapter: str, frames: list[Frame]) -> None:
    """Pairs 2 ms apart are used, and their skew is told; images that have lost their partner are counted."""
    told = [*remap(image="/left/camera/image", right__image="/right/camera/image"), "-r", "__node:=pair"]
    node = LiveNode(*told, adapter=adapter, **(PATIENT | {"node__modality": "stereo", "node__qos": "reliable"}))
    with (
        node,
        LiveCamera("left", namespace="/left") as left,
        LiveCamera("right", namespace="/right") as right,
        Consumer([STATUS, DIAGNOSTICS], node="/pair") as consumer,
    ):

        def show_until(condition: Callable[[dict[str, str]], bool], what: str, *, is_alone: bool = False) -> None:
            deadline = time.monotonic() + PATIENCE_S
            while not (consumer.diagnostics() and condition(consumer.diagnostics())):
                assert time.monotonic() < deadline, (what, consumer.diagnostics())
                if is_alone:
                    left.send(frames[0])
                    time.sleep(0.1)
                else:
                    send_pair(left, right, frames[0], skew_ns=2_000_000)

        for camera in (left, right):
            camera.wait_for_node()
        consumer.wait_for_node()
        show_until(lambda values: int(values["processed"]) > 2, "pairs")
        assert consumer.diagnostics()["max_skew_ms"] == "2.000"
        show_until(
            lambda values: "no right image on /right/camera/image" in values["message"], "the loss", is_alone=True
        )
        lost = int(consumer.diagnostics()["dropped_without_partner"])
        assert lost > 5
        show_until(lambda values: values["state"] == "OK" and "missing" not in values, "pairs again")
        assert node.interrupt()[0] == 0


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_signal_in_the_middle_of_a_frame_ends_the_node_at_once(adapter: str) -> None:
    """Noise gives as many points as are asked for, and they take seconds."""
    slow = {"extractor__max_keypoints": 60000, "extractor__grid_cell_px": 0, "node__max_frame_age_ms": 0}
    slow["matcher__name"] = "mutual_nearest"
    random = np.random.default_rng(0)
    camera_model = Camera(np.array([[900.0, 0, 1200], [0, 900, 900], [0, 0, 1]]), 2400, 1800)
    noise = [random.integers(0, 256, (1800, 2400), dtype=np.uint8) for _ in range(2)]
    # Reliable: an image of megabytes is more than the socket of a best-effort subscription may hold.
    named = ["-r", "__node:=slow", *remap(image="/slow/camera/image")]
    node = LiveNode(*named, adapter=adapter, **slow, node__qos="reliable")
    with node, LiveCamera(namespace="/slow") as camera, Consumer([STATUS], node="/slow") as consumer:
        node.wait_until_it_listens()
        camera.wait_for_node()
        consumer.wait_for_node()
        camera.send(Frame(1, noise[0], camera_model))
        consumer.wait_for(STATUS, 1)
        camera.send(Frame(2, noise[1], camera_model))
        time.sleep(0.4)
        node.process.send_signal(signal.SIGINT)
        code, seconds = node.interrupt()  # twice, as ros2 launch does
        assert len(consumer.messages[STATUS]) == 1, "the frame was done before the signal"
    assert code == 0 and seconds < 2.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_node_that_is_being_configured(number: int) -> None:
    """Where engines are built that takes minutes."""
    script = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
from feature_matcher_ros.cli import main
from feature_matcher_ros.ros import server
server.create_matcher = lambda config: (print("building", flush=True), time.sleep(60))
sys.argv = ["feature-matcher", "live"]
main()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "building\n"
        process.send_signal(number)
        process.send_signal(number)  # twice, as ros2 launch does
        assert process.wait(PATIENCE_S / 2) == 0
    finally:
        process.kill()
        process.wait()


def test_a_node_outlives_its_terminal_under_nohup() -> None:
    command = [sys.executable, "-m", "feature_matcher_ros.cli", "live", "--set", "node.startup_timeout_s=0.5"]
    log = ["nohup", *command]
    with subprocess.Popen(log, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            while b"listens to" not in process.stdout.readline():
                pass
            process.send_signal(signal.SIGHUP)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.0)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_callback_that_raises_is_survived(adapter: str, frames: list[Frame]) -> None:
    heard: list[int] = []

    def fail_once(_: Any) -> None:
        heard.append(len(heard))
        if len(heard) == 1:
            raise ValueError("on purpose")

    with graph_of(adapter, "listener") as graph, LiveCamera(namespace="/other") as camera:
        subscription = graph.subscribe(
            "/other/camera/image", "sensor_msgs/msg/Image", RELIABLE, fail_once, heard.append
        )
        wait_until(lambda: subscription.num_publishers() == 1, "the camera")
        for frame in frames[:3]:
            camera.send_image(frame)
        wait_until(lambda: len(heard) == 3, "the messages after the failure")


class _Stumbling:
    """A matcher whose second image kills it."""

    def __init__(self) -> None:
        self._matcher = create_matcher(override(FrontEndConfig(), ORB))
        self._seen = 0
        self.name = self._matcher.name
        self.match = self._matcher.match

    def extract(self, image: Any, mask: Any = None) -> Any:
        self._seen += 1
        if self._seen == 2:
            raise RuntimeError("on purpose")
        return self._matcher.extract(image, mask)


def test_a_frame_that_breaks_the_front_end_is_counted_and_the_next_begins_anew(frames: list[Frame]) -> None:
    config, changed = NodeConfig(max_frame_age_ms=0.0), threading.Condition()
    always = override(FrontEndConfig(), {"keyframes.match_every_frame": True})
    with DdsGraph(NodeName("node")) as graph:
        camera = LivePipeline(graph, config, CameraInput(graph, config, "", changed), FrontEnd(always, _Stumbling()))
        camera.input.rig.hear_info(Role.IMAGE, info_message(graph.make, frames[0].camera))
        for frame in frames[:4]:
            camera.input.ledger.receive()
            camera.process(Bundle(frame.stamp_ns, image_message(graph.make, frame.stamp_ns, "camera", frame.image)))
        counts = camera.input.ledger.counts()
    assert (counts.received, counts.processed, counts.waiting) == (4, 3, 0)
    assert counts.dropped == {DropReason.FAILED: 1}
    assert camera.statistics.summary().state is TrackingState.OK


def test_bytes_that_are_no_message_are_counted() -> None:
    """What a middleware with less care than Cyclone DDS, which checks the bytes itself, would hand over."""
    heard: list[Any] = []
    damaged: list[Exception] = []
    with DdsGraph(NodeName("node")) as graph:
        subscription = graph.subscribe("/image", "sensor_msgs/msg/Image", RELIABLE, heard.append, damaged.append)
        for data in (b"", b"\0\1\0\0", b"\0\1\0\0" + b"\xff" * 60, b"\0\1\0\0\1\0\0\0\1\0\0\0\5\0\0\0ab"):
            subscription._delivery.hand_over(data)
    assert not heard and [type(error).__name__ for error in damaged] == ["SourceError"] * 4
    assert "a message on /image is not a whole sensor_msgs/msg/Image" in str(damaged[0])


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_doctor_sees_what_the_node_would_leave_out(adapter: str, frames: list[Frame]) -> None:
    """A bag that is played without its clock; and two cameras on one topic. CameraInfo came once, and long ago."""
    with graph_of("dds", "camera") as player, graph_of("dds", "other") as other, graph_of(adapter, "doctor") as graph:
        info = player.advertise("/c/camera_info", "sensor_msgs/msg/CameraInfo", LATCHED)
        info.publish(info_message(player.make, frames[0].camera))
        images = [found.advertise("/c/image", "sensor_msgs/msg/Image", RELIABLE) for found in (player, other)]
        stop = threading.Event()

        def drive() -> None:
            while not stop.wait(0.1):
                stamp_ns = time.time_ns() - 600_000_000_000
                images[0].publish(image_message(player.make, stamp_ns, "camera", frames[0].image))

        driver = threading.Thread(target=drive)
        driver.start()
        try:
            wait_until(lambda: len(graph.publishers()) >= 3, "the camera's topics")
            found = examine_graph(graph, NodeConfig(image_topic="/c/image"), 2.0)
            every = examine_graph(graph, NodeConfig(image_topic="/c/image", process_every_frame=True), 2.0)
        finally:
            stop.set()
            driver.join()
    assert len(found.problems) == 1 and found.problems[0].startswith("images come 600.")
    assert "play it with --clock and set use_sim_time" in found.problems[0]
    assert every.problems == ()
    assert found.notes == every.notes == (
        "2 publishers send images, which the node takes for one camera: end all but one.",
    )  # fmt: skip


def test_doctor_sees_what_never_connects(frames: list[Frame]) -> None:
    name = NodeName("doctor", rules=(RemappingRule("image", "/camera/image"),))
    stop = threading.Event()
    with DdsGraph(name) as graph, LiveCamera(reliable=False) as camera:

        def drive() -> None:
            while not stop.wait(0.05):
                camera.send(frames[0])

        driver = threading.Thread(target=drive)
        driver.start()
        try:
            wait_until(lambda: len(graph.publishers()) >= 2, "the camera's topics")
            deaf = examine_graph(graph, NodeConfig(qos="reliable"), 0.5)
            well = examine_graph(graph, NodeConfig(qos="auto"), 1.5)
        finally:
            stop.set()
            driver.join()
    deaf_sentence = "is best effort and the node asks for reliable"
    assert any(deaf_sentence in problem for problem in deaf.problems), deaf
    assert well.problems == () and all(int(row[-1]) > 0 for row in well.rows)

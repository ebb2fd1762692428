"""How late the node is: at leisure, under more load than it can bear, and after a long time."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

from cyclonedds._clayer import ddspy_take
from cyclonedds.core import InstanceState, SampleState, ViewState
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic as DdsTopic
from live_harness import ADAPTERS, KEEP_ALL, Consumer, LiveNode, remap, settings, wait_until
from loopback import NUM_FRAMES

from feature_matcher_ros.ros.dds_endpoints import dds_qos, dds_topic
from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.dds_types import DdsTypes
from feature_matcher_ros.ros.graph import RELIABLE
from feature_matcher_ros.ros.messages import stamp_ns_of
from feature_matcher_ros.ros.names import NodeName
from feature_matcher_ros.ros.topics import (
    CORRESPONDENCES,
    DIAGNOSTICS,
    MARKERS,
    MATCHES_IMAGE,
    PATH,
    RELATIVE_POSE,
    STATUS,
    VIEW_TF,
    Topic,
)

PLAYER = Path(__file__).with_name("play_bag.py")
LEFT = "/camera/left/image_raw"
UNUSED = "/tf_static,/camera/right/camera_info,/camera/right/image_raw/compressed"
LEISURE_HZ, OVERLOAD_HZ = 4, 60
LOOPS = 12
OVERHEAD_MS = 5.0  # from the stamp of an image to the publication of all that comes of it, less the front-end's time
# A machine is quiet if a process that sleeps wakes within this. A busy one adds delays of its own to every time.
QUIET_MS = 1.0
BUSY = "other processes keep the machine too busy: sleepers wake {:.1f} ms late"
KEPT_KIB = 10 * 640 * 480 // 1024  # images that the middleware keeps
_UNLIMITED = -1
_LOG = logging.getLogger(__name__)
NODE = {
    "node__qos": "reliable",
    "node__max_frame_age_ms": 0,
    "keyframes__match_every_frame": True,
    "matcher__name": "mutual_nearest",  # what the node adds does not depend on it
}


class Recorder:
    """Keeps the node's messages with the times at which they were written, as DDS tells them of every sample.

    They are read when the node is idle again, so that nobody's reading is measured.
    """

    def __init__(self) -> None:
        self._graph = DdsGraph(NodeName("recorder"))
        self._readers = {topic: self._reader(topic) for topic in (CORRESPONDENCES, RELATIVE_POSE, STATUS)}

    def wait_for_node(self) -> None:
        wait_until(lambda: all(reader.get_matched_publications() for reader in self._readers.values()), "the node")

    def take(self) -> "Run":
        """What came since the last time."""
        return Run({topic: list(self._take(topic)) for topic in self._readers})

    def _reader(self, topic: Topic) -> DataReader:
        participant, types = self._graph._participant, DdsTypes(self._graph.make.typestore)
        name, qos = dds_topic(topic.full_name), dds_qos(KEEP_ALL, types.user_data(topic.type_name), _UNLIMITED)
        return DataReader(participant, DdsTopic(participant, name, types.description(topic.type_name)), qos=qos)

    def _take(self, topic: Topic) -> Iterator[tuple[Any, int]]:
        any_state = SampleState.Any | ViewState.Any | InstanceState.Any
        for data, info in ddspy_take(self._readers[topic]._ref, any_state, 100_000):
            if info.valid_data:
                yield self._graph.make.typestore.deserialize_cdr(data, topic.type_name), info.source_timestamp

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self._graph.close()


class Run:
    """What came of playing the bag at some rate: messages and when they were written, by topic."""

    def __init__(self, written: dict[Topic, list[tuple[Any, int]]]) -> None:
        statuses = [message for message, _ in written[STATUS]]
        ended_ns: dict[int, int] = {}
        for message, written_ns in chain.from_iterable(written.values()):
            stamp_ns = stamp_ns_of(message.header)
            ended_ns[stamp_ns] = max(written_ns, ended_ns.get(stamp_ns, 0))
        stamps_ns = [stamp_ns_of(message.header) for message in statuses]
        self.ages_ms = np.array([ended_ns[stamp_ns] - stamp_ns for stamp_ns in stamps_ns]) * 1e-6
        self.processing_ms = np.array([sum(_stages_ms(message)) for message in statuses])
        self.is_matched = np.array([message.status[0].message == "OK" for message in statuses])

    @property
    def overhead_ms(self) -> np.ndarray:
        """Of the frames of which everything was published."""
        return (self.ages_ms - self.processing_ms)[self.is_matched]

    def __str__(self) -> str:
        named = {"age": self.ages_ms, "processing": self.processing_ms, "overhead": self.overhead_ms}
        parts = [f"{name} {' '.join(f'{p:.1f}' for p in np.percentile(v, [50, 95, 99]))}" for name, v in named.items()]
        return f"{len(self.overhead_ms)} frames, p50 p95 p99 ms: {', '.join(parts)}"


def _stages_ms(message: Any) -> Iterator[float]:
    return (float(value.value) for value in message.status[0].values if value.key.endswith("_ms"))


def play(bag: Path, rate_hz: float, **options: int) -> None:
    arguments = [f"{name}={value}" for name, value in options.items()]
    command = [sys.executable, str(PLAYER), str(bag), f"rate_hz={rate_hz}", "restamp=1", *arguments]
    subprocess.run(command, check=True, timeout=300)


@contextmanager
def measured_oversleep() -> Iterator[list[float]]:
    """By how many milliseconds this process is woken late, again and again; it has little else to do."""
    found, stop = [], threading.Event()

    def measure() -> None:
        while not stop.is_set():
            begun = time.monotonic()
            time.sleep(0.02)
            found.append(1e3 * (time.monotonic() - begun) - 20.0)

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def quietest(times_ms: np.ndarray, percent: float) -> float:
    """A percentile of the times in that quarter of a run which other programs, that only ever add to it, left alone."""
    return min(float(np.percentile(part, percent)) for part in np.array_split(times_ms, 4))


def settled(consumer: Consumer) -> dict[str, str]:
    """The account, once nothing is being processed any more."""
    count = len(consumer.messages[DIAGNOSTICS])
    consumer.wait_for(DIAGNOSTICS, count + 2)
    return consumer.wait_for_diagnostics(
        lambda values: int(values["received"]) == int(values["processed"]) + dropped(values), "an account that balances"
    )


def dropped(values: dict[str, str]) -> int:
    return sum(int(value) for name, value in values.items() if name.startswith("dropped_"))


@dataclass
class Load:
    """A node that was first at leisure, then under more load than it can bear."""

    leisure: Run
    overload: Run
    values: dict[str, str]  # the account at the end
    num_sent: int
    num_messages: int
    resident_kib: tuple[int, int]  # under load, at first and at the end
    oversleep_ms: float


@pytest.fixture(scope="module", params=ADAPTERS)
def load(request: pytest.FixtureRequest, mono_bag: Path) -> Load:
    """Images of 640x480 pixels in mono8; at 60 Hz they are several times more than can be matched."""
    node = LiveNode(*remap(image="/camera/image_raw"), adapter=request.param, **NODE)
    with node, Recorder() as recorder, Consumer([DIAGNOSTICS]) as consumer, measured_oversleep() as oversleeps_ms:
        recorder.wait_for_node()
        consumer.wait_for_node()
        play(mono_bag, LEISURE_HZ, raw=1)
        settled(consumer)
        leisure = recorder.take()
        play(mono_bag, OVERLOAD_HZ, raw=1, loops=2)
        early_kib, early = node.resident_kib(), recorder.take()
        play(mono_bag, OVERLOAD_HZ, raw=1, loops=LOOPS)
        late_kib, values = node.resident_kib(), settled(consumer)
        overload = recorder.take()
        assert node.interrupt()[0] == 0
    sent, count = (1 + 2 + LOOPS) * NUM_FRAMES, sum(len(run.ages_ms) for run in (leisure, early, overload))
    oversleep_ms = float(np.percentile(oversleeps_ms, 95))
    _LOG.info("%s, sleepers %.2f ms late; leisure %s; overload %s", request.param, oversleep_ms, leisure, overload)
    return Load(leisure, overload, values, sent, count, (early_kib, late_kib), oversleep_ms)


def test_the_node_adds_little_to_the_front_end(load: Load) -> None:
    if load.oversleep_ms > QUIET_MS:
        pytest.skip(BUSY.format(load.oversleep_ms))
    assert np.median(load.leisure.overhead_ms) <= OVERHEAD_MS


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_node_adds_little_to_nearly_every_frame(adapter: str, mono_bag: Path) -> None:
    fast = {"extractor__name": "orb"}  # or a busy machine is never at leisure
    node = LiveNode(*remap(image="/camera/image_raw"), adapter=adapter, **NODE, **fast)
    with node, Recorder() as recorder, Consumer([DIAGNOSTICS]) as consumer, measured_oversleep() as oversleeps_ms:
        recorder.wait_for_node()
        consumer.wait_for_node()
        play(mono_bag, LEISURE_HZ, raw=1, loops=10)
        values = settled(consumer)
        run = recorder.take()
    oversleep_ms = float(np.percentile(oversleeps_ms, 95))
    _LOG.info("%s, sleepers %.2f ms late: %s", adapter, oversleep_ms, run)
    if oversleep_ms > QUIET_MS:
        pytest.skip(BUSY.format(oversleep_ms))
    assert len(run.overhead_ms) > 100
    assert quietest(run.overhead_ms, 95) <= OVERHEAD_MS
    assert float(values["overhead_p50_ms"]) <= np.median(run.overhead_ms), "the node counts from the arrival"


def test_under_overload_the_present_is_published(load: Load) -> None:
    """A frame waits for no more than the one before it to be processed; a busy machine makes both slower."""
    ages_ms, processing_ms = load.overload.ages_ms, load.overload.processing_ms
    late_ms = ages_ms[1:] - processing_ms[:-1] - processing_ms[1:]
    assert quietest(late_ms, 99) <= OVERHEAD_MS
    assert quietest(ages_ms, 99) <= 2.0 * np.percentile(processing_ms, 99)


def test_under_overload_every_image_is_accounted_for(load: Load) -> None:
    received, processed = int(load.values["received"]), int(load.values["processed"])
    assert processed == load.num_messages
    assert received == processed + dropped(load.values)
    # The middleware keeps ten images, and loses some where nobody is given the time to take them.
    assert (0.9 if load.oversleep_ms < QUIET_MS else 0.1) * load.num_sent < received <= load.num_sent
    assert int(load.values["dropped_superseded"]) == dropped(load.values) > 0


def test_under_overload_memory_is_flat(load: Load) -> None:
    early_kib, late_kib = load.resident_kib
    assert late_kib < 1.02 * early_kib + KEPT_KIB, f"{early_kib} KiB became {late_kib}"


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_memory_and_latency_do_not_grow(adapter: str, stereo_bag: Path) -> None:
    """A minute, or SOAK_S seconds, at 30 Hz; all that can be subscribed to is."""
    duration_s = float(os.environ.get("SOAK_S", "60"))
    changes = settings(**NODE, node__publish_unscaled=True, node__image_transport="compressed")
    node = LiveNode(*remap(image=LEFT), adapter=adapter, **changes)
    shown = [MARKERS, MATCHES_IMAGE, PATH, VIEW_TF]
    with node, Recorder() as recorder, Consumer([DIAGNOSTICS]) as consumer, listener_that_keeps_nothing(shown):
        recorder.wait_for_node()
        consumer.wait_for_node()
        loops = round(duration_s * 30 / NUM_FRAMES)
        options = ["rate_hz=30", f"loops={loops}", "restamp=1", f"skip={UNUSED}"]
        camera = subprocess.Popen([sys.executable, str(PLAYER), str(stereo_bag), *options])
        time.sleep(0.3 * duration_s)
        early_kib, early_ms = node.resident_kib(), recorder.take().ages_ms
        camera.wait(duration_s + 60)
        late_kib = node.resident_kib()
        values = settled(consumer)
        ages_ms = np.concatenate([early_ms, recorder.take().ages_ms])
    third, begin = len(ages_ms) // 3, len(early_ms) // 2
    first_ms, last_ms = np.median(ages_ms[begin : begin + third]), np.median(ages_ms[-third:])
    growth = late_kib / early_kib - 1
    _LOG.info(
        "%s: %d KiB %+.2f %%, age %.1f -> %.1f ms, %s", adapter, early_kib, 100 * growth, first_ms, last_ms, values
    )
    assert int(values["received"]) == int(values["processed"]) + dropped(values)
    assert late_kib < 1.02 * early_kib, f"{early_kib} KiB became {late_kib}"
    assert last_ms < 1.3 * first_ms + 5.0


@contextmanager
def listener_that_keeps_nothing(topics: list[Topic]) -> Iterator[None]:
    with DdsGraph(NodeName("listener")) as graph:
        for topic in topics:
            graph.subscribe(topic.full_name, topic.type_name, RELIABLE, lambda _: None, lambda _: None)
        yield

"""How late the node is: at leisure, under more load than it can bear, and after a long time."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

from live_harness import ADAPTERS, Consumer, LiveNode, remap, settings
from loopback import NUM_FRAMES

from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.graph import RELIABLE
from feature_matcher_ros.ros.messages import stamp_ns_of
from feature_matcher_ros.ros.names import NodeName
from feature_matcher_ros.ros.topics import CORRESPONDENCES, DIAGNOSTICS, MARKERS, MATCHES_IMAGE, PATH, STATUS, Topic

PLAYER = Path(__file__).with_name("play_bag.py")
LEFT = "/camera/left/image_raw"
UNUSED = "/tf_static,/camera/right/camera_info,/camera/right/image_raw/compressed"
# A process that shares two cores with others is not always given one at once.
SCHEDULING_MS = 10.0
LOOPS = 12
_LOG = logging.getLogger(__name__)
NODE = {
    "node__image_transport": "compressed",
    "node__qos": "reliable",
    "node__max_frame_age_ms": 0,
    "keyframes__match_every_frame": True,
    "matcher__name": "mutual_nearest",  # what the node adds does not depend on it
}


class Run:
    """What came of playing the bag once at some rate."""

    def __init__(self, consumer: Consumer, first: int) -> None:
        messages, arrivals = consumer.messages[STATUS][first:], consumer.arrived_ns[STATUS][first:]
        stamps = [stamp_ns_of(message.header) for message in messages]
        self.ages_ms = (np.array(arrivals) - np.array(stamps)) * 1e-6
        self.processing_ms = np.array([sum(_stages_ms(message)) for message in messages])

    @property
    def overhead_ms(self) -> np.ndarray:
        return self.ages_ms - self.processing_ms


def _stages_ms(message: Any) -> Iterator[float]:
    return (float(value.value) for value in message.status[0].values if value.key.endswith("_ms"))


def play(bag: Path, rate_hz: float, **options: int) -> None:
    options |= {"restamp": 1}
    arguments = [f"{name}={value}" for name, value in options.items()]
    command = [sys.executable, str(PLAYER), str(bag), f"rate_hz={rate_hz}", f"skip={UNUSED}", *arguments]
    subprocess.run(command, check=True, timeout=60)


def settled(consumer: Consumer) -> dict[str, str]:
    """The account, once nothing is being processed any more."""
    count = len(consumer.messages[DIAGNOSTICS])
    consumer.wait_for(DIAGNOSTICS, count + 2)
    return consumer.diagnostics()


def dropped(values: dict[str, str]) -> int:
    return sum(int(value) for name, value in values.items() if name.startswith("dropped_"))


@dataclass
class Load:
    """A node that was first at leisure, then under more load than it can bear."""

    leisure: Run
    overload: Run
    values: dict[str, str]  # the account at the end
    num_messages: int


@pytest.fixture(scope="module", params=ADAPTERS)
def load(request: pytest.FixtureRequest, stereo_bag: Path) -> Load:
    node = LiveNode(*remap(image=LEFT), adapter=request.param, **NODE)
    with node, Consumer([STATUS, DIAGNOSTICS]) as consumer:
        consumer.wait_for_node()
        play(stereo_bag, rate_hz=2, frames=8)
        settled(consumer)
        leisure, before = Run(consumer, first=1), len(consumer.messages[STATUS])
        play(stereo_bag, rate_hz=60, loops=LOOPS)
        values = settled(consumer)
        assert node.interrupt()[0] == 0
        return Load(leisure, Run(consumer, first=before), values, len(consumer.messages[STATUS]))


def test_the_node_adds_little_to_the_front_end(load: Load) -> None:
    if np.max(load.leisure.processing_ms) > 250.0:
        pytest.skip("other processes keep the machine too busy for the node to be at leisure")
    assert np.median(load.leisure.overhead_ms) < 5.0 + SCHEDULING_MS


def test_under_overload_the_present_is_published(load: Load) -> None:
    ages_ms, processing_ms = load.overload.ages_ms, load.overload.processing_ms
    assert np.percentile(ages_ms, 99) <= 2.0 * np.percentile(processing_ms, 99) + SCHEDULING_MS


def test_under_overload_every_image_is_accounted_for(load: Load) -> None:
    received, processed = int(load.values["received"]), int(load.values["processed"])
    assert processed == load.num_messages
    assert received == processed + dropped(load.values)
    assert 0.9 * (8 + LOOPS * NUM_FRAMES) < received <= 8 + LOOPS * NUM_FRAMES
    assert int(load.values["dropped_superseded"]) == dropped(load.values) > 0


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_memory_and_latency_do_not_grow(adapter: str, stereo_bag: Path) -> None:
    """A minute, or SOAK_S seconds, at 30 Hz; all that can be subscribed to is."""
    duration_s = float(os.environ.get("SOAK_S", "60"))
    node = LiveNode(*remap(image=LEFT), adapter=adapter, **settings(**NODE), node__publish_unscaled=True)
    shown = [CORRESPONDENCES, MARKERS, MATCHES_IMAGE, PATH]
    with node, Consumer([STATUS, DIAGNOSTICS]) as consumer, listener_that_keeps_nothing(shown):
        consumer.wait_for_node()
        loops = round(duration_s * 30 / NUM_FRAMES)
        options = ["rate_hz=30", f"loops={loops}", "restamp=1", f"skip={UNUSED}"]
        camera = subprocess.Popen([sys.executable, str(PLAYER), str(stereo_bag), *options])
        time.sleep(0.3 * duration_s)
        early_kib, early = node.resident_kib(), len(consumer.messages[STATUS])
        camera.wait(duration_s + 60)
        late_kib = node.resident_kib()
        values = settled(consumer)
    ages_ms = Run(consumer, first=1).ages_ms
    third = len(ages_ms) // 3
    first_ms, last_ms = np.median(ages_ms[early // 2 : early // 2 + third]), np.median(ages_ms[-third:])
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

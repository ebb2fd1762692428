"""Publishers and subscriptions of a process without ROS: cyclonedds moves the bytes that rosbags (de)serialises.

``ddspy_write`` and ``ddspy_take`` are no public names of cyclonedds: they move bytes where the public methods
would turn every number of an image into an object. Nothing outside this module knows of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from cyclonedds._clayer import ddspy_take, ddspy_write
from cyclonedds.core import (
    DDSException,
    GuardCondition,
    InstanceState,
    Policy,
    Qos,
    ReadCondition,
    SampleState,
    ViewState,
    WaitSet,
)
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from feature_matcher_ros.evaluation.rosbags_messages import RosbagsMessages
from feature_matcher_ros.ros.dds_types import DdsTypes
from feature_matcher_ros.ros.delivery import Delivery
from feature_matcher_ros.ros.graph import QosProfile

_ANY = SampleState.Any | ViewState.Any | InstanceState.Any
_TAKEN_AT_ONCE = 8
_MAX_KEPT = 64  # messages of a subscription that keeps all; more wait at the publisher
_BLOCKING_MS = 5  # a publisher never waits longer for a slow subscriber ...
_LOSSLESS_BLOCKING_MS = 2000  # ... unless it must not lose anything
_LOG = logging.getLogger(__name__)


class DdsSubscription:
    """Takes the messages of one topic in a thread of its own."""

    def __init__(
        self,
        participant: DomainParticipant,
        messages: RosbagsMessages,
        types: DdsTypes,
        topic: str,
        type_name: str,
        qos: QosProfile,
        on_message: Callable[[Any], None],
        on_damaged: Callable[[Exception], None],
    ) -> None:
        self.topic, self.qos = topic, qos
        self._messages, self._type_name = messages, type_name
        self._delivery = Delivery(topic, type_name, self._decode, on_message, on_damaged)
        description = Topic(participant, dds_topic(topic), types.description(type_name))
        self.reader = DataReader(participant, description, qos=dds_qos(qos, types.user_data(type_name), _MAX_KEPT))
        self._closing = GuardCondition(participant)
        self._waitset = WaitSet(participant)
        self._waitset.attach(self._closing)
        self._waitset.attach(ReadCondition(self.reader, _ANY))
        self.is_open = True
        self._thread = threading.Thread(target=self._run, name=f"take {topic}", daemon=True)
        self._thread.start()

    def num_publishers(self) -> int:
        return len(self.reader.get_matched_publications()) if self.is_open else 0

    def num_lost(self) -> int:
        return int(self.reader.get_sample_lost_status().total_count) if self.is_open else 0

    def close(self) -> None:
        self.is_open = False
        self._closing.set(True)
        if threading.current_thread() is not self._thread:
            self._thread.join()
            for entity in (self._waitset, self._closing, self.reader):
                entity._delete(entity._ref)

    def _run(self) -> None:
        while self.is_open:
            try:
                self._waitset.wait(duration(seconds=1))
                taken = ddspy_take(self.reader._ref, _ANY, _TAKEN_AT_ONCE)
            except DDSException as error:
                _LOG.error("%s cannot be read any more: %s", self.topic, error)
                return
            if isinstance(taken, int):
                _LOG.error("%s cannot be read any more: %s", self.topic, DDSException(taken))
                return
            for data, info in taken:
                if info.valid_data and self.is_open:
                    self._delivery.hand_over(data)

    def _decode(self, data: bytes) -> Any:
        return self._messages.typestore.deserialize_cdr(data, self._type_name)


class DdsPublisher:
    """Sends the messages of one topic."""

    def __init__(
        self,
        participant: DomainParticipant,
        messages: RosbagsMessages,
        types: DdsTypes,
        topic: str,
        type_name: str,
        qos: QosProfile,
    ) -> None:
        self.topic, self._type_name, self._messages = topic, type_name, messages
        self.is_open = True
        description = Topic(participant, dds_topic(topic), types.description(type_name))
        self.writer = DataWriter(participant, description, qos=dds_qos(qos, types.user_data(type_name)))

    def has_subscribers(self) -> bool:
        return bool(self.writer.get_publication_matched_status().current_count)

    def close(self) -> None:
        self.is_open = False
        self.writer._delete(self.writer._ref)

    def publish(self, message: Any) -> bool:
        return self.publish_cdr(bytes(self._messages.serialize(message, self._type_name)))

    def publish_cdr(self, data: bytes) -> bool:
        """Send serialised bytes; CDR pads them to four."""
        code = ddspy_write(self.writer._ref, data.ljust((len(data) + 3) & ~3, b"\0"))
        if code < 0 and code != DDSException.DDS_RETCODE_TIMEOUT:
            raise DDSException(code, f"when publishing on {self.topic}")
        return bool(code >= 0)


def dds_topic(topic: str) -> str:
    """ROS puts ``rt`` before the names of topics; the graph's own has no slash before it."""
    return f"rt{topic}" if topic.startswith("/") else topic


def dds_qos(qos: QosProfile, user_data: bytes, max_kept: int | None = None) -> Qos:
    """The policies of an endpoint; ``max_kept`` bounds a subscription that keeps all."""
    blocking_ms = _BLOCKING_MS if qos.depth else _LOSSLESS_BLOCKING_MS
    reliable = Policy.Reliability.Reliable(duration(milliseconds=blocking_ms))
    policies = [
        reliable if qos.is_reliable else Policy.Reliability.BestEffort,
        Policy.History.KeepLast(qos.depth) if qos.depth else Policy.History.KeepAll,
        Policy.Durability.TransientLocal if qos.is_latched else Policy.Durability.Volatile,
        Policy.DataRepresentation(use_cdrv0_representation=True),
        Policy.Userdata(user_data),
    ]
    if qos.depth == 0:
        limit = max_kept or _MAX_KEPT
        policies.append(Policy.ResourceLimits(max_samples=limit, max_instances=-1, max_samples_per_instance=limit))
    return Qos(*policies)

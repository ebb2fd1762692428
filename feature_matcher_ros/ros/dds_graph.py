"""A node of a ROS 2 graph in a process without ROS."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
from cyclonedds.core import InstanceState, Policy
from cyclonedds.domain import Domain, DomainParticipant

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.evaluation.bag_transforms import TransformTree
from feature_matcher_ros.evaluation.rosbags_messages import RosbagsMessages
from feature_matcher_ros.ros.dds_endpoints import DdsPublisher, DdsSubscription
from feature_matcher_ros.ros.dds_types import DdsTypes, ros_type_name
from feature_matcher_ros.ros.graph import LATCHED, Endpoint, QosProfile
from feature_matcher_ros.ros.names import NodeName
from feature_matcher_ros.ros.simulated_clock import SimulatedClock

_CLOCK = ("/clock", "rosgraph_msgs/msg/Clock")
_ENTITIES = ("ros_discovery_info", "rmw_dds_common/msg/ParticipantEntitiesInfo")
_MAX_ENDPOINTS = 10_000
_DOMAINS: dict[int, Domain] = {}  # a process configures a domain once
_LOOPBACK = """<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="lo"/></Interfaces>
<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>
<MaxAutoParticipantIndex>32</MaxAutoParticipantIndex><Peers><Peer Address="localhost"/></Peers></Discovery>
</Domain></CycloneDDS>"""


# A subscriber that never reads would hold up all others as soon as this much waits for it. The publishers here
# keep so few messages that they need not be held up; what the user says in CYCLONEDDS_URI comes later, and counts.
_WATERMARKS = """<CycloneDDS><Domain><Internal><Watermarks><WhcHigh>64MB</WhcHigh><WhcHighInit>64MB</WhcHighInit>
<WhcLow>32MB</WhcLow></Watermarks></Internal></Domain></CycloneDDS>"""


class DdsGraph:
    """The ``Graph`` of one node, over Eclipse Cyclone DDS; a context manager.

    The domain is that of ROS_DOMAIN_ID, the network that of CYCLONEDDS_URI. Without the latter, and with
    ROS_LOCALHOST_ONLY=1 or ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST, it is this machine alone, as in ROS.

    Raises:
        ConfigError: the domain cannot be joined.
    """

    def __init__(self, node: NodeName, *, use_sim_time: bool = False) -> None:
        self.make = RosbagsMessages()
        self._node = node
        self._types = DdsTypes(self.make.typestore)
        self._domain, self._participant = _join(_domain_id())
        self._known = BuiltinDataReader(self._participant, BuiltinTopicDcpsPublication)
        self._lock = threading.Lock()
        self._tree, self._is_tree_heard = TransformTree(), False
        self._subscriptions: list[DdsSubscription] = []
        self._publishers: list[DdsPublisher] = []
        entities = QosProfile(is_reliable=True, depth=1, is_latched=True)
        self._entities = DdsPublisher(self._participant, self.make, self._types, *_ENTITIES, entities)
        self._clock = SimulatedClock() if use_sim_time else None
        if self._clock is not None:
            heard = self._clock.hear
            self.subscribe(*_CLOCK, QosProfile(is_reliable=False, depth=1), heard, lambda _: None)
        self._announce()

    @property
    def node_name(self) -> str:
        return self._node.full_name

    def expand(self, topic: str) -> str:
        return self._node.expand(topic)

    def resolve(self, topic: str) -> str:
        return self._node.resolve(topic)

    def subscribe(
        self,
        topic: str,
        type_name: str,
        qos: QosProfile,
        on_message: Callable[[Any], None],
        on_damaged: Callable[[Exception], None],
    ) -> DdsSubscription:
        name = self.resolve(topic)
        subscription = DdsSubscription(
            self._participant, self.make, self._types, name, type_name, qos, on_message, on_damaged
        )
        with self._lock:
            self._subscriptions.append(subscription)
        self._announce()
        return subscription

    def advertise(self, topic: str, type_name: str, qos: QosProfile) -> DdsPublisher:
        publisher = DdsPublisher(self._participant, self.make, self._types, self.resolve(topic), type_name, qos)
        with self._lock:
            self._publishers.append(publisher)
        self._announce()
        return publisher

    def transform(self, target: str, source: str, stamp_ns: int) -> Float | None:
        """The transform between frames that do not move relative to each other; ``/tf`` is not followed here."""
        with self._lock:
            is_first, self._is_tree_heard = not self._is_tree_heard, True
        if is_first:
            self.subscribe("/tf_static", "tf2_msgs/msg/TFMessage", LATCHED, self._hear_tree, lambda _: None)
        with self._lock:
            return self._tree.fixed_transform(target, source)

    def publishers(self) -> Sequence[Endpoint]:
        own = self._participant.get_guid()
        found = []
        for sample in self._known.read(_MAX_ENDPOINTS):
            is_alive = sample.sample_info.instance_state == InstanceState.Alive
            if is_alive and sample.participant_key != own and sample.topic_name.startswith("rt/"):
                type_name = ros_type_name(sample.type_name)
                found.append(Endpoint(sample.topic_name[2:], type_name or sample.type_name, _profile(sample.qos)))
        return found

    def now_ns(self) -> int:
        return time.time_ns() if self._clock is None else self._clock.now_ns()

    def is_time_paused(self) -> bool:
        return self._clock is not None and self._clock.is_paused()

    def close(self) -> None:
        """Leave the graph."""
        with self._lock:
            subscriptions, self._subscriptions, self._publishers = self._subscriptions, [], []
        for subscription in subscriptions:
            if subscription.is_open:
                subscription.close()
        self._participant._delete(self._participant._ref)

    def __enter__(self) -> DdsGraph:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hear_tree(self, message: Any) -> None:
        with self._lock:
            self._tree.add(message.transforms, are_fixed=True)

    def _announce(self) -> None:
        """Tell ROS which endpoints are this node's, so that its tools list it by name."""
        with self._lock:
            self._subscriptions = [subscription for subscription in self._subscriptions if subscription.is_open]
            self._publishers = [publisher for publisher in self._publishers if publisher.is_open]
            readers = [self._gid(subscription.reader) for subscription in self._subscriptions]
            writers = [self._gid(publisher.writer) for publisher in self._publishers]
        node = self.make(
            "rmw_dds_common/msg/NodeEntitiesInfo",
            node_namespace=self._node.namespace,
            node_name=self._node.name,
            reader_gid_seq=readers,
            writer_gid_seq=writers,
        )
        self._entities.publish(self.make(_ENTITIES[1], gid=self._gid(self._participant), node_entities_info_seq=[node]))

    def _gid(self, entity: Any) -> Any:
        return self.make("rmw_dds_common/msg/Gid", data=np.frombuffer(entity.get_guid().bytes, np.uint8))


def _domain_id() -> int:
    text = os.environ.get("ROS_DOMAIN_ID", "") or "0"
    if not text.isdecimal() or int(text) > 232:
        raise ConfigError(f"ROS_DOMAIN_ID = '{text}' is no domain: give a number of 0 to 232.")
    return int(text)


def _join(domain_id: int) -> tuple[Domain, DomainParticipant]:
    is_local = os.environ.get("ROS_LOCALHOST_ONLY") == "1" or (
        os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper() == "LOCALHOST"
    )
    network = os.environ.get("CYCLONEDDS_URI") or (_LOOPBACK if is_local else "")
    try:
        domain = _DOMAINS.get(domain_id) or Domain(domain_id, ",".join(filter(None, (_WATERMARKS, network))))
        _DOMAINS[domain_id] = domain
        return domain, DomainParticipant(domain_id)
    except Exception as error:
        raise ConfigError(
            f"DDS domain {domain_id} cannot be joined ({error}): correct CYCLONEDDS_URI, or end other nodes if there "
            "are more than its MaxAutoParticipantIndex allows."
        ) from error


def _profile(qos: Any) -> QosProfile:
    history = qos[Policy.History]
    return QosProfile(
        is_reliable=qos[Policy.Reliability] != Policy.Reliability.BestEffort,
        depth=0 if history == Policy.History.KeepAll else history.depth,
        is_latched=qos[Policy.Durability] != Policy.Durability.Volatile,
    )

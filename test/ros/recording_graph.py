"""A graph without a middleware: it keeps what the node publishes, and lets a test speak to its subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.evaluation.rosbags_messages import RosbagsMessages
from feature_matcher_ros.ros.graph import Endpoint, QosProfile
from feature_matcher_ros.ros.names import NodeName


class RecordingPublisher:
    """A publisher to which somebody listens, or nobody."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.is_heard = self.is_open = True
        self.num_asked = 0  # how often the node asked whether somebody listens
        self.messages: list[Any] = []

    def has_subscribers(self) -> bool:
        self.num_asked += 1
        return self.is_heard

    def publish(self, message: Any) -> bool:
        self.messages.append(message)
        return True

    def close(self) -> None:
        self.is_open = False


class RecordingSubscription:
    """A subscription; ``hear`` is the middleware's thread."""

    def __init__(self, topic: str, qos: QosProfile, hear: Callable[[Any], None], publishers: int) -> None:
        self.topic, self.qos, self.hear, self._publishers = topic, qos, hear, publishers
        self.is_open = True

    def num_publishers(self) -> int:
        return self._publishers

    def num_lost(self) -> int:
        return 0

    def close(self) -> None:
        self.is_open = False


class RecordingGraph:
    """One node; ``endpoints`` are the publishers of the others, and ``time_ns`` is its clock."""

    node_name = "/feature_matcher"

    def __init__(self, endpoints: Sequence[Endpoint] = ()) -> None:
        self.make, self._name = RosbagsMessages(), NodeName()
        self.endpoints, self.time_ns = list(endpoints), 1
        self.publications: list[RecordingPublisher] = []
        self.subscriptions: list[RecordingSubscription] = []
        self.refused = ""  # a topic that the middleware cannot subscribe to

    def expand(self, topic: str) -> str:
        return self._name.expand(topic)

    def resolve(self, topic: str) -> str:
        return self._name.resolve(topic)

    def subscribe(
        self, topic: str, type_name: str, qos: QosProfile, on_message: Callable[[Any], None], on_damaged: object
    ) -> RecordingSubscription:
        name = self.resolve(topic)
        if name == self.refused:
            raise RuntimeError("the middleware is out of resources")
        publishers = sum((endpoint.topic, endpoint.type_name) == (name, type_name) for endpoint in self.endpoints)
        self.subscriptions.append(RecordingSubscription(name, qos, on_message, publishers))
        return self.subscriptions[-1]

    def advertise(self, topic: str, type_name: str, qos: QosProfile) -> RecordingPublisher:
        self.publications.append(RecordingPublisher(self.resolve(topic)))
        return self.publications[-1]

    def transform(self, target: str, source: str, stamp_ns: int) -> Float | None:
        return None

    def publishers(self) -> Sequence[Endpoint]:
        return self.endpoints

    def now_ns(self) -> int:
        return self.time_ns

    def is_time_paused(self) -> bool:
        return False

    def published(self, topic: str) -> RecordingPublisher:
        return next(publication for publication in self.publications if publication.topic == topic)

    def listened_to(self) -> list[str]:
        return [subscription.topic for subscription in self.subscriptions if subscription.is_open]

    def tell(self, topic: str, message: Any) -> None:
        """Bring a message to whoever listens to a topic."""
        for subscription in self.subscriptions:
            if subscription.is_open and subscription.topic == topic:
                subscription.hear(message)

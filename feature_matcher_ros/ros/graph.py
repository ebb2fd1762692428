"""The seam between the server and a middleware: what the server needs of a ROS graph, and nothing more.

An adapter makes one ``Graph`` for one node. What a node of rclpy calls lifecycle is the server's own four
methods, so that an adapter forwards ``on_configure``, ``on_activate``, ``on_deactivate`` and ``on_cleanup``
to them. Parameters are values by name: an adapter reads them where its middleware keeps them and hands the
server one checked ``LiveConfig`` when it makes one, which it does for every ``on_configure``. Streams are
paired above the seam, by one ``Synchronizer`` for every adapter: what it decides can be measured, tested
without a middleware, and is what replay decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.ros.messages import MessageFactory


@dataclass(frozen=True, slots=True)
class QosProfile:
    """Quality of service, as far as it decides who hears whom and what is kept."""

    is_reliable: bool
    depth: int = 10  # messages kept; 0 keeps all, and a reliable publisher waits for its subscribers
    is_latched: bool = False  # late subscribers receive what was published before (transient local)

    def is_heard_by(self, subscription: QosProfile) -> bool:
        """Tell whether a subscription may ask for no more than this publisher offers."""
        return (self.is_reliable or not subscription.is_reliable) and (self.is_latched or not subscription.is_latched)

    def __str__(self) -> str:
        return f"{'reliable' if self.is_reliable else 'best effort'}{', transient local' if self.is_latched else ''}"


SENSOR_DATA = QosProfile(is_reliable=False, depth=5)
RELIABLE = QosProfile(is_reliable=True)
LATCHED = QosProfile(is_reliable=True, is_latched=True)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A publisher somewhere in the graph."""

    topic: str
    type_name: str  # sensor_msgs/msg/Image
    qos: QosProfile | None  # None where it is not known


class Subscription(Protocol):
    """A topic that is listened to."""

    @property
    def topic(self) -> str:
        """The full name, remapped."""

    @property
    def qos(self) -> QosProfile: ...

    def num_publishers(self) -> int:
        """Count the publishers whose messages arrive here."""

    def num_lost(self) -> int:
        """Count the messages that the middleware lost or overwrote before they could be handed over."""

    def close(self) -> None:
        """Stop listening; no callback runs when this returns, unless it is called from one."""


class Publisher(Protocol):
    """A topic that is published."""

    @property
    def topic(self) -> str:
        """The full name, remapped."""

    def has_subscribers(self) -> bool: ...

    def publish(self, message: Any) -> bool:
        """Send a message; False if a slow subscriber left no room for it in time."""

    def close(self) -> None: ...


class Graph(Protocol):
    """One node in a graph; every method may be called from any thread."""

    @property
    def node_name(self) -> str:
        """The full name, "/robot/feature_matcher"."""

    @property
    def make(self) -> MessageFactory: ...

    def expand(self, topic: str) -> str:
        """The full name of a topic, ``~`` and namespace expanded, as yet not remapped."""

    def resolve(self, topic: str) -> str:
        """The full name of a topic, remapped by the first rule that fits."""

    def subscribe(
        self,
        topic: str,
        type_name: str,
        qos: QosProfile,
        on_message: Callable[[Any], None],
        on_damaged: Callable[[Exception], None],
    ) -> Subscription:
        """Listen to a topic, whose name is remapped here: one that is remapped already would be so twice.

        The callbacks of one subscription run one after the other, those of different subscriptions at the
        same time. A callback may wait: messages then wait, too, as far as quality of service allows.
        """

    def advertise(self, topic: str, type_name: str, qos: QosProfile) -> Publisher:
        """Publish a topic, whose name is remapped here."""

    def transform(self, target: str, source: str, stamp_ns: int) -> Float | None:
        """``target_from_source`` (4, 4) of two frames of tf; None where nothing connects them, as far as is known."""

    def publishers(self) -> Sequence[Endpoint]:
        """All publishers of other nodes that are known by now."""

    def now_ns(self) -> int:
        """The time on the node's clock, which is the simulation's where it asks for that."""

    def is_time_paused(self) -> bool:
        """Tell whether the clock of a simulation stands still, or has never been heard."""

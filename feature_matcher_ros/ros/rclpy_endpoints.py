"""Publishers and subscriptions of a node of rclpy."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from rosidl_runtime_py.utilities import get_message

from feature_matcher_ros.ros.delivery import Delivery
from feature_matcher_ros.ros.graph import QosProfile

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError


_WAIT_NS = 1_000_000_000
_LOG = logging.getLogger(__name__)


class RclpySubscription:
    """Takes the messages of one topic in a thread of its own.

    An executor of rclpy gathers all that the node waits for anew, in Python, before every message and twice after it,
    and no other thread can run meanwhile: what came of an image was published 1.1 ms later. Events are left to it.

    Messages are taken as bytes and read here, so that bytes which are no message are known to have come on this topic.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        type_name: str,
        qos: QosProfile,
        on_message: Callable[[Any], None],
        on_damaged: Callable[[Exception], None],
    ) -> None:
        self.topic, self.qos = node.resolve_topic_name(topic), qos
        self._node, self._type = node, get_message(type_name)
        self._delivery = Delivery(self.topic, type_name, self._decode, on_message, on_damaged)
        self._is_open = True
        self._num_lost = 0
        self._subscription = self._subscribe(topic)
        self._closing = GuardCondition(None, None, context=node.context)
        self._thread = threading.Thread(target=self._run, name=f"take {self.topic}", daemon=True)
        self._thread.start()

    def num_publishers(self) -> int:
        return self._node.count_publishers(self.topic) if self._is_open else 0

    def num_lost(self) -> int:
        return self._num_lost

    def close(self) -> None:
        self._is_open = False
        self._closing.trigger()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._node.destroy_subscription(self._subscription)
        self._closing.destroy()

    def _subscribe(self, topic: str) -> Any:
        """Subscribe; not every middleware can tell how many messages it lost."""
        arguments: tuple[Any, ...] = (self._type, topic, self._delivery.hand_over, rclpy_qos(self.qos))
        group = _EventsAlone()
        try:
            events = SubscriptionEventCallbacks(message_lost=self._lose, use_default_callbacks=False)
            return self._node.create_subscription(*arguments, callback_group=group, event_callbacks=events, raw=True)
        except UnsupportedEventTypeError:
            events = SubscriptionEventCallbacks(use_default_callbacks=False)
            return self._node.create_subscription(*arguments, callback_group=group, event_callbacks=events, raw=True)

    def _lose(self, status: Any) -> None:
        self._num_lost = int(status.total_count)

    def _run(self) -> None:
        context = self._node.context
        with self._subscription.handle, self._closing.handle, context.handle:  # so that they outlive the waiting
            waiting = rclpy_implementation.WaitSet(1, 1, 0, 0, 0, 0, context.handle)
            while self._is_open and context.ok():
                self._wait_and_take(waiting)

    def _wait_and_take(self, waiting: Any) -> None:
        """Hand over what comes, as ``rclpy.wait_for_message`` does."""
        try:
            waiting.clear_entities()
            waiting.add_subscription(self._subscription.handle)
            waiting.add_guard_condition(self._closing.handle)
            waiting.wait(_WAIT_NS)
            while self._is_open and (taken := self._subscription.handle.take_message(self._type, True)) is not None:
                self._delivery.hand_over(taken[0])
        except RuntimeError as error:  # of which rclpy's own errors are kinds
            _LOG.error("a message on %s cannot be taken: %s", self.topic, error)
            time.sleep(0.01)

    def _decode(self, data: bytes) -> Any:
        return deserialize_message(data, self._type)


class _EventsAlone(MutuallyExclusiveCallbackGroup):
    """Keeps an executor from waiting for the messages of a subscription."""

    def can_execute(self, entity: Any) -> bool:
        return not isinstance(entity, Subscription) and bool(super().can_execute(entity))


class RclpyPublisher:
    """Sends the messages of one topic; how long a slow subscriber may hold it up is the middleware's to say."""

    def __init__(self, node: Node, topic: str, type_name: str, qos: QosProfile) -> None:
        self.topic = node.resolve_topic_name(topic)
        self._node = node
        # Not a lifecycle publisher: the server publishes between ``activate`` and ``deactivate`` anyway, and one
        # that is silently muted could not tell whether its message was sent.
        self._publisher = node.create_publisher(get_message(type_name), topic, rclpy_qos(qos))

    def has_subscribers(self) -> bool:
        return bool(self._publisher.get_subscription_count())

    def publish(self, message: Any) -> bool:
        try:
            self._publisher.publish(message)
        except RuntimeError:  # of which rclpy's own errors are kinds; a slow subscriber left no room, say
            return False
        return True

    def close(self) -> None:
        self._node.destroy_publisher(self._publisher)


def rclpy_qos(qos: QosProfile) -> QoSProfile:
    """The policies of an endpoint."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST if qos.depth else HistoryPolicy.KEEP_ALL,
        depth=qos.depth,
        reliability=ReliabilityPolicy.RELIABLE if qos.is_reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if qos.is_latched else DurabilityPolicy.VOLATILE,
    )


def offered_qos(qos: QoSProfile) -> QosProfile | None:
    """What a publisher offers; None where the middleware does not tell."""
    if qos.reliability not in (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT):
        return None
    return QosProfile(
        is_reliable=qos.reliability == ReliabilityPolicy.RELIABLE,
        depth=0 if qos.history == HistoryPolicy.KEEP_ALL else qos.depth,
        is_latched=qos.durability == DurabilityPolicy.TRANSIENT_LOCAL,
    )

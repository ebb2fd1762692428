"""A node of rclpy as the server sees it.

``message_filters`` and ``cv_bridge`` are not used, but compared with: both find the same pairs and the same pixels
(``test/ros/test_rclpy_synchronizing.py``, ``test_rclpy_decoding.py``). Streams are paired and images decoded above the
seam, by code that decides as replay does and works in any Python environment. ``message_filters`` takes six times as
long, does not tell which images found no partner, takes the first partner within the tolerance instead of the nearest,
and keeps its lock for ever when a callback raises. ``cv_bridge`` as Humble and Jazzy ship it does not load beside
NumPy 2. What only ROS knows stays ROS's: names and remapping, the clock, parameters, the lifecycle, and tf2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.ros.graph import Endpoint, QosProfile
from feature_matcher_ros.ros.rclpy_endpoints import RclpyPublisher, RclpySubscription, offered_qos
from feature_matcher_ros.ros.rclpy_messages import RclpyMessages
from feature_matcher_ros.ros.rclpy_transforms import RclpyTransforms
from feature_matcher_ros.ros.simulated_clock import SimulatedClock


class RclpyGraph:
    """The ``Graph`` of a node that its maker spins; the messages of subscriptions come without that."""

    def __init__(self, node: Node) -> None:
        self.make = RclpyMessages()
        self._node = node
        self._transforms: RclpyTransforms | None = None
        self._clock = SimulatedClock()

    @property
    def node_name(self) -> str:
        return str(self._node.get_fully_qualified_name())

    def expand(self, topic: str) -> str:
        return self._full_name(topic, only_expand=True)

    def resolve(self, topic: str) -> str:
        return self._full_name(topic, only_expand=False)

    def subscribe(
        self,
        topic: str,
        type_name: str,
        qos: QosProfile,
        on_message: Callable[[Any], None],
        on_damaged: Callable[[Exception], None],
    ) -> RclpySubscription:
        return RclpySubscription(self._node, topic, type_name, qos, on_message, on_damaged)

    def advertise(self, topic: str, type_name: str, qos: QosProfile) -> RclpyPublisher:
        return RclpyPublisher(self._node, topic, type_name, qos)

    def transform(self, target: str, source: str, stamp_ns: int) -> Float | None:
        if self._transforms is None:  # who asks for none does not pay for listening to all of tf
            self._transforms = RclpyTransforms(self._node)
        return self._transforms.transform(target, source, stamp_ns)

    def publishers(self) -> Sequence[Endpoint]:
        own = (self._node.get_name(), self._node.get_namespace())
        return [
            Endpoint(topic, info.topic_type, offered_qos(info.qos_profile))
            for topic, _ in self._node.get_topic_names_and_types()
            for info in self._publishers_of(topic)
            if (info.node_name, info.node_namespace) != own
        ]

    def now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def is_time_paused(self) -> bool:
        """Tell whether simulated time stands still, seen from one call to the next."""
        if not self._node.get_clock().ros_time_is_active:
            return False
        self._clock.see(self.now_ns())
        return self._clock.is_paused()

    def _full_name(self, topic: str, *, only_expand: bool) -> str:
        try:
            return str(self._node.resolve_topic_name(topic, only_expand=only_expand))
        except (ValueError, RuntimeError) as error:  # of which rclpy's own errors are kinds
            raise ConfigError(
                f"'{topic}' is no name of a topic: write letters, digits, '_' and '/', maybe behind '~/'."
            ) from error

    def _publishers_of(self, topic: str) -> list[TopicEndpointInfo]:
        """The publishers of a full name; rclpy remaps it, though it says that it does not."""
        if self._node.resolve_topic_name(topic) == topic:
            return list(self._node.get_publishers_info_by_topic(topic))
        with self._node.handle:
            found = rclpy_implementation.rclpy_get_publishers_info_by_topic(self._node.handle, topic, False)
        return [TopicEndpointInfo(**info) for info in found]


@contextmanager
def brief_graph(name: str, arguments: Sequence[str] = ()) -> Iterator[RclpyGraph]:
    """The graph of a node that looks and listens for a while; ``arguments`` are ROS arguments, for it alone.

    Raises:
        ConfigError: no such node can be made.
    """
    context = Context()
    try:
        rclpy.init(args=list(arguments), context=context)
        node = Node(name, context=context, enable_rosout=False, start_parameter_services=False)
    except RuntimeError as error:  # of which rclpy's own errors are kinds
        reason = " ".join(str(error).split())
        raise ConfigError(f"ROS 2 does not let a node in ({reason}): correct what it tells above.") from error
    try:
        yield RclpyGraph(node)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)

"""One live camera: its subscriptions, and the images that wait to be processed."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feature_matcher_ros.errors import ImageError
from feature_matcher_ros.evaluation.bag_topics import IMAGE
from feature_matcher_ros.node_config import NodeConfig
from feature_matcher_ros.ros.frame_ledger import DropReason, FrameCounts, FrameLedger
from feature_matcher_ros.ros.graph import LATCHED, RELIABLE, SENSOR_DATA, Endpoint, Graph, QosProfile, Subscription
from feature_matcher_ros.ros.input_topics import InputTopic, below, image_topics, input_topics, second_role
from feature_matcher_ros.ros.latest_slot import LatestSlot, Mailbox, PatientQueue
from feature_matcher_ros.ros.live_rig import LiveRig, Role
from feature_matcher_ros.ros.messages import stamp_ns_of
from feature_matcher_ros.ros.synchronizer import Bundle, Synchronizer

_QUEUE_CAPACITY = 8
_MAX_LEAD = 8  # messages of a stream that wait for the other one; less than the synchroniser keeps
_CATCH_UP_S = 1.0
_MAX_DISORDER_NS = 500_000_000  # stamps that go back further than this are a jump in time
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What has come by now."""

    counts: FrameCounts
    messages: Mapping[InputTopic, int]


class CameraInput:
    """Receives the messages of one camera; callbacks hand over, and never raise.

    Raises:
        ConfigError: a topic's name is none.
        CalibrationError: the calibration file cannot be used.
        ImageError: the mask cannot be read.
    """

    def __init__(self, graph: Graph, config: NodeConfig, namespace: str, changed: threading.Condition) -> None:
        self._graph, self._config, self._changed = graph, config, changed
        self.namespace = namespace
        self.second = second_role(config)
        self.wanted = input_topics(config, namespace, graph)
        self.rig = LiveRig(self.second, image_topics(config, namespace, graph), config.calibration, config.mask)
        self._mask_topic = graph.expand(below(namespace, config.mask_topic)) if config.mask_topic else ""
        self.ledger = FrameLedger()
        self.num_time_jumps = 0
        self.num_errors = 0  # exceptions in callbacks
        self._subscriptions: dict[InputTopic, Subscription] = {}
        self._received: Counter[InputTopic] = Counter()
        self._beside: list[Subscription] = []  # to what is no stream of a frame: /tf_static, the mask
        self._order = (
            threading.Condition()
        )  # held while a message is paired and posted, which keeps the stream in order
        self._is_open = False
        self._mailbox: Mailbox[Bundle] = self._new_mailbox()
        self._synchronizer: Synchronizer | None = None
        self._last_stamp_ns: int | None = None

    def open(self) -> None:
        """Listen."""
        self._is_open = True
        self._mailbox, self._last_stamp_ns = self._new_mailbox(), None
        skew_ms = self._config.stereo_max_skew_ms if self.second is Role.RIGHT else self._config.depth_max_skew_ms
        if self.second is not None:
            self._synchronizer = Synchronizer(round(skew_ms * 1e6), is_prompt=not self._config.process_every_frame)
            self._listen_to("/tf_static", "tf2_msgs/msg/TFMessage", LATCHED, self.rig.hear_transforms)
        if self._mask_topic:
            for qos in (LATCHED, SENSOR_DATA):  # the first hears latched masks, the second unlatched ones
                self._listen_to(self._mask_topic, IMAGE, qos, self._on_mask)
        endpoints = self._graph.publishers()
        for wanted in self.wanted:
            self._subscriptions[wanted] = self._subscribe(wanted, self._qos(wanted, endpoints))

    def close(self) -> None:
        """Stop listening, and let go of what waits."""
        self._is_open = False
        waiting = self._mailbox.close()  # first, so that no callback waits for room
        with self._order:
            self._order.notify_all()
        for subscription in (*self._subscriptions.values(), *self._beside):
            subscription.close()
        self._subscriptions, self._beside = {}, []
        with self._order:
            if self._synchronizer is not None:
                waiting += len(list(self._synchronizer.finish()))
        self.ledger.drop(DropReason.STOPPED, waiting)

    def take(self) -> Bundle | None:
        """The next frame, as soon as the cameras are known; call it with ``changed`` held."""
        return self._mailbox.take() if self.has_frame() else None

    def has_frame(self) -> bool:
        """Tell whether there is a frame to take."""
        return len(self._mailbox) > 0 and not self.rig.missing_infos() and not self.awaits_depth_info()

    def arrivals(self) -> Arrivals:
        return Arrivals(self.ledger.counts(), Counter(self._received))

    def num_received(self, wanted: InputTopic) -> int:
        """Count the messages that came on a topic."""
        return self._received[wanted]

    def num_publishers(self) -> int:
        """Count the publishers of the images."""
        of_images = [wanted for wanted in self.wanted if wanted.role is Role.IMAGE and not wanted.is_info]
        subscriptions = self.subscriptions()
        return sum(subscriptions[wanted].num_publishers() for wanted in of_images if wanted in subscriptions)

    def subscriptions(self) -> dict[InputTopic, Subscription]:
        return dict(self._subscriptions)

    def awaits_depth_info(self) -> bool:
        """Depth may have no CameraInfo; where somebody publishes one it is waited for."""
        if self.second is not Role.DEPTH or self._config.calibration or self.rig.has_info(Role.DEPTH):
            return False
        of_depth = [subscription for wanted, subscription in self.subscriptions().items() if wanted.is_optional]
        return any(subscription.num_publishers() for subscription in of_depth)

    def num_lost(self) -> int:
        """Count the messages that the middleware lost."""
        return sum(subscription.num_lost() for subscription in self.subscriptions().values())

    def follow_publishers(self) -> None:
        """Where quality of service is chosen by what is offered, choose again."""
        followed = [
            wanted for wanted, subscription in self.subscriptions().items() if self._follows(wanted, subscription)
        ]
        endpoints = self._graph.publishers() if followed else ()
        for wanted in followed:
            subscription, qos = self._subscriptions[wanted], self._qos(wanted, endpoints)
            if qos != subscription.qos:
                subscription.close()
                self._subscriptions[wanted] = self._subscribe(wanted, qos)

    def _follows(self, wanted: InputTopic, subscription: Subscription) -> bool:
        if wanted.is_info:
            return subscription.qos.is_latched or not self.rig.has_info(wanted.role)
        return self._config.qos == "auto"

    def _listen_to(self, topic: str, type_name: str, qos: QosProfile, on_message: Callable[[Any], None]) -> None:
        self._beside.append(self._graph.subscribe(topic, type_name, qos, on_message, lambda _: None))

    def _on_mask(self, message: Any) -> None:
        try:
            self.rig.hear_mask(message)
        except ImageError as error:
            _LOG.warning("the mask is not used: %s", error)

    def _subscribe(self, wanted: InputTopic, qos: QosProfile) -> Subscription:
        handlers = {Role.IMAGE: self._on_image, Role.RIGHT: self._on_second, Role.DEPTH: self._on_second}
        handle = self._on_info(wanted.role) if wanted.is_info else handlers[wanted.role]

        def on_message(message: Any) -> None:
            self._received[wanted] += 1
            try:
                handle(message)
            except Exception as error:  # whatever it is, the middleware must not see it
                self.num_errors += 1
                if self.num_errors == 1:
                    _LOG.exception("a message on %s could not be handed over: %r", wanted.topic, error)

        def on_damaged(error: Exception) -> None:
            self.ledger.damage()

        return self._graph.subscribe(wanted.name, wanted.type_name, qos, on_message, on_damaged)

    def _qos(self, wanted: InputTopic, endpoints: Sequence[Endpoint]) -> QosProfile:
        """Ask for little by default: a subscription that asks for more than is offered hears nothing."""
        offered = [endpoint.qos for endpoint in endpoints if endpoint.topic == wanted.topic]
        is_offered = bool(offered) and all(qos is not None and qos.is_reliable for qos in offered)
        if wanted.is_info:  # until it has been heard: it may have been published before, and only once
            is_latched = is_offered and all(qos is not None and qos.is_latched for qos in offered)
            return LATCHED if is_latched and not self.rig.has_info(wanted.role) else SENSOR_DATA
        is_reliable = is_offered if self._config.qos == "auto" else self._config.qos == "reliable"
        if self._config.process_every_frame:
            return QosProfile(is_reliable, depth=0)
        return RELIABLE if is_reliable else SENSOR_DATA

    def _new_mailbox(self) -> Mailbox[Bundle]:
        if self._config.process_every_frame:
            return PatientQueue(self._changed, _QUEUE_CAPACITY)
        return LatestSlot(self._changed)

    def _on_info(self, role: Role) -> Callable[[Any], None]:
        def hear(message: Any) -> None:
            self.rig.hear_info(role, message)
            with self._changed:
                self._changed.notify_all()

        return hear

    def _on_image(self, message: Any) -> None:
        self.ledger.receive()
        try:
            stamp_ns = stamp_ns_of(message.header)
        except Exception:
            self.ledger.drop(DropReason.FAILED)
            raise
        with self._order:
            if stamp_ns == 0:
                self.ledger.drop(DropReason.WITHOUT_STAMP)
            elif not self._is_in_order(stamp_ns):
                self.ledger.drop(DropReason.OUT_OF_ORDER)
            elif self._synchronizer is None:
                self._post([Bundle(stamp_ns, message, arrived_s=time.monotonic())])
            else:
                synchronizer = self._synchronizer
                self._let_catch_up(lambda: synchronizer.image_lead)
                self._post(synchronizer.add_image(stamp_ns, message))
                self._order.notify_all()

    def _on_second(self, message: Any) -> None:
        stamp_ns = stamp_ns_of(message.header)
        with self._order:
            if stamp_ns and self._synchronizer is not None:
                synchronizer = self._synchronizer
                self._let_catch_up(lambda: synchronizer.second_lead)
                self._post(synchronizer.add_second(stamp_ns, message))
                self._order.notify_all()

    def _let_catch_up(self, lead: Callable[[], int]) -> None:
        """Where no image may be lost, a stream that is far ahead waits for the other one, but not for ever."""
        if self._config.process_every_frame:
            self._order.wait_for(lambda: lead() < _MAX_LEAD or not self._is_open, _CATCH_UP_S)

    def _post(self, bundles: Iterable[Bundle]) -> None:
        """Hand over in the order of the stream, which is why the lock is held even while a queue is full."""
        for bundle in bundles:
            if self.second is not None and bundle.second is None:
                self.ledger.drop(DropReason.WITHOUT_PARTNER)
            elif (dropped := self._mailbox.put(bundle)) is not None:
                self.ledger.drop(DropReason.STOPPED if dropped is bundle else DropReason.SUPERSEDED)

    def _is_in_order(self, stamp_ns: int) -> bool:
        """Follow the stamps; what comes late over the network is passed over where only the newest counts."""
        last_ns = self._last_stamp_ns
        if last_ns is not None and stamp_ns < last_ns:
            if last_ns - stamp_ns < _MAX_DISORDER_NS and not self._config.process_every_frame:
                return False
            self.num_time_jumps += 1
        self._last_stamp_ns = stamp_ns
        return True

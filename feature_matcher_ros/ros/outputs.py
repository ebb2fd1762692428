"""What the live node publishes of one camera; nothing is computed for a topic that nobody subscribes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from feature_matcher_ros.datatypes import Frame, FrontEndResult, Image
from feature_matcher_ros.drawing import draw_matches
from feature_matcher_ros.evaluation.bag_transforms import clean_frame_id
from feature_matcher_ros.node_config import NodeConfig
from feature_matcher_ros.ros.base_frame import BaseFrame, Placed
from feature_matcher_ros.ros.conversions import (
    compressed_image_message,
    image_message,
    transforms_message,
)
from feature_matcher_ros.ros.graph import Graph, Publisher, QosProfile
from feature_matcher_ros.ros.input_topics import below
from feature_matcher_ros.ros.live_path import LivePath
from feature_matcher_ros.ros.markers import marker_message
from feature_matcher_ros.ros.topics import (
    CORRESPONDENCES,
    DIAGNOSTICS,
    KEYFRAME,
    MARKERS,
    MATCHES_IMAGE,
    MATCHES_IMAGE_RAW,
    ODOMETRY,
    PATH,
    RELATIVE_POSE,
    STATUS,
    TF,
    VIEW_FRAME,
    VIEW_TF,
    VINS_FEATURES,
    Topic,
    TopicOptions,
    has_place,
    messages_of,
)
from feature_matcher_ros.ros.vins_features import VinsFeatures

_OF_THE_BASE = {ODOMETRY, TF}
_KEPT_KEYFRAMES = 10  # images, as many as a lost camera may return to


class Outputs:
    """The publishers of one camera."""

    def __init__(self, graph: Graph, config: NodeConfig, namespace: str) -> None:
        self._make = graph.make
        self._options = TopicOptions(
            odom_frame_id=below(namespace, clean_frame_id(config.odom_frame_id)),
            publish_tf=config.publish_tf,
            publish_unscaled=config.publish_unscaled,
        )
        topics = [CORRESPONDENCES, RELATIVE_POSE, ODOMETRY, KEYFRAME, PATH, STATUS, MARKERS, VIEW_TF]
        topics += [MATCHES_IMAGE, MATCHES_IMAGE_RAW]
        topics += [TF] if config.publish_tf else []
        topics += [VINS_FEATURES] if config.publish_vins_features else []
        depth = 0 if config.process_every_frame else None
        self._publishers: dict[Topic, Publisher] = {
            topic: graph.advertise(
                topic.name if topic is TF else below(namespace, topic.name),
                topic.type_name,
                QosProfile(is_reliable=True, depth=topic.depth if depth is None else depth),
            )
            for topic in topics
        }
        base_frame_id = clean_frame_id(config.base_frame_id)
        self._base = BaseFrame(graph, base_frame_id) if base_frame_id else None
        self._path = LivePath(self._options.odom_frame_id)
        self._pictures: dict[int, Image] = {}
        self._vins = VinsFeatures()
        self.num_unsent = 0  # messages that a slow subscriber left no room for

    def publish(self, frame: Frame, result: FrontEndResult) -> None:
        """Publish all that somebody listens to."""
        heard = {topic for topic, publisher in self._publishers.items() if publisher.has_subscribers()}
        placed = self._place(result)
        if placed is not None and VIEW_TF in heard:  # before what is in the camera's frame: RViz does not wait for it
            self._send(VIEW_TF, self._view(result, placed))
        if not has_place(result, self._options):
            placed = None
        if placed is not None:
            self._path.follow(placed.result)
            self._publish_single(frame, placed.result, heard & _OF_THE_BASE)
        wanted = (heard - _OF_THE_BASE) | ({DIAGNOSTICS} if STATUS in heard else set())
        self._publish_single(frame, result, wanted)
        for topic, exists, make in self._of_several(frame, result, placed, heard):
            if exists and topic in heard:
                self._send(topic, make())
        self._publish_pictures(frame, result, heard)

    def close(self) -> None:
        """Publish no more."""
        for publisher in self._publishers.values():
            publisher.close()

    def _place(self, result: FrontEndResult) -> Placed | None:
        """Where the odometry is; None where it is not known."""
        if result.odometry is None:
            return None
        return Placed(result, np.eye(4)) if self._base is None else self._base.place(result)

    def _view(self, result: FrontEndResult, placed: Placed) -> Any:
        """The camera, and the frame that moves with it, also where no length is known."""
        camera, followed = placed.odom_from_cam(), np.eye(4)
        followed[:3, 3] = camera[:3, 3]
        places = {result.frame_id: camera, VIEW_FRAME: followed}
        return transforms_message(self._make, result.stamp_ns, self._options.odom_frame_id, places)

    def _publish_single(self, frame: Frame, result: FrontEndResult, wanted: set[Topic]) -> None:
        """The messages that depend on one frame alone; what replay calls diagnostics is the status here."""
        for topic, message in messages_of(self._make, result, frame.camera, self._options, wanted):
            self._send(STATUS if topic is DIAGNOSTICS else topic, message)

    def _of_several(
        self, frame: Frame, result: FrontEndResult, placed: Placed | None, heard: set[Topic]
    ) -> list[tuple[Topic, bool, Callable[[], Any]]]:
        """The messages that depend on more than one frame."""
        make, odom, stamp_ns = self._make, self._options.odom_frame_id, result.stamp_ns

        def markers() -> Any:
            assert placed is not None
            keyframes = self._path.poses() if result.is_keyframe else []  # thousands; who draws them remembers them
            return marker_message(make, stamp_ns, odom, placed.odom_from_cam(), frame.camera, keyframes)

        has_path = placed is not None and result.is_keyframe
        return [
            (PATH, has_path, lambda: self._path.message(make, stamp_ns)),
            (MARKERS, placed is not None, markers),
            (VINS_FEATURES, result.matches is not None, lambda: self._vins.message(make, result, frame.camera)),
        ]

    def _publish_pictures(self, frame: Frame, result: FrontEndResult, heard: set[Topic]) -> None:
        keyframe = None if result.keyframe_stamp_ns is None else self._pictures.get(result.keyframe_stamp_ns)
        if heard & {MATCHES_IMAGE, MATCHES_IMAGE_RAW} and result.matches is not None and keyframe is not None:
            caption = f"{len(result.matches)} matches, {result.status.value}, {result.motion_type.value}"
            picture = draw_matches(keyframe, frame.image, result.matches, inliers=result.inliers, caption=caption)
            for topic, make in ((MATCHES_IMAGE, compressed_image_message), (MATCHES_IMAGE_RAW, image_message)):
                if topic in heard:
                    self._send(topic, make(self._make, result.stamp_ns, result.frame_id, picture))
        if result.is_keyframe:
            self._pictures[result.stamp_ns] = frame.image
            for stamp_ns in list(self._pictures)[:-_KEPT_KEYFRAMES]:
                del self._pictures[stamp_ns]

    def _send(self, topic: Topic, message: Any) -> None:
        if not self._publishers[topic].publish(message):
            self.num_unsent += 1

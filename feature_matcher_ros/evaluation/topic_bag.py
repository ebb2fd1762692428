"""The topics of the live node, written into an MCAP bag: it opens in RViz, Foxglove and ``ros2 bag play``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError

from feature_matcher_ros.datatypes import Float, Frame, FrontEndResult
from feature_matcher_ros.errors import OutputError
from feature_matcher_ros.evaluation.bag_file import BagFile
from feature_matcher_ros.evaluation.mcap_repair import complete_mcap
from feature_matcher_ros.evaluation.rosbags_messages import RosbagsMessages
from feature_matcher_ros.ros.conversions import odom_from_cam, path_message
from feature_matcher_ros.ros.correspondences import Correspondences, correspondences_from_cloud
from feature_matcher_ros.ros.topics import CORRESPONDENCES, PATH, Topic, TopicOptions, has_place, messages_of

_FOREVER = QosTime(9223372036, 854775807)  # RMW_DURATION_INFINITE


class TopicBag:
    """Writes what the front-end says; a context manager.

    Leaving it, even by an exception or Ctrl-C, completes the bag with everything written so far. The
    path of the keyframes is written when a segment ends. A bag of an earlier run in the same place is
    replaced.

    Raises:
        OutputError: the bag cannot be written, for want of rights or of space; what reached the disk before
            can be read, without an index.
    """

    def __init__(self, path: Path, options: TopicOptions | None = None) -> None:
        self._path = path
        self._options = options or TopicOptions()
        self._messages = RosbagsMessages()
        self._connections: dict[Topic, Connection] = {}
        self._keyframes: list[tuple[int, Float]] = []
        self._segment: int | None = None
        self._last_stamp_ns = 0
        self._is_closed = False
        with self._one_sentence():
            remove_bag(path)
            # Version 8 of the metadata writes quality of service in the form that ROS 2 Humble knows, too.
            self._writer = Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()

    def write(self, frame: Frame, result: FrontEndResult) -> None:
        """Write all that the node would publish for one frame."""
        self._follow_path(result)
        self._last_stamp_ns = result.stamp_ns
        for topic, message in messages_of(self._messages, result, frame.camera, self._options):
            self._write(topic, result.stamp_ns, message)

    def close(self) -> None:
        """Complete the bag; nothing can be written any more."""
        if self._is_closed:
            return
        self._write_path()
        with self._one_sentence():
            self._writer.close()
        self._is_closed = True

    def __enter__(self) -> TopicBag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _follow_path(self, result: FrontEndResult) -> None:
        if not has_place(result, self._options) or not result.is_keyframe:
            return
        assert result.odometry is not None
        if result.odometry.segment != self._segment:
            self._write_path()
            self._segment = result.odometry.segment
        self._keyframes.append((result.stamp_ns, odom_from_cam(result)))

    def _write_path(self) -> None:
        keyframes, self._keyframes = self._keyframes, []
        if keyframes:
            message = path_message(self._messages, keyframes, keyframes[-1][0], self._options.odom_frame_id)
            # At the time of the last frame, not of the last keyframe, so that the bag stays in order.
            self._write(PATH, self._last_stamp_ns, message)

    def _write(self, topic: Topic, stamp_ns: int, message: Any) -> None:
        data = self._messages.serialize(message, topic.type_name)
        with self._one_sentence():
            connection = self._connections.get(topic) or self._open_topic(topic)
            self._writer.write(connection, stamp_ns, data)

    def _open_topic(self, topic: Topic) -> Connection:
        connection = self._writer.add_connection(
            topic.full_name,
            topic.type_name,
            typestore=self._messages.typestore,
            offered_qos_profiles=[_qos(topic)],
        )
        self._connections[topic] = connection
        return connection

    @contextlib.contextmanager
    def _one_sentence(self) -> Iterator[None]:
        try:
            yield
        except (OSError, WriterError) as error:
            self._abandon()
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise OutputError(
                f"cannot write '{self._path}' ({reason.rstrip('.')}): "
                "choose an output folder on a disk with space and rights to write."
            ) from error

    def _abandon(self) -> None:
        """Let go of the file, and save what has reached the disk."""
        self._is_closed = True
        with contextlib.suppress(AttributeError, OSError):  # there is no writer yet, or it has no space
            self._writer.abort()
        with contextlib.suppress(OSError):
            complete_mcap(self._path / f"{self._path.name}.mcap")


def read_correspondences(path: Path) -> Iterator[Correspondences]:
    """Yield the correspondences of a bag that ``TopicBag`` or the node's recorder wrote, in its order.

    Raises:
        SourceError: the bag cannot be read or its clouds hold no correspondences.
    """
    with BagFile(path) as bag:
        if CORRESPONDENCES.full_name in bag.topics:
            for message in bag.messages([CORRESPONDENCES.full_name]):
                yield correspondences_from_cloud(bag.decode(message))


def remove_bag(path: Path) -> None:
    """Remove the bag of an earlier run, and nothing that it did not write.

    Raises:
        OSError: a file cannot be removed.
    """
    for name in ("metadata.yaml", f"{path.name}.mcap"):
        (path / name).unlink(missing_ok=True)
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def _qos(topic: Topic) -> Qos:
    return Qos(
        QosHistory.KEEP_LAST,
        topic.depth,
        QosReliability.RELIABLE,
        QosDurability.VOLATILE,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        avoid_ros_namespace_conventions=False,
    )

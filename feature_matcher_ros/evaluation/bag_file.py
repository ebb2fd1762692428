"""ROS 1 and ROS 2 bags as streams of messages, with every error as one sentence."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader as Ros2Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from feature_matcher_ros.errors import FeatureMatcherError, SourceError

TF_TYPES = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_REPAIRS = {".bag": "rosbag reindex", ".mcap": "mcap recover", ".db3": "ros2 bag reindex"}


@dataclass(frozen=True, slots=True)
class BagTopic:
    """One topic of a bag that holds messages."""

    name: str
    type_name: str  # as in ROS 2, also for ROS 1
    count: int


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A message as it lies in the bag."""

    topic: str
    recorded_ns: int
    data: bytes


class BagFile:
    """A bag that is open for reading; a context manager.

    Messages are understood by the definitions of ROS 1 Noetic and ROS 2 Jazzy, whose common types have not
    changed for many years, so that a bag needs no definitions and may hold any other types beside them.
    ROS 1's CameraInfo comes with ROS 2's field names.

    Raises:
        SourceError: the file is missing, empty, cut off or no bag.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()
        self._typestore = _ros1_typestore() if self._is_ros1 else get_typestore(Stores.ROS2_JAZZY)
        with self._sentence_for_damage():
            self._readers = _readers_of(path)
            for reader in self._readers:
                reader.open()
                self._stack.callback(reader.close)
            self._connections = [connection for reader in self._readers for connection in reader.connections]
            self.start_ns = min((reader.start_time for reader in self._readers), default=0)
            self.end_ns = max((reader.end_time for reader in self._readers), default=0)
        self.topics = _topics_of(self._connections)
        if not self.topics:
            self._stack.close()
            raise SourceError(f"'{path}' holds no message: record again, with the camera running.")

    @property
    def layout(self) -> str:
        """Which kind of bag this is, for a person to read."""
        suffix = _storage_files(self._path)[0].suffix
        return {".bag": "ROS 1 bag", ".mcap": "ROS 2 bag (MCAP)"}.get(suffix, "ROS 2 bag (sqlite3)")

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> BagFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Yield the messages of some topics in the order of recording.

        Raises:
            SourceError: the bag is damaged from here on.
        """
        with self._sentence_for_damage():
            streams = [self._stream(reader, topics) for reader in self._readers]
            yield from merge(*streams, key=lambda message: message.recorded_ns)

    def first(self, topic: str) -> Any:
        """The first message of a topic that has any, decoded."""
        message = next(self.messages([topic]), None)
        if message is None:
            raise SourceError(f"'{self._path}' lacks the messages of {topic} that its index lists: record it again.")
        return self.decode(message)

    def decode(self, message: RawMessage) -> Any:
        """Turn the bytes of a message into an object; arrays are views of the bytes.

        Raises:
            SourceError: the bytes do not fit the type.
        """
        type_name = self.topics[message.topic].type_name
        try:
            if self._is_ros1:
                decoded = self._typestore.deserialize_ros1(message.data, type_name)
            else:
                decoded = self._typestore.deserialize_cdr(message.data, type_name)
        except Exception as error:  # the parser stumbles over damaged bytes in many ways
            raise SourceError(f"a message on {message.topic} is not a whole {type_name}: it was cut off.") from error
        return _with_ros2_names(decoded) if self._is_ros1 and type_name == _CAMERA_INFO else decoded

    @property
    def _is_ros1(self) -> bool:
        return self._path.suffix == ".bag"

    @staticmethod
    def _stream(reader: Ros1Reader | Ros2Reader, topics: Collection[str]) -> Iterator[RawMessage]:
        connections = [connection for connection in reader.connections if connection.topic in topics]
        if connections:
            for connection, recorded_ns, data in reader.messages(connections):
                yield RawMessage(connection.topic, recorded_ns, data)

    @contextmanager
    def _sentence_for_damage(self) -> Iterator[None]:
        try:
            yield
        except FeatureMatcherError:
            raise
        except Exception as error:  # the parser stumbles over damaged bytes in many ways
            self._stack.close()
            raise _damage(self._path, error) from error


def _ros1_typestore() -> Typestore:
    store = get_typestore(Stores.ROS1_NOETIC)
    for type_name in TF_TYPES:  # which rosbags leaves out
        store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", type_name))
    return store


def _with_ros2_names(info: Any) -> Any:
    """ROS 1 wrote the matrices of CameraInfo in capitals."""
    names = ("header", "height", "width", "distortion_model", "binning_x", "binning_y", "roi")
    matrices = {name: getattr(info, name.upper()) for name in ("d", "k", "r", "p")}
    return SimpleNamespace(**matrices, **{name: getattr(info, name) for name in names})


def _damage(path: Path, error: Exception) -> SourceError:
    if isinstance(error, PermissionError):
        return SourceError(f"'{path}' cannot be read (permission denied): change its permissions.")
    repair = _REPAIRS.get(path.suffix, "ros2 bag reindex")
    reason = re.sub(r"\s+", " ", str(error)).strip(" .") or type(error).__name__
    return SourceError(f"'{path}' is no whole bag ({reason}): copy it again, or repair it with '{repair}'.")


def _readers_of(path: Path) -> list[Ros1Reader | Ros2Reader]:
    if not path.exists():
        raise SourceError(f"'{path}' does not exist: give the file or folder of a bag.")
    files = _storage_files(path)
    empty = next((file for file in files if file.stat().st_size == 0), None)
    if empty is not None:
        raise SourceError(f"'{empty}' is empty: the recording was not finished, or the disk was full.")
    if path.suffix == ".bag":
        return [Ros1Reader(path)]
    # A recording that was killed has no metadata, but its files may well be whole.
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        return [Ros2Reader(file) for file in files]
    return [Ros2Reader(path)]


def _storage_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if re.search(r"\.(mcap|db3)(\.zstd)?$", file.name))
    if not files:
        raise SourceError(f"'{path}' holds no .mcap and no .db3 file: give the folder of a whole bag.")
    return files


def _topics_of(connections: Collection[Connection]) -> Mapping[str, BagTopic]:
    topics: dict[str, BagTopic] = {}
    for connection in connections:
        name, known = connection.topic, topics.get(connection.topic)
        if connection.msgcount:
            count = connection.msgcount + (known.count if known else 0)
            topics[name] = BagTopic(name, connection.msgtype, count)
    return topics

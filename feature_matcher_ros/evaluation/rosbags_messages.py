"""Messages of ROS 2 made and written with rosbags."""

from __future__ import annotations

from typing import Any

from rosbags.typesys import Stores, get_typestore


class RosbagsMessages:
    """The ``MessageFactory`` of rosbags, and the bytes that go on the wire or into a bag."""

    def __init__(self) -> None:
        self.typestore = get_typestore(Stores.ROS2_JAZZY)

    def __call__(self, type_name: str, /, **fields: Any) -> Any:
        return self.typestore.types[type_name](**fields)

    def serialize(self, message: Any, type_name: str) -> memoryview:
        return self.typestore.serialize_cdr(message, type_name)

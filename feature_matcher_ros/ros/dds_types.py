"""ROS message types as DDS knows them: what is announced on the wire, so that ROS nodes recognise it.

ROS calls a type ``sensor_msgs::msg::dds_::Image_`` and puts the hash of its definition (REP-2011) into the
user data of every endpoint. The bytes themselves are made and read by rosbags, which is fast on arrays;
the classes made here only describe them.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import (
    array,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    sequence,
    uint8,
    uint16,
    uint32,
    uint64,
)
from rosbags.interfaces import Nodetype
from rosbags.typesys.store import Typestore

_PRIMITIVES: dict[str, Any] = {
    **{"uint8": uint8, "uint16": uint16, "uint32": uint32, "uint64": uint64, "byte": uint8, "octet": uint8},
    **{"int8": int8, "int16": int16, "int32": int32, "int64": int64, "char": uint8},
    **{"float32": float32, "float64": float64, "bool": bool, "string": str},
}


class DdsTypes:
    """Makes the descriptions of message types, each once."""

    def __init__(self, typestore: Typestore) -> None:
        self._typestore = typestore
        self._made: dict[str, Any] = {}

    def description(self, type_name: str) -> Any:
        """The class that describes ``sensor_msgs/msg/Image`` to DDS."""
        if type_name not in self._made:
            fields = {name: self._field(kind) for name, kind in self._typestore.fielddefs[type_name][1]}
            body = {"__annotations__": fields, "__module__": __name__}
            keywords = {"typename": dds_type_name(type_name)}
            short = type_name.rpartition("/")[2]
            self._made[type_name] = dataclass(types.new_class(f"{short}_", (IdlStruct,), keywords, _fill(body)))
        return self._made[type_name]

    def user_data(self, type_name: str) -> bytes:
        """What an endpoint of this type says about itself."""
        return f"typehash={self._typestore.hash_rihs01(type_name)};".encode()

    def _field(self, kind: Any) -> Any:
        node, value = kind
        if node == Nodetype.BASE:
            return _PRIMITIVES[value[0]]
        if node == Nodetype.NAME:
            return self.description(value)
        element = self._field(value[0])
        if node == Nodetype.ARRAY:
            return array[element, value[1]]
        return sequence[element, value[1]] if value[1] else sequence[element]


def dds_type_name(type_name: str) -> str:
    """``sensor_msgs/msg/Image`` as it is called on the wire."""
    package, kind, short = type_name.split("/")
    return f"{package}::{kind}::dds_::{short}_"


def ros_type_name(dds_name: str) -> str | None:
    """The other way around; None where this is no type of ROS."""
    parts = dds_name.split("::")
    if len(parts) != 4 or parts[2] != "dds_" or not parts[3].endswith("_"):
        return None
    return f"{parts[0]}/{parts[1]}/{parts[3][:-1]}"


def _fill(body: dict[str, Any]) -> Any:
    return lambda namespace: namespace.update(body)

"""Messages of rclpy, made from the fields that every adapter is given."""

from __future__ import annotations

from array import array
from functools import cache
from typing import Any

import numpy as np
from rosidl_runtime_py.utilities import get_message

# The letters of ``array.array`` for the types of numpy; rclpy wants 'Q' and 'q' where C has 'L' and 'l' as well.
_LETTERS = {
    **{"uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q"},
    **{"int8": "b", "int16": "h", "int32": "i", "int64": "q"},
    **{"float32": "f", "float64": "d"},
}


class RclpyMessages:
    """The ``MessageFactory`` of rclpy.

    A sequence of numbers becomes an ``array.array`` by one copy of its bytes. The setters of rclpy take anything
    else number by number: 126 ms for the pixels of a small image, where this takes 0.04 ms.
    """

    def __call__(self, type_name: str, /, **fields: Any) -> Any:
        message, kinds = _described(type_name)
        return message(**{name: _fitting(kinds[name], value) for name, value in fields.items()})


@cache
def _described(type_name: str) -> tuple[Any, dict[str, str]]:
    """The class, which to look up takes longer than to make one; and its fields' types: "sequence<uint8>", "octet"."""
    message = get_message(type_name)
    return message, message.get_fields_and_field_types()


def _fitting(kind: str, value: Any) -> Any:
    if kind == "octet":
        return bytes([value])
    if kind.startswith("sequence") and isinstance(value, np.ndarray):
        numbers = array(_LETTERS[value.dtype.name])
        numbers.frombytes(np.ascontiguousarray(value).ravel().view(np.uint8).data)
        return numbers
    return value

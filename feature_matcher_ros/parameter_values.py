"""What the value of a parameter can be, how it is read and how it is written."""

from __future__ import annotations

import contextlib
import math
from array import array
from typing import Any

import yaml

NUMBERS = tuple[float, ...]
Value = bool | int | float | str | NUMBERS


def converted(value: Any, kind: Any) -> Value | None:
    """Read a value as a ``bool``, ``int``, ``float``, ``str`` or ``NUMBERS``; None where it is none.

    Strings are parsed; a float may be written as an integer.
    """
    if kind == NUMBERS:
        return _numbers(value)
    parsed = _parsed(value) if isinstance(value, str) and kind is not str else value
    if kind is float:
        return _number(parsed)
    return parsed if type(parsed) is kind else None


def name_of(kind: Any) -> str:
    """A type, as a message calls it."""
    return "list of numbers" if kind == NUMBERS else str(kind.__name__)


def yaml_line(name: str, value: Value) -> str:
    """One parameter in YAML; no numbers as a comment, for a ROS 2 node breaks off at a list of unknown type."""
    if not isinstance(value, tuple):
        return f"{name}: {yaml.safe_dump(value, width=math.inf).splitlines()[0]}"
    line = f"{name}: {yaml.safe_dump(list(value), default_flow_style=True, width=math.inf).strip()}"
    return line if value else f"# {line}"


def _number(value: Any) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    return None


def _numbers(value: Any) -> tuple[float, ...] | None:
    """Read a sequence, the array of a ROS 2 parameter or a text like ``0.9,0.8`` or ``[0.9, 0.8]``.

    Nothing is what a ROS 2 node has for an empty list: ``ros2 param dump`` writes null, which rcl and ``ros2 param
    load`` read as text.
    """
    if value in (None, "null", "None"):
        return ()
    if isinstance(value, str):
        inside = value.strip().removeprefix("[").removesuffix("]").strip()
        value = [_parsed(word) for word in inside.split(",")] if inside else []
    if not isinstance(value, (list, tuple, array)):
        return None
    numbers = tuple(number for number in map(_number, value) if number is not None)
    return numbers if len(numbers) == len(value) else None


def _parsed(text: str) -> Any:
    """Read a number or a truth value; a text that is neither comes back as it is."""
    with contextlib.suppress(ValueError):
        return int(text) if text.strip().lstrip("+-").isdecimal() else float(text)  # "1e-3" is a text to YAML 1.1
    with contextlib.suppress(yaml.YAMLError):
        return yaml.safe_load(text)
    return text

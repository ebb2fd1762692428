"""One parameter of the configuration: how it is declared, described and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.parameter_values import Value, converted, name_of


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """What a person has to know about a parameter beside its name, type and default."""

    help: str
    unit: str = ""
    minimum: float = -math.inf
    maximum: float = math.inf
    choices: tuple[str, ...] = ()


def parameter(
    default: Any,
    help: str,
    *,
    unit: str = "",
    minimum: float = -math.inf,
    maximum: float = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare one field of a configuration dataclass."""
    return field(default=default, metadata={"info": ParameterInfo(help, unit, minimum, maximum, choices)})


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, as seen by the YAML writer, ``--set`` and the node."""

    path: str  # "keyframes.min_survival"
    type: Any  # bool, int, float, str or NUMBERS
    default: Value
    info: ParameterInfo


def describe(entry: Parameter) -> str:
    """One line: what it does, its unit, its range or choices."""
    info = entry.info
    notes = [info.unit] if info.unit else []
    if info.choices:
        notes.append(" | ".join(info.choices))
    if math.isfinite(info.minimum) or math.isfinite(info.maximum):
        notes.append(_range(info))
    return info.help + (f" ({', '.join(notes)})" if notes else "")


def _range(info: ParameterInfo) -> str:
    if math.isinf(info.maximum):
        return f"at least {info.minimum:.10g}"
    return f"{info.minimum:.10g} to {info.maximum:.10g}"


def checked(entry: Parameter, value: Any) -> Value:
    """The value, read by type.

    Raises:
        ConfigError: it is of the wrong type, none of the choices or out of range.
    """
    known, info = converted(value, entry.type), entry.info
    if known is None:
        raise ConfigError(f"{entry.path} = {value!r} is not of type {name_of(entry.type)}: correct the value.")
    if info.choices and known not in info.choices:
        raise ConfigError(f"{entry.path} = {value!r} is not one of {', '.join(info.choices)}.")
    numbers = () if isinstance(known, str) else known if isinstance(known, tuple) else (known,)
    if not all(info.minimum <= number <= info.maximum for number in numbers):
        raise ConfigError(f"{entry.path} = {value} is out of range: give a value of {_range(info)}.")
    return known

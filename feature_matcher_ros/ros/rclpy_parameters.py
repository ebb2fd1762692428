"""The parameters of the node of rclpy: declared from the configuration, and checked by it.

Types are left open when declaring, for the configuration says more clearly what is wrong with a value, and takes
an integer for a number as everywhere else. What cannot change while frames are processed can still be set when the
node is unconfigured, which is why such parameters are not declared read-only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter as RclpyParameter

from feature_matcher_ros.config import iterate_parameters
from feature_matcher_ros.node_config import LiveConfig, live_config
from feature_matcher_ros.parameter_file import ROS_OWN
from feature_matcher_ros.parameters import Parameter, describe
from feature_matcher_ros.ros.run_time_parameters import is_run_time_safe

_KNOWN = frozenset(entry.path for entry in iterate_parameters(LiveConfig()))


def declare_parameters(node: Node) -> None:
    """Declare all parameters of a node that has declared, without descriptors, what it was given.

    Raises:
        ConfigError: a parameter is unknown, or its value is wrong.
    """
    given = {name: value.value for name, value in node.get_parameters_by_prefix("").items()}
    own = {name: value for name, value in given.items() if name.split(".")[0] not in ROS_OWN}
    live_config(own)  # which says more clearly than rclpy what is wrong
    for name in own:
        node.undeclare_parameter(name)
    for entry in iterate_parameters(LiveConfig()):
        node.declare_parameter(entry.path, _rclpy_value(entry.default), descriptor_of(entry))


def descriptor_of(entry: Parameter) -> ParameterDescriptor:
    """What a person has to know about a parameter, as ``ros2 param describe`` and rqt show it."""
    info = entry.info
    descriptor = ParameterDescriptor(description=describe(entry), dynamic_typing=True)
    if not is_run_time_safe(entry.path):
        descriptor.additional_constraints = "can be set while the node is unconfigured"
    if entry.type is int and math.isfinite(info.minimum) and math.isfinite(info.maximum):
        descriptor.integer_range = [IntegerRange(from_value=int(info.minimum), to_value=int(info.maximum))]
    elif entry.type is float and math.isfinite(info.minimum) and math.isfinite(info.maximum):
        descriptor.floating_point_range = [FloatingPointRange(from_value=info.minimum, to_value=info.maximum)]
    return descriptor


def config_of(node: Node, changes: Iterable[RclpyParameter] = ()) -> LiveConfig:
    """The parameters as they are, or as they would be with some changes.

    Raises:
        ConfigError: a value is of the wrong type or range.
    """
    values: dict[str, Any] = {path: node.get_parameter(path).value for path in sorted(_KNOWN)}
    values |= {parameter.name: parameter.value for parameter in changes if parameter.name in _KNOWN}
    return live_config({path: value for path, value in values.items() if value is not None})


def concerns_us(changes: Iterable[RclpyParameter]) -> bool:
    """Tell whether any of the parameters is one of the configuration's."""
    return any(parameter.name in _KNOWN for parameter in changes)


def _rclpy_value(value: Any) -> Any:
    """An empty list has no type in ROS: such a parameter is declared and not set."""
    if isinstance(value, tuple):
        return list(value) or None
    return value

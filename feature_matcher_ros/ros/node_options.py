"""What a node is told when it is started without ROS: its name and its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.node_config import LiveConfig, live_config, load_live_config
from feature_matcher_ros.parameter_file import ROS_OWN, flatten
from feature_matcher_ros.ros.names import NodeName
from feature_matcher_ros.ros.ros_arguments import RosArguments, parse_ros_arguments

_SIM_TIME = "use_sim_time"


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """One node: its name and its parameters."""

    node: NodeName
    config: LiveConfig
    use_sim_time: bool = False
    log_level: str = "INFO"


def node_options(
    arguments: Sequence[str], *, config: Path | None = None, settings: Mapping[str, Any] | None = None
) -> NodeOptions:
    """Read the parameters: of ``config``, then of the ROS arguments, then ``settings``; the last one counts.

    Raises:
        ConfigError: an argument, a file or a parameter is wrong.
    """
    ros = parse_ros_arguments(arguments)
    values = _values(ros, config) | dict(settings or {})
    use_sim_time = values.get(_SIM_TIME, False)
    if not isinstance(use_sim_time, bool):
        raise ConfigError(f"use_sim_time = {use_sim_time!r} is not of type bool: give true or false.")
    own = {path: value for path, value in values.items() if path.split(".")[0] not in ROS_OWN}
    return NodeOptions(ros.node, live_config(own), use_sim_time, ros.log_level)


def _values(ros: RosArguments, config: Path | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path in ([config] if config else []) + list(ros.files):
        values |= load_live_config(path, ros.node.full_name)
    nested = {name: value for name, value in ros.values if isinstance(value, Mapping)}
    return values | flatten(nested) | {name: value for name, value in ros.values if name not in nested}

"""What a parameter file holds, plain or in the form of ROS 2, before any value is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from feature_matcher_ros.errors import ConfigError

_NODE_NAME = "feature_matcher"
ROS_KEY = "ros__parameters"
# Parameters that every ROS 2 node has; they may stand in the file and mean nothing outside ROS.
_ROS_OWN = frozenset({"use_sim_time", "qos_overrides", "start_type_description_service"})


def own_parameters(content: Any, sections: Iterable[str]) -> Any:
    """Take what concerns this node out of a ROS 2 parameter file; any other content stays as it is.

    Raises:
        ConfigError: the file names nodes but not this one, or has a section outside all nodes.
    """
    if not isinstance(content, Mapping):
        return content
    nodes = {name: part[ROS_KEY] for name, part in content.items() if isinstance(part, Mapping) and ROS_KEY in part}
    if not nodes:
        return content
    for section in sections:
        if section in content:
            raise ConfigError(f"'{section}' stands beside the nodes: move it below '/**' and '{ROS_KEY}'.")
    ours = [part for name, part in nodes.items() if str(name).rsplit("/", 1)[-1] in ("*", "**", _NODE_NAME)]
    if not ours:
        names = ", ".join(map(str, nodes))
        raise ConfigError(f"there are parameters for {names} and none for {_NODE_NAME}: call the node /**.")
    merged = {path: value for part in ours for path, value in flatten(part or {}).items()}
    return {path: value for path, value in merged.items() if path.split(".")[0] not in _ROS_OWN}


def flatten(content: Mapping[str, Any]) -> dict[str, Any]:
    """Write sections of parameters as dotted paths; empty sections vanish.

    Raises:
        ConfigError: there are no sections.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"a configuration must map sections to parameters, not {content!r}: see config/front_end.yaml."
        )
    flat: dict[str, Any] = {}
    for section, part in content.items():
        if isinstance(part, Mapping):
            flat.update({f"{section}.{name}": value for name, value in part.items()})
        elif part is not None:
            flat[str(section)] = part
    return flat

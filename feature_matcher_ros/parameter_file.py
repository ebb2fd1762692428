"""What a parameter file holds, plain or in the form of ROS 2, before any value is looked at."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from feature_matcher_ros.errors import ConfigError

NODE_NAME = "feature_matcher"
ROS_KEY = "ros__parameters"
_NODE_SECTION = "node"  # what concerns only the live node
# What concerns every ROS 2 node, or this one in ROS alone; it may stand in the file and means nothing outside ROS.
ROS_OWN = frozenset({"use_sim_time", "qos_overrides", "start_type_description_service", "autostart"})


def read_yaml(path: Path) -> Any:
    """What a parameter file holds; an empty one holds no section.

    Raises:
        ConfigError: the file cannot be read, or is not YAML.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path} ({error}): give the path of a YAML file.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML ({' '.join(str(error).split())}): correct the file.") from error
    return {} if content is None else content


def own_parameters(
    content: Any, sections: Iterable[str], node_name: str = NODE_NAME, left_out: Collection[str] = ROS_OWN
) -> dict[str, Any]:
    """Take what concerns this node out of a parameter file, plain or of ROS 2, as dotted paths.

    ``node_name`` is the full name, by which ROS chooses; without a slash at its beginning the namespace does not count.

    Raises:
        ConfigError: the file names nodes but not this one, has a section outside all nodes, or no sections.
    """
    nodes = _nodes(content)
    if not nodes:
        return flatten(content)
    for section in sections:
        if section in content:
            raise ConfigError(f"'{section}' stands beside the nodes: move it below '/**' and '{ROS_KEY}'.")
    ours = [part for name, part in nodes if _concerns(name, node_name)]
    if not ours:
        names = ", ".join(name for name, _ in nodes)
        raise ConfigError(f"there are parameters for {names} and none for {node_name}: call the node /**.")
    merged = {path: value for part in ours for path, value in flatten(part or {}).items()}
    return {path: value for path, value in merged.items() if path.split(".")[0] not in left_out}


def is_of_node(path: str) -> bool:
    """Tell whether a parameter means nothing outside the live node."""
    return path.split(".")[0] == _NODE_SECTION


def _nodes(content: Any, namespace: str = "") -> list[tuple[str, Any]]:
    """The parameters of nodes by their full names, which may hold wildcards; a namespace may be a level of its own."""
    nodes: list[tuple[str, Any]] = []
    for name, part in content.items() if isinstance(content, Mapping) else ():
        if isinstance(part, Mapping):
            full_name = f"{namespace}/{str(name).strip('/')}"
            nodes += [(full_name, part[ROS_KEY])] if ROS_KEY in part else _nodes(part, full_name)
    return nodes


def _concerns(pattern: str, node_name: str) -> bool:
    """Tell whether a name, in which ``*`` is any one part and ``**`` any number of them, is that of a node."""
    if not node_name.startswith("/"):
        return pattern.rpartition("/")[2] in ("*", "**", node_name)
    parts = {"**": "(/[^/]+)*", "*": "/[^/]+"}
    return bool(re.fullmatch("".join(parts.get(p, re.escape(f"/{p}")) for p in pattern.split("/")[1:]), node_name))


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

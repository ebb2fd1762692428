"""What a launch file tells the node: the arguments that were given, and topics that neither they nor the file name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from feature_matcher_ros.node_config import NodeConfig
from feature_matcher_ros.ros.topic_search import FoundTopics

AUTO = "auto"  # of a topic: look for the only camera there is
IN_FILE = "config"  # of the other arguments: what the parameter file says
_PARAMETERS = {
    "sensor": "node.modality",
    "transport": "node.image_transport",
    "depth_transport": "node.depth_transport",
    "calibration": "node.calibration",
    "process_every_frame": "node.process_every_frame",
    "publish_unscaled": "node.publish_unscaled",
    "use_sim_time": "use_sim_time",
    "autostart": "autostart",
}
_SECOND = {"stereo": "node.right_image_topic", "rgbd": "node.depth_topic"}


def launch_parameters(
    given: Mapping[str, str], in_file: Mapping[str, Any], find: Callable[[str], FoundTopics]
) -> dict[str, Any]:
    """The parameters that go over those of the file; ``find`` looks for the camera of a modality, if need be.

    Raises:
        SourceError: there is not exactly one camera.
    """
    values = {parameter: given[name] for name, parameter in _PARAMETERS.items() if given[name] not in (IN_FILE, "")}
    told = {path: value == "true" if value in ("true", "false") else value for path, value in values.items()}
    sensor = told.get("node.modality", in_file.get("node.modality", NodeConfig().modality))
    if given["image"] != AUTO:
        told["node.image_topic"] = given["image"]
        if sensor in _SECOND and given["second"] != AUTO:
            told[_SECOND[sensor]] = given["second"]
    elif not _names_topics(in_file):
        told |= find(sensor).parameters(sensor)
    return told


def _names_topics(in_file: Mapping[str, Any]) -> bool:
    """Tell whether a file says where the images are; the default, which the file of all parameters holds, does not."""
    default = NodeConfig()
    is_named = in_file.get("node.image_topic", default.image_topic) != default.image_topic
    return is_named or bool(in_file.get("node.namespaces", default.namespaces))

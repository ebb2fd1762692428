"""What RViz is told when a launch file opens it: whose topics to show, in which frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feature_matcher_ros.node_config import NodeConfig
from feature_matcher_ros.ros.input_topics import below, camera_namespaces
from feature_matcher_ros.ros.topics import (
    CORRESPONDENCES,
    MARKERS,
    MATCHES_IMAGE_RAW,
    ODOMETRY,
    PATH,
    TF,
    VIEW_TF,
)

# What config/front_end.rviz shows, by the names of the default node.
SHOWN = (MATCHES_IMAGE_RAW, PATH, ODOMETRY, MARKERS, CORRESPONDENCES)


@dataclass(frozen=True, slots=True)
class RvizView:
    """How config/front_end.rviz is to be opened."""

    fixed_frame: str
    remappings: tuple[tuple[str, str], ...]
    note: str = ""  # what will be missing, and what to do about it


def rviz_view(node_name: str, values: Mapping[str, Any]) -> RvizView:
    """The view of a node, by its full name and parameters; of several cameras, the first.

    Unless the node publishes /tf, RViz hears ``~/tf`` instead: it then knows where the camera is whatever the tree of
    the robot or of a bag says, and no frame has two parents.

    Raises:
        ConfigError: the namespace of a camera is no name.
    """
    default = NodeConfig()
    camera = camera_namespaces(values.get("node.namespaces", default.namespaces))[0]
    rules = [(topic.full_name, below(camera, topic.name).replace("~", node_name, 1)) for topic in SHOWN]
    if not values.get("node.publish_tf", default.publish_tf):
        own = below(camera, VIEW_TF.name).replace("~", node_name, 1)
        rules += [(TF.name, own), (f"{TF.name}_static", f"{own}_static")]
    is_mono = values.get("node.modality", default.modality) == "mono"
    is_empty = is_mono and not values.get("node.publish_unscaled", default.publish_unscaled)
    note = "one camera alone gives no lengths: RViz shows its way only with publish_unscaled:=true." if is_empty else ""
    frame = below(camera, values.get("node.odom_frame_id", default.odom_frame_id))
    return RvizView(frame, tuple((rule, to) for rule, to in rules if rule != to), note)

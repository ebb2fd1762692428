"""Parameters of the live node alone; those of the front-end stand in ``config``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from feature_matcher_ros.config import FrontEndConfig, override
from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.parameter_file import NODE_NAME, own_parameters, read_yaml
from feature_matcher_ros.parameters import parameter


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How the live node listens and publishes; replay needs none of it."""

    modality: str = parameter("mono", "what the camera gives", choices=("mono", "stereo", "rgbd"))
    namespaces: str = parameter(
        "", "several cameras: their namespaces, separated by commas; all topics then lie below them"
    )
    image_topic: str = parameter(
        "image", "images, those of the left camera with stereo; can be remapped like every topic"
    )
    right_image_topic: str = parameter("right/image", "images of the right camera, with stereo")
    depth_topic: str = parameter("depth/image", "depth, with rgbd")
    camera_info_topic: str = parameter("", "CameraInfo of the images; empty: camera_info beside them")
    right_camera_info_topic: str = parameter("", "likewise, of the right images")
    depth_camera_info_topic: str = parameter("", "likewise, of depth")
    image_transport: str = parameter(
        "raw", "compressed listens to compressed images below the image topics", choices=("raw", "compressed")
    )
    depth_transport: str = parameter(
        "raw", "compressed listens to compressedDepth below the depth topic", choices=("raw", "compressed")
    )
    qos: str = parameter(
        "sensor_data",
        "quality of service requested from the cameras; sensor_data hears every camera, auto asks for what each offers",
        choices=("sensor_data", "reliable", "auto"),
    )
    calibration: str = parameter("", "YAML calibration, instead of CameraInfo")
    mask: str = parameter("", "image file of the size of the camera's images; no points are detected where it is black")
    mask_topic: str = parameter("", "likewise from a topic: the newest image on it, latched or not, is the mask")
    mount_rotation_deg: int = parameter(
        0,
        "rotation of the mounted camera, clockwise as seen from behind it: 0, 90, 180 or 270",
        unit="deg",
        minimum=0,
        maximum=270,
    )
    stereo_max_skew_ms: float = parameter(
        5.0,
        "left and right images further apart in time than this are not paired",
        unit="ms",
        minimum=0.0,
        maximum=10_000.0,
    )
    depth_max_skew_ms: float = parameter(
        17.0,
        "an image and a depth map further apart in time than this are not paired",
        unit="ms",
        minimum=0.0,
        maximum=10_000.0,
    )
    max_frame_age_ms: float = parameter(
        500.0,
        "an image older than this on the node's clock is skipped; 0 sets no limit",
        unit="ms",
        minimum=0.0,
    )
    process_every_frame: bool = parameter(
        False, "process all images, however late, instead of only the newest; for bags, whose player then has to wait"
    )
    startup_timeout_s: float = parameter(
        5.0, "report what is missing when no frame could be processed for this long", unit="s", minimum=0.1
    )
    report_folder: str = parameter(".", "folder that ~/save_report writes to")
    odom_frame_id: str = parameter("odom", "frame of odometry, path and markers")
    base_frame_id: str = parameter(
        "",
        "odometry, path and /tf are those of this frame of the robot, which tf connects with the camera's; "
        "empty: those of the camera's frame",
    )
    publish_tf: bool = parameter(
        False, "publish /tf from the odometry frame to that of the base or camera, which must have no other parent"
    )
    publish_unscaled: bool = parameter(False, "publish odometry, path and /tf even where no length is known")
    publish_vins_features: bool = parameter(
        False, "publish ~/vins_features, a sensor_msgs/PointCloud with the channels that VINS-Fusion reads"
    )

    def __post_init__(self) -> None:
        if self.mount_rotation_deg % 90:
            raise ConfigError(f"node.mount_rotation_deg = {self.mount_rotation_deg} is not 0, 90, 180 or 270.")
        if "," in self.namespaces and self.base_frame_id and self.publish_tf:
            raise ConfigError(
                f"node.namespaces = '{self.namespaces}' are several cameras, and each would publish another parent of "
                f"'{self.base_frame_id}' on /tf: set node.publish_tf to false, or leave node.base_frame_id empty."
            )


@dataclass(frozen=True, slots=True)
class LiveConfig(FrontEndConfig):
    """All parameters: those of the front-end, and those of the node."""

    node: NodeConfig = field(default_factory=NodeConfig)


def load_live_config(path: Path, node_name: str = f"/{NODE_NAME}") -> dict[str, Any]:
    """Read the values of a file by path, also those that every ROS 2 node has; ``node_name`` is the full one.

    Raises:
        ConfigError: the file cannot be read, or does not concern this node.
    """
    content = read_yaml(path)
    try:
        return own_parameters(content, [section.name for section in fields(LiveConfig)], node_name, left_out=())
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def live_config(values: Mapping[str, Any]) -> LiveConfig:
    """Check values by path, without those that every ROS 2 node has.

    Raises:
        ConfigError: a path is unknown, or a value of the wrong type or range.
    """
    return override(LiveConfig(), values)

"""Which topics a live camera needs, by the parameters of the node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from feature_matcher_ros.evaluation.bag_topics import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE
from feature_matcher_ros.node_config import NodeConfig
from feature_matcher_ros.ros.live_rig import Role
from feature_matcher_ros.ros.names import camera_info_topic

Resolve = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class InputTopic:
    """One topic that a camera needs."""

    role: Role
    topic: str  # full name
    type_name: str
    is_info: bool = False

    @property
    def label(self) -> str:
        return f"CameraInfo of the {self.role.value}" if self.is_info else self.role.value

    @property
    def is_optional(self) -> bool:
        """Depth without CameraInfo is taken to have the image's view."""
        return self.is_info and self.role is Role.DEPTH


def second_role(config: NodeConfig) -> Role | None:
    """What comes beside the images."""
    return {"mono": None, "stereo": Role.RIGHT, "rgbd": Role.DEPTH}[config.modality]


def image_topics(config: NodeConfig, namespace: str, resolve: Resolve) -> dict[Role, str]:
    """Full names of the raw images, also where only compressed ones are listened to."""
    names = {Role.IMAGE: config.image_topic}
    if config.modality == "stereo":
        names[Role.RIGHT] = config.right_image_topic
    elif config.modality == "rgbd":
        names[Role.DEPTH] = config.depth_topic
    return {role: resolve(below(namespace, name)) for role, name in names.items()}


def input_topics(config: NodeConfig, namespace: str, resolve: Resolve) -> tuple[InputTopic, ...]:
    """All topics of one camera, CameraInfo first; ``resolve`` gives the full name of a topic."""
    infos = {
        Role.IMAGE: config.camera_info_topic,
        Role.RIGHT: config.right_camera_info_topic,
        Role.DEPTH: config.depth_camera_info_topic,
    }
    wanted = []
    for role, topic in image_topics(config, namespace, resolve).items():
        wanted.append(_image(role, topic, config))
        if not config.calibration:
            info = below(namespace, infos[role]) if infos[role] else camera_info_topic(topic)
            wanted.append(InputTopic(role, resolve(info), CAMERA_INFO, is_info=True))
    return tuple(sorted(wanted, key=lambda topic: not topic.is_info))


def below(namespace: str, name: str) -> str:
    """A name below the namespace of a camera, if it has one; ``~`` stays before it."""
    if not namespace:
        return name
    head, rest = ("~/", name[2:]) if name.startswith("~/") else ("", name.lstrip("/"))
    return f"{head}{namespace}/{rest}"


def _image(role: Role, topic: str, config: NodeConfig) -> InputTopic:
    transport = config.depth_transport if role is Role.DEPTH else config.image_transport
    if transport == "raw":
        return InputTopic(role, topic, IMAGE)
    return InputTopic(role, f"{topic}/{'compressedDepth' if role is Role.DEPTH else 'compressed'}", COMPRESSED_IMAGE)

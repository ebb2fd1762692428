"""Which topics a live camera needs, by the parameters of the node."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.evaluation.bag_topics import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE
from feature_matcher_ros.node_config import NodeConfig
from feature_matcher_ros.ros.live_rig import Role
from feature_matcher_ros.ros.names import camera_info_topic


class Names(Protocol):
    """How a node names topics."""

    def expand(self, topic: str) -> str: ...

    def resolve(self, topic: str) -> str: ...


@dataclass(frozen=True, slots=True)
class InputTopic:
    """One topic that a camera needs."""

    role: Role
    name: str  # to subscribe to, and what a remapping rule has to name
    topic: str  # the full name, remapped
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


def image_topics(config: NodeConfig, namespace: str, names: Names) -> dict[Role, str]:
    """Full names of the raw images, also where only compressed ones are listened to."""
    return {role: names.resolve(name) for role, name in _image_names(config, namespace).items()}


def input_topics(config: NodeConfig, namespace: str, names: Names) -> tuple[InputTopic, ...]:
    """All topics of one camera, CameraInfo first."""
    infos = {
        Role.IMAGE: config.camera_info_topic,
        Role.RIGHT: config.right_camera_info_topic,
        Role.DEPTH: config.depth_camera_info_topic,
    }
    wanted = []
    for role, image in _image_names(config, namespace).items():
        wanted.append(_image(role, image, config, names))
        if not config.calibration:
            info = below(namespace, infos[role]) if infos[role] else _info_beside(image, names)
            wanted.append(InputTopic(role, info, names.resolve(info), CAMERA_INFO, is_info=True))
    return tuple(sorted(wanted, key=lambda topic: not topic.is_info))


def below(namespace: str, name: str) -> str:
    """A name below the namespace of a camera, if it has one; ``~`` stays before it."""
    if not namespace:
        return name
    head, rest = ("~/", name[2:]) if name.startswith("~/") else ("", name.lstrip("/"))
    return f"{head}{namespace}/{rest}"


def camera_namespaces(text: str) -> list[str]:
    """The namespaces of ``node.namespaces``; one empty one for a node of a single camera.

    Raises:
        ConfigError: one is no name, or there twice.
    """
    names = [name.strip().strip("/") for name in text.split(",")] if text.strip() else [""]
    for name in names:
        if text.strip() and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*", name):
            raise ConfigError(
                f"node.namespaces = '{text}': '{name}' is no namespace, write letters, digits, '_' and '/'."
            )
        if names.count(name) > 1:
            raise ConfigError(f"node.namespaces = '{text}' names '{name}' twice: name every camera once.")
    return names


def _image_names(config: NodeConfig, namespace: str) -> dict[Role, str]:
    names = {Role.IMAGE: config.image_topic}
    if config.modality == "stereo":
        names[Role.RIGHT] = config.right_image_topic
    elif config.modality == "rgbd":
        names[Role.DEPTH] = config.depth_topic
    return {role: below(namespace, name) for role, name in names.items()}


def _image(role: Role, image: str, config: NodeConfig, names: Names) -> InputTopic:
    transport = config.depth_transport if role is Role.DEPTH else config.image_transport
    if transport == "raw":
        return InputTopic(role, image, names.resolve(image), IMAGE)
    name = f"{names.resolve(image)}/{'compressedDepth' if role is Role.DEPTH else 'compressed'}"
    return InputTopic(role, name, names.resolve(name), COMPRESSED_IMAGE)


def _info_beside(image: str, names: Names) -> str:
    """The name of an image's CameraInfo: what lies beside it, before remapping if a rule concerns that, else after."""
    beside = camera_info_topic(names.expand(image))
    return beside if names.resolve(beside) != beside else camera_info_topic(names.resolve(image))

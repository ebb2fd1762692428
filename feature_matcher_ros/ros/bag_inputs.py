"""The parameters by which the node hears of a bag what ``replay`` reads of it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from feature_matcher_ros.evaluation.bag import camera_topics
from feature_matcher_ros.evaluation.bag_file import BagFile
from feature_matcher_ros.evaluation.bag_topics import CAMERA_INFO, COMPRESSED_IMAGE, ImageTopic, info_topic_of
from feature_matcher_ros.evaluation.sequences import Modality, Selection
from feature_matcher_ros.node_config import NodeConfig
from feature_matcher_ros.ros.names import NodeName, camera_info_topic


def names_topics(config: NodeConfig, node: NodeName) -> bool:
    """Tell whether somebody has said where the cameras are: by parameters, or by rules for the node's names."""
    default = NodeConfig()
    named = ["namespaces", *(field.name for field in fields(config) if field.name.endswith("_topic"))]
    return any(getattr(config, name) != getattr(default, name) for name in named) or bool(node.rules)


def selection_of(config: NodeConfig) -> Selection:
    """What ``replay`` is asked for where the node is asked for this: any modality, unless another than the default."""
    modality = None if config.modality == NodeConfig().modality else Modality(config.modality.upper())
    return Selection(modality=modality, calibration=Path(config.calibration) if config.calibration else None)


def find_inputs(path: Path, selection: Selection) -> dict[str, str]:
    """The parameters that let the node listen to the cameras that ``replay`` chooses.

    Raises:
        SourceError: the bag cannot be read, or what to read of it is not clear.
    """
    chosen = camera_topics(path, selection)
    with BagFile(path) as bag:
        infos = [topic.name for topic in bag.topics.values() if topic.type_name == CAMERA_INFO]
    found = {"node.modality": chosen.modality.value.lower(), "node.image_transport": _transport(chosen.image)}
    found |= _named("image_topic", "camera_info_topic", chosen.image, infos)
    if chosen.right is not None:
        found |= _named("right_image_topic", "right_camera_info_topic", chosen.right, infos)
    if chosen.depth is not None:
        found |= _named("depth_topic", "depth_camera_info_topic", chosen.depth, infos)
        found["node.depth_transport"] = _transport(chosen.depth)
    return found


def _transport(topic: ImageTopic) -> str:
    return "compressed" if topic.type_name == COMPRESSED_IMAGE else "raw"


def _named(image: str, info: str, topic: ImageTopic, infos: list[str]) -> dict[str, str]:
    """The names of an image and, where it does not lie beside that, of its CameraInfo."""
    found, known = {f"node.{image}": topic.name}, info_topic_of(topic.name, infos)
    if known is not None and known != camera_info_topic(topic.name):
        found[f"node.{info}"] = known
    return found

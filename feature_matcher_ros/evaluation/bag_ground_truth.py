"""True poses of the camera in a bag: a topic of a motion capture system or of a simulator, or ``/tf``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from feature_matcher_ros.datatypes import Float, Trajectory
from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.evaluation.bag_file import TF_TYPES, BagFile, BagTopic
from feature_matcher_ros.evaluation.bag_transforms import TransformTree, clean_frame_id
from feature_matcher_ros.evaluation.trajectories import trajectory_from
from feature_matcher_ros.ros.messages import matrix_from_pose, matrix_from_transform, stamp_ns_of

_TRUE_NAME = re.compile(r"(^|[/_])(ground_?truth|gt|vicon|mocap|leica|optitrack|qualisys)([/_]|$)", re.IGNORECASE)
_TRUE_ROOT = re.compile(r"^world$|" + _TRUE_NAME.pattern, re.IGNORECASE)
_LOOKED_AT = 2000  # messages of /tf that are searched for the camera before it is taken for absent

# The pose in a message and the frame it is the pose of, "" where the message does not say.
_PoseOf = Callable[[Any], tuple[Float, str]]
_POSE_TYPES: Mapping[str, _PoseOf] = {
    "geometry_msgs/msg/PoseStamped": lambda m: (matrix_from_pose(m.pose), ""),
    "geometry_msgs/msg/PoseWithCovarianceStamped": lambda m: (matrix_from_pose(m.pose.pose), ""),
    "geometry_msgs/msg/TransformStamped": lambda m: (matrix_from_transform(m.transform), m.child_frame_id),
    "nav_msgs/msg/Odometry": lambda m: (matrix_from_pose(m.pose.pose), m.child_frame_id),
}


@dataclass(frozen=True, slots=True)
class TruthSource:
    """Where the true poses come from; ``note`` says what is taken for granted about them."""

    topic: str
    origin: str
    note: str | None = None


def find_ground_truth(
    bag: BagFile, camera_frame_id: str, fixed: TransformTree, wanted: str | None
) -> tuple[TruthSource | None, str | None]:
    """Choose the topic of the true poses; with a second value, a sentence, where there are several.

    Raises:
        SourceError: the topic that was asked for holds no poses.
    """
    if wanted is not None:
        return _describe(bag, _wanted_topic(bag, wanted), camera_frame_id, fixed), None
    named = [t for t in bag.topics.values() if t.type_name in _POSE_TYPES and _TRUE_NAME.search(t.name)]
    if len(named) > 1:
        names = ", ".join(topic.name for topic in named)
        return None, f"no ground truth was taken of {names}: choose one with --ground-truth-topic TOPIC"
    if named:
        return _describe(bag, named[0], camera_frame_id, fixed), None
    for topic in bag.topics.values():
        if topic.type_name in TF_TYPES and not topic.name.endswith("tf_static"):
            chain = _tf_tree(bag, topic.name, fixed, _LOOKED_AT).chain_to_root(camera_frame_id)
            if len(chain) > 1 and _TRUE_ROOT.search(chain[-1]):
                return _describe(bag, topic, camera_frame_id, fixed), None
    return None, None


def read_ground_truth(
    bag: BagFile, source: TruthSource, camera_frame_id: str, fixed: TransformTree
) -> Trajectory | None:
    """Read ``world_from_cam``; None if there is no valid pose."""
    if bag.topics[source.topic].type_name in TF_TYPES:
        return _tf_tree(bag, source.topic, fixed, None).trajectory(camera_frame_id)
    pose_of = _POSE_TYPES[bag.topics[source.topic].type_name]
    trajectory = trajectory_from(_poses(bag, source.topic, pose_of, camera_frame_id, fixed))
    return trajectory if len(trajectory) else None


def _poses(
    bag: BagFile, topic: str, pose_of: _PoseOf, camera_frame_id: str, fixed: TransformTree
) -> Iterator[tuple[int, Float]]:
    offsets: dict[str, Float] = {}
    for raw in bag.messages([topic]):
        message = bag.decode(raw)
        with np.errstate(invalid="ignore"):
            world_from_child, child = pose_of(message)
        if child not in offsets:
            offsets[child] = _child_from_cam(child, camera_frame_id, fixed)
        world_from_cam = world_from_child @ offsets[child]
        if np.all(np.isfinite(world_from_cam)):
            yield stamp_ns_of(message.header), world_from_cam


def _child_from_cam(child: str, camera_frame_id: str, fixed: TransformTree) -> Float:
    known = fixed.fixed_transform(child, camera_frame_id) if child else None
    return np.eye(4) if known is None else known


def _describe(bag: BagFile, topic: BagTopic, camera_frame_id: str, fixed: TransformTree) -> TruthSource:
    if topic.type_name in TF_TYPES:
        chain = _tf_tree(bag, topic.name, fixed, _LOOKED_AT).chain_to_root(camera_frame_id)
        return TruthSource(topic.name, f"{topic.name} ({' <- '.join(reversed(chain))})")
    with np.errstate(invalid="ignore"):
        _, child = _POSE_TYPES[topic.type_name](bag.first(topic.name))
    if child and fixed.fixed_transform(child, camera_frame_id) is not None:
        return TruthSource(topic.name, f"{topic.name} (of {clean_frame_id(child)})")
    whose = f"those of '{child}', which /tf_static does not connect to '{camera_frame_id}'," if child else "its poses"
    note = f"{topic.name}: {whose} are taken for poses of the camera's optical frame"
    return TruthSource(topic.name, topic.name, note)


def _wanted_topic(bag: BagFile, name: str) -> BagTopic:
    known = [t.name for t in bag.topics.values() if t.type_name in (*_POSE_TYPES, *TF_TYPES)]
    if name not in known:
        others = f"give one of {', '.join(known)} to --ground-truth-topic" if known else "the bag holds no poses"
        raise SourceError(f"there are no poses on '{name}': {others}.")
    return bag.topics[name]


def _tf_tree(bag: BagFile, topic: str, fixed: TransformTree, limit: int | None) -> TransformTree:
    """The fixed transforms together with those of a topic, or with its first ones."""
    tree = fixed.copy()
    for number, raw in enumerate(bag.messages([topic])):
        if number == limit:
            break
        tree.add(bag.decode(raw).transforms)
    return tree

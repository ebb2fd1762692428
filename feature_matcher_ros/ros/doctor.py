"""What the live node would find: in the graph as it is now, or in a bag that is to be played to it."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from feature_matcher_ros.config import override
from feature_matcher_ros.errors import FeatureMatcherError, RuntimeLoadError, SourceError
from feature_matcher_ros.evaluation.bag import open_bag
from feature_matcher_ros.evaluation.bag_file import BagFile
from feature_matcher_ros.evaluation.sequences import Selection
from feature_matcher_ros.node_config import LiveConfig, NodeConfig
from feature_matcher_ros.ros.bag_inputs import find_inputs, names_topics, selection_of
from feature_matcher_ros.ros.camera_input import CameraInput
from feature_matcher_ros.ros.frame_builder import FrameBuilder
from feature_matcher_ros.ros.graph import SENSOR_DATA, Endpoint, Graph
from feature_matcher_ros.ros.input_topics import InputTopic, camera_namespaces, input_topics
from feature_matcher_ros.ros.live_camera import is_too_old
from feature_matcher_ros.ros.names import NodeName
from feature_matcher_ros.ros.startup_check import AGE_REMEDY, explain_silence, explain_topic
from feature_matcher_ros.ros.synchronizer import Bundle
from feature_matcher_ros.runtimes.engine_cache import default_engine_folder
from feature_matcher_ros.runtimes.engine_manifest import read_engine_manifest

_PACKAGES = (
    *("feature_matcher_ros", "numpy", "opencv-python-headless", "opencv-python", "poselib", "onnxruntime"),
    *("onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "torch", "rosbags", "cyclonedds"),
)
_VARIABLES = ("ROS_DISTRO", "RMW_IMPLEMENTATION", "ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "CYCLONEDDS_URI")
_GPU_DEVICES = ("/dev/nvidia0", "/dev/nvhost-gpu", "/dev/dxg")
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Examination:
    """One row for each input, and one sentence for each thing that is wrong."""

    rows: tuple[tuple[str, ...], ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what was found out without being told


HEADER = ("input", "topic", "type", "publishers", "messages")


def environment_rows() -> list[tuple[str, str]]:
    """What is installed, and what the environment says; nothing is imported for that."""
    rows = [("Python", platform.python_version()), ("machine", f"{platform.machine()}, {os.cpu_count()} cores")]
    rows += [(name, found) for name in _PACKAGES if (found := _version(name)) is not None]
    gpu = next((device for device in _GPU_DEVICES if Path(device).exists()), None)
    rows.append(("GPU", "none found" if gpu is None else gpu))
    rows.append(("engines", _engines(default_engine_folder())))
    return rows + [(name, os.environ[name]) for name in _VARIABLES if name in os.environ]


def examine_graph(graph: Graph, config: NodeConfig, listen_s: float) -> Examination:
    """Listen to the topics of the node for some seconds, without processing anything.

    Raises:
        FeatureMatcherError: a parameter, the calibration or the mask cannot be used.
    """
    changed = threading.Condition()
    cameras = [CameraInput(graph, config, name, changed) for name in camera_namespaces(config.namespaces)]
    for camera in cameras:
        camera.open()
    arrivals = _first_arrivals(cameras, changed, listen_s, graph)
    endpoints = graph.publishers()
    rows = [
        (wanted.label, wanted.topic, wanted.type_name, _offers(wanted, endpoints), str(camera.num_received(wanted)))
        for camera in cameras
        for wanted in camera.wanted
    ]
    problems = [problem for camera in cameras for problem in _problems(camera, config, arrivals.get(camera), endpoints)]
    notes = [
        f"{count} publishers send images, which the node takes for one camera: end all but one."
        for camera in cameras
        if (count := camera.num_publishers()) > 1
    ]
    for camera in cameras:
        camera.close()
    return Examination(tuple(rows), tuple(problems), tuple(notes))


def examine_bag(path: Path, node: NodeName, config: NodeConfig) -> Examination:
    """Look for the inputs of the node in a bag: by the names it is given, else where ``replay`` finds them.

    Raises:
        SourceError: the bag cannot be read.
    """
    if names_topics(config, node):
        return _examine_topics(path, node, config)
    selection = selection_of(config)
    try:
        found = find_inputs(path, selection)
    except SourceError as error:
        by_default = _examine_topics(path, node, config)
        unclear = f"{str(error).rstrip('.')}; that is for replay, here name it with -r image:=TOPIC."
        return replace(by_default, problems=(unclear,)) if by_default.problems else by_default
    here = override(LiveConfig(node=config), found).node
    told = [f"{name}={value}" for name, value in found.items() if value != getattr(config, name.split(".")[1])]
    note = f"found as replay finds them; the node is told so by --set {' --set '.join(told)}" if told else ""
    examination = replace(_examine_topics(path, node, here), notes=(note,) if note else ())
    return examination if examination.problems else replace(examination, problems=_unreadable(path, selection))


def _examine_topics(path: Path, node: NodeName, config: NodeConfig) -> Examination:
    with BagFile(path) as bag:
        endpoints = [Endpoint(topic.name, topic.type_name, None) for topic in bag.topics.values()]
        counts = {topic.name: topic.count for topic in bag.topics.values()}
    rows, problems = [], []
    for namespace in camera_namespaces(config.namespaces):
        for wanted in input_topics(config, namespace, node):
            is_there = any((e.topic, e.type_name) == (wanted.topic, wanted.type_name) for e in endpoints)
            count = str(counts[wanted.topic]) if is_there else "0"
            rows.append((wanted.label, wanted.topic, wanted.type_name, _offers(wanted, endpoints), count))
            if not is_there and not wanted.is_optional:
                problems.append(explain_topic(wanted, SENSOR_DATA, endpoints))
    return Examination(tuple(rows), tuple(problems))


def _unreadable(path: Path, selection: Selection) -> tuple[str, ...]:
    """Why ``replay`` could not begin: a camera that is not calibrated, or whose pose is not known."""
    try:
        open_bag(path, selection)
    except FeatureMatcherError as error:
        return (str(error),)
    return ()


def _first_arrivals(
    cameras: Sequence[CameraInput], changed: threading.Condition, listen_s: float, graph: Graph
) -> dict[CameraInput, tuple[Bundle, float]]:
    """One frame of each camera and its age in milliseconds, as far as there is one."""
    arrivals: dict[CameraInput, tuple[Bundle, float]] = {}
    deadline_s = time.monotonic() + listen_s
    while time.monotonic() < deadline_s:
        for camera in cameras:
            camera.follow_publishers()
            with changed:
                bundle = camera.take()
            if bundle is not None:
                arrivals.setdefault(camera, (bundle, (graph.now_ns() - bundle.stamp_ns) * 1e-6))
        time.sleep(_POLL_S)
    return arrivals


def _problems(
    camera: CameraInput, config: NodeConfig, arrival: tuple[Bundle, float] | None, endpoints: Sequence[Endpoint]
) -> list[str]:
    if arrival is None:
        return explain_silence(camera, endpoints)
    bundle, age_ms = arrival
    try:
        FrameBuilder(config, camera.rig, camera.second).build(bundle)
    except FeatureMatcherError as error:
        return [str(error)]
    if is_too_old(age_ms, config):
        return [f"images come {age_ms * 1e-3:.1f} s after their stamps, node.max_frame_age_ms is less: {AGE_REMEDY}."]
    return []


def _offers(wanted: InputTopic, endpoints: Sequence[Endpoint]) -> str:
    here = [endpoint for endpoint in endpoints if endpoint.topic == wanted.topic]
    kinds = sorted({"recorded" if endpoint.qos is None else str(endpoint.qos) for endpoint in here})
    return f"{len(here)} ({', '.join(kinds)})" if here else "none"


def _engines(folder: Path) -> str:
    """How many engines are kept there, and for which GPUs."""
    kinds = Counter(map(_engine_kind, sorted(folder.glob("*/*.json"))))
    return f"{', '.join(f'{count} {kind}' for kind, count in kinds.items()) or 'none'} in {folder}"


def _engine_kind(manifest: Path) -> str:
    try:
        source = read_engine_manifest(manifest).source
    except RuntimeLoadError:
        return "that cannot be read"
    environment = source.environment
    gpus = ", ".join(environment.architectures)
    return f"of {environment.library} {environment.version} in {source.precision} for compute capability {gpus}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

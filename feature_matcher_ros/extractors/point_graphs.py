"""The two graphs of a network that detects and describes points, and what they take and give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.models.point_network_config import PointNetworkConfig
from feature_matcher_ros.runtimes.graph_spec import GraphSpec, TensorSpec
from feature_matcher_ros.runtimes.manifest import open_graph, read_manifest
from feature_matcher_ros.runtimes.runtime import Runtime

DETECT, DESCRIBE = "detect", "describe"


@dataclass(frozen=True, slots=True)
class PointGraphs:
    """A network, opened: ``detect`` an image, choose among the points, ``describe`` these."""

    config: PointNetworkConfig
    detect: Runtime
    describe: Runtime


def detect_spec(config: PointNetworkConfig) -> GraphSpec:
    """An image, with 1 where it is not extended, becomes scores and shifts of points, and what ``describe`` takes."""
    return GraphSpec(
        inputs=(
            TensorSpec("image", (1, config.channels, "height", "width"), "float32"),
            TensorSpec("valid", (1, 1, "height", "width"), "float32"),
        ),
        outputs=(
            TensorSpec("scores", ("height", "width"), "float32"),
            TensorSpec("shifts", (2, "height", "width"), "float32"),
            _features(config),
        ),
    )


def describe_spec(config: PointNetworkConfig) -> GraphSpec:
    """Features and keypoints, pixels of the image, become descriptors of unit length."""
    return GraphSpec(
        inputs=(_features(config), TensorSpec("keypoints", ("points", 2), "float32")),
        outputs=(TensorSpec("descriptors", ("points", config.descriptor_size), "float32"),),
    )


def open_points(folder: Path, runtime: str = "auto", num_threads: int = 0) -> PointGraphs:
    """Open an exported network after checking that its files are the ones that were exported.

    Raises:
        RuntimeLoadError: the folder holds no such network, a file was changed, or the runtime cannot open it.
    """
    manifest = read_manifest(folder)
    try:
        config = PointNetworkConfig(**manifest.network)
    except TypeError as error:
        raise RuntimeLoadError(
            f"{folder} holds the graphs of '{manifest.method}', not of a network that detects points: "
            "give another folder, written by feature-matcher export."
        ) from error
    detect = open_graph(folder, manifest, DETECT, detect_spec(config), runtime, num_threads)
    return PointGraphs(
        config, detect, open_graph(folder, manifest, DESCRIBE, describe_spec(config), runtime, num_threads)
    )


def _features(config: PointNetworkConfig) -> TensorSpec:
    return TensorSpec("features", (1, config.descriptor_size, "rows", "columns"), "float32")

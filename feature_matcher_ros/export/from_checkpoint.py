"""From a file of weights, whichever network they belong to, to a folder of graphs."""

from __future__ import annotations

from pathlib import Path

from feature_matcher_ros.export.points_to_onnx import export_points
from feature_matcher_ros.export.to_onnx import Origin, export_lightglue
from feature_matcher_ros.models.checkpoint import read_checkpoint
from feature_matcher_ros.models.lightglue import lightglue_from_checkpoint
from feature_matcher_ros.models.point_networks import point_network_from_checkpoint, point_network_of_checkpoint
from feature_matcher_ros.models.weights import recognised_weights
from feature_matcher_ros.runtimes.manifest import Manifest, sha256_of

_UNKNOWN_LICENCE = "unknown: the file is none of the published ones"


def export_checkpoint(path: Path, folder: Path) -> Manifest:
    """Write the graphs of a LightGlue network, or of one that detects points, with their manifest into a folder.

    Raises:
        WeightsError: the file is missing or damaged, or its tensors are those of no known network.
        MatcherError: a graph does not compute what the network computes.
        OutputError: the folder cannot be written.
    """
    tensors = read_checkpoint(path)
    origin = _origin(path)
    name = point_network_of_checkpoint(tensors)
    if name is not None:
        return export_points(point_network_from_checkpoint(name, tensors), origin, folder)
    return export_lightglue(lightglue_from_checkpoint(tensors), origin, folder)


def _origin(path: Path) -> Origin:
    """What is known of a file by its content."""
    published = recognised_weights(sha256_of(path))
    if published is None:
        return Origin(path.name, _UNKNOWN_LICENCE, "a local file")
    return Origin(published.name, published.licence, published.url)

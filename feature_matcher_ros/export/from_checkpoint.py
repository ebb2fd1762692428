"""From a file of weights, whichever network they belong to, to a folder of graphs."""

from __future__ import annotations

from pathlib import Path

from feature_matcher_ros.errors import WeightsError
from feature_matcher_ros.export.dense_to_onnx import export_dense
from feature_matcher_ros.export.points_to_onnx import export_points
from feature_matcher_ros.export.superglue_to_onnx import export_superglue
from feature_matcher_ros.export.to_onnx import Origin, export_lightglue
from feature_matcher_ros.models.checkpoint import read_checkpoint
from feature_matcher_ros.models.dense_config import DenseTuning
from feature_matcher_ros.models.efficient_loftr import efficient_loftr_from_checkpoint, is_efficient_loftr
from feature_matcher_ros.models.lightglue import lightglue_from_checkpoint
from feature_matcher_ros.models.loftr import is_loftr, loftr_from_checkpoint
from feature_matcher_ros.models.point_networks import point_network_from_checkpoint, point_network_of_checkpoint
from feature_matcher_ros.models.superglue import is_superglue, superglue_from_checkpoint
from feature_matcher_ros.models.weights import PublishedWeights, recognised_weights
from feature_matcher_ros.runtimes.manifest import Manifest, sha256_of

_UNKNOWN_LICENCE = "unknown: the file is none of the published ones; feature-matcher export --licence names it"


def export_checkpoint(
    path: Path,
    folder: Path,
    licence: str | None = None,
    tuning: DenseTuning | None = None,
    matchability_thresholds: tuple[float, ...] = (),
    pulled: PublishedWeights | None = None,
) -> Manifest:
    """Write the graphs of a network that matches or detects points, with their manifest, into a folder.

    ``licence`` is that of weights which are none of the published ones; ``tuning`` is for a network that stops early or
    that has no detector: LightGlue takes only its thresholds, one for each layer, and with them those of matchability;
    ``pulled`` is what the file was pulled as, which its content alone does not tell where no checksum is known.

    Raises:
        WeightsError: the file is missing or damaged, its tensors are those of no known network, or it was published
            under a licence already.
        MatcherError: a graph does not compute what the network computes.
        OutputError: the folder cannot be written.
    """
    tensors = read_checkpoint(path)
    origin = _origin(path, licence, pulled)
    name = point_network_of_checkpoint(tensors)
    if name is not None:
        return export_points(point_network_from_checkpoint(name, tensors), origin, folder)
    if is_efficient_loftr(tensors):
        return export_dense(efficient_loftr_from_checkpoint(tensors).merge(), origin, folder, tuning)
    if is_loftr(tensors):
        return export_dense(loftr_from_checkpoint(tensors), origin, folder, tuning)
    if is_superglue(tensors):
        return export_superglue(superglue_from_checkpoint(tensors), origin, folder)
    model = lightglue_from_checkpoint(tensors)
    return export_lightglue(
        model,
        origin,
        folder,
        confidence_thresholds=tuning.confidence_thresholds if tuning else (),
        matchability_thresholds=matchability_thresholds,
    )


def _origin(path: Path, licence: str | None, pulled: PublishedWeights | None) -> Origin:
    """What is known of a file by its content or by where it was pulled from, and else by who exports it."""
    published = recognised_weights(sha256_of(path)) or pulled
    if published is None:
        return Origin(path.name, licence or _UNKNOWN_LICENCE, "a local file")
    if licence is not None and licence != published.licence:
        raise WeightsError(
            f"'{licence}' is not the licence of {path}: these are the published weights {published.name}, whose "
            f"licence is {published.licence}; leave out --licence."
        )
    return Origin(published.name, published.licence, published.url)

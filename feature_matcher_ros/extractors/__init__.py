"""Methods that detect and describe points."""

from __future__ import annotations

from pathlib import Path

from feature_matcher_ros.config import ExtractorConfig
from feature_matcher_ros.errors import ConfigError, RuntimeLoadError
from feature_matcher_ros.extractors.extractor import Extractor
from feature_matcher_ros.extractors.network_points import NetworkPoints
from feature_matcher_ros.extractors.orb import Orb
from feature_matcher_ros.extractors.point_graphs import open_points
from feature_matcher_ros.extractors.sift import Sift

NETWORKS = ("xfeat", "aliked", "disk", "superpoint")


def create_extractor(config: ExtractorConfig) -> Extractor:
    """Build the extractor that the configuration names.

    Raises:
        ConfigError: there is no extractor of that name, or it needs the folder of a network and none is given.
        RuntimeLoadError: the folder does not hold the network of that name, or it cannot be opened.
    """
    if config.name == "sift":
        return Sift(config)
    if config.name == "orb":
        return Orb(config)
    if config.name in NETWORKS:
        return _network_points(config)
    raise ConfigError(f"extractor.name = '{config.name}' is unknown: choose one of sift, orb, {', '.join(NETWORKS)}.")


def _network_points(config: ExtractorConfig) -> NetworkPoints:
    if not config.graphs:
        raise ConfigError(
            f"extractor.name = {config.name} needs extractor.graphs: give the folder that feature-matcher export wrote."
        )
    graphs = open_points(Path(config.graphs), config.runtime, config.num_threads)
    if graphs.config.name != config.name:
        raise RuntimeLoadError(
            f"{config.graphs} holds the graphs of {graphs.config.name}, not of {config.name}: "
            f"set extractor.name to {graphs.config.name}, or export {config.name} with feature-matcher export."
        )
    return NetworkPoints(graphs, config)

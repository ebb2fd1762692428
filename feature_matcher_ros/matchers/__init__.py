"""Methods that find correspondences between two images."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from feature_matcher_ros.config import AUTO, MATCHERS, FrontEndConfig, MatcherConfig
from feature_matcher_ros.errors import ConfigError, RuntimeLoadError
from feature_matcher_ros.extractors import create_extractor
from feature_matcher_ros.extractors.extractor import Extractor
from feature_matcher_ros.matchers.adaptive import BudgetRule, PruneRule, StopRule
from feature_matcher_ros.matchers.dense_graphs import OPTIMIZED, open_dense
from feature_matcher_ros.matchers.detector_free import DenseRules, DetectorFree
from feature_matcher_ros.matchers.lightglue import LightGlue, LightGlueRules, require_fitting_points
from feature_matcher_ros.matchers.lightglue_graphs import METHOD as LIGHTGLUE
from feature_matcher_ros.matchers.lightglue_graphs import open_lightglue
from feature_matcher_ros.matchers.matcher import Matcher
from feature_matcher_ros.matchers.mutual_nearest import MutualNearest
from feature_matcher_ros.matchers.superglue import SuperGlue
from feature_matcher_ros.matchers.superglue_graphs import METHOD as SUPERGLUE
from feature_matcher_ros.matchers.superglue_graphs import open_superglue
from feature_matcher_ros.models.dense_config import DENSE_METHODS
from feature_matcher_ros.runtimes.manifest import read_manifest
from feature_matcher_ros.runtimes.shipped_graphs import find_shipped_graphs, shipped_graphs

NEAREST = "mutual_nearest"
_LOG = logging.getLogger(__name__)


def create_matcher(config: FrontEndConfig) -> Matcher:
    """Build the matcher that the configuration names, with its extractor.

    Raises:
        ConfigError: there is no matcher or extractor of that name, or the folder of its network is not given.
        RuntimeLoadError: a folder does not hold the network of that name, or it cannot be opened.
        MatcherError: the matcher was not made for the points of the extractor.
    """
    config = replace(config, matcher=replace(config.matcher, name=chosen_method(config)))
    if config.matcher.name in DENSE_METHODS:
        return _detector_free(config.matcher)
    extractor = create_extractor(config.extractor)
    if config.matcher.name == NEAREST:
        return MutualNearest(extractor, config.matcher)
    if config.matcher.name == LIGHTGLUE:
        return _lightglue(extractor, config.matcher)
    if config.matcher.name == SUPERGLUE:
        return _superglue(extractor, config.matcher)
    known = ", ".join((AUTO, *MATCHERS))
    raise ConfigError(f"matcher.name = '{config.matcher.name}' is unknown: choose from {known}.")


def chosen_method(config: FrontEndConfig) -> str:
    """The name of the matcher that the configuration asks for; says so in the log where ``auto`` has no network.

    Raises:
        RuntimeLoadError: ``auto`` is given a folder of graphs that are those of no matcher.
    """
    name, graphs, extractor = config.matcher.name, config.matcher.graphs, config.extractor.name
    if name != AUTO:
        return name
    if graphs:
        return _method_of(Path(graphs))
    if find_shipped_graphs(shipped_name(extractor)) is not None:
        return LIGHTGLUE
    _LOG.warning("no network for %s points came with this installation: matcher.name is %s", extractor, NEAREST)
    return NEAREST


def shipped_name(extractor: str) -> str:
    """The folder among the networks that ship which holds the one for the points of an extractor."""
    return f"{LIGHTGLUE}_{extractor}"


def _method_of(graphs: Path) -> str:
    method = read_manifest(graphs).method
    if method not in MATCHERS:
        raise RuntimeLoadError(
            f"{graphs} holds the graphs of '{method}', which is no matcher: give matcher.graphs the folder of one."
        )
    return method


def _detector_free(config: MatcherConfig) -> DetectorFree:
    folder = network_folder(config)
    graphs = open_dense(folder, config.coarse == OPTIMIZED, config.runtime, config.num_threads)
    if graphs.config.method != config.name:
        raise RuntimeLoadError(
            f"{folder} holds the graphs of '{graphs.config.method}', not of {config.name}: set matcher.name = "
            f"{graphs.config.method}, or give another folder."
        )
    return DetectorFree(graphs, dense_rules(config))


def network_folder(config: MatcherConfig) -> Path:
    """The folder of graphs of a method that is not made for the points of one extractor: configured, or shipped.

    Raises:
        ConfigError: none are given and none ship.
    """
    found = Path(config.graphs) if config.graphs else find_shipped_graphs(config.name)
    if found is None:
        raise ConfigError(
            f"matcher.name = {config.name} needs a network and none ships: give matcher.graphs the folder of one that "
            "feature-matcher export wrote of its authors' weights."
        )
    return found


def dense_rules(config: MatcherConfig) -> DenseRules:
    """The rules as configured."""
    return DenseRules(
        config.min_score,
        config.max_matches,
        config.max_image_px,
        _stop_rule(config),
        config.confidence_thresholds,
    )


def follow_config(matcher: Matcher, config: MatcherConfig) -> None:
    """Let a matcher of ``create_matcher`` take the parameters of its rules from the next pair on.

    Raises:
        MatcherError: the confidence thresholds do not fit the network; nothing changes.
    """
    if isinstance(matcher, LightGlue):
        matcher.follow(lightglue_rules(config))
    elif isinstance(matcher, MutualNearest):
        matcher.follow(config)
    elif isinstance(matcher, SuperGlue):
        matcher.follow(config.min_score)
    elif isinstance(matcher, DetectorFree):
        matcher.follow(dense_rules(config))


def _lightglue(extractor: Extractor, config: MatcherConfig) -> LightGlue:
    graphs = open_lightglue(lightglue_folder(config, extractor.name), config.runtime, config.num_threads)
    require_fitting_points(extractor, graphs.config)
    return LightGlue(extractor, graphs, lightglue_rules(config))


def _superglue(extractor: Extractor, config: MatcherConfig) -> SuperGlue:
    graphs = open_superglue(network_folder(config), config.runtime, config.num_threads)
    matcher = SuperGlue(extractor, graphs, config.min_score)
    matcher.extract(np.zeros((64, 64), np.uint8))  # no points, but descriptors of the kind that there will be
    return matcher


def lightglue_folder(config: MatcherConfig, extractor: str) -> Path:
    """The folder of graphs: the configured one, else the one that ships for the points of an extractor.

    Raises:
        RuntimeLoadError: none ship for these.
    """
    return Path(config.graphs) if config.graphs else shipped_graphs(shipped_name(extractor))


def lightglue_rules(config: MatcherConfig) -> LightGlueRules:
    """The rules as configured; a certainty of 1 and a budget of 0 switch a rule off."""
    return LightGlueRules(
        _stop_rule(config),
        PruneRule(None if config.width_confidence == 1.0 else config.width_confidence),
        BudgetRule(config.match_budget_ms or None),
        config.confidence_thresholds,
        config.matchability_thresholds or None,
        config.min_score,
    )


def _stop_rule(config: MatcherConfig) -> StopRule:
    """A share of 1 never stops early."""
    return StopRule(None if config.depth_confidence == 1.0 else config.depth_confidence)

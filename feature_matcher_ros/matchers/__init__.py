"""Methods that find correspondences between two images."""

from __future__ import annotations

from feature_matcher_ros.config import FrontEndConfig
from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.extractors import create_extractor
from feature_matcher_ros.matchers.matcher import Matcher
from feature_matcher_ros.matchers.mutual_nearest import MutualNearest


def create_matcher(config: FrontEndConfig) -> Matcher:
    """Build the matcher that the configuration names, with its extractor.

    Raises:
        ConfigError: there is no matcher or extractor of that name.
    """
    if config.matcher.name == "mutual_nearest":
        return MutualNearest(create_extractor(config.extractor), config.matcher)
    raise ConfigError(f"matcher.name = '{config.matcher.name}' is unknown: choose mutual_nearest.")

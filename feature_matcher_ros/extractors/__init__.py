"""Methods that detect and describe points."""

from __future__ import annotations

from feature_matcher_ros.config import ExtractorConfig
from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.extractors.extractor import Extractor
from feature_matcher_ros.extractors.orb import Orb
from feature_matcher_ros.extractors.sift import Sift


def create_extractor(config: ExtractorConfig) -> Extractor:
    """Build the extractor that the configuration names.

    Raises:
        ConfigError: there is no extractor of that name.
    """
    if config.name == "sift":
        return Sift(config)
    if config.name == "orb":
        return Orb(config)
    raise ConfigError(f"extractor.name = '{config.name}' is unknown: choose sift or orb.")

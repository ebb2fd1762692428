"""The seam between sparse matchers and every method that detects and describes points."""

from __future__ import annotations

from typing import Protocol

from feature_matcher_ros.datatypes import Features, Image


class Extractor(Protocol):
    """Detects and describes the points of one image."""

    @property
    def name(self) -> str:
        """The name, as written in the configuration."""

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        """Points of an (H, W) grey or (H, W, 3) BGR image, none where the mask is 0; best first."""

"""The seam between the front-end and every method that finds correspondences."""

from __future__ import annotations

from typing import Protocol

from feature_matcher_ros.datatypes import Features, Image, Matches


class Matcher(Protocol):
    """Finds correspondences: work per frame in ``extract``, work per pair in ``match``.

    Sparse matchers keep keypoints and descriptors in ``Features``, detector-free ones the features
    of their backbone; to everyone else ``Features`` is opaque.
    """

    @property
    def name(self) -> str:
        """As written in the configuration and in every result."""

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        """Do all that depends on one image alone, (H, W) grey or (H, W, 3) BGR."""

    def match(self, features0: Features, features1: Features) -> Matches:
        """Find the correspondences of two images; possibly none, never an error for lack of features."""

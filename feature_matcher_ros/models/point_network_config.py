"""What an extractor must know of its network, also where there is no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PointNetworkConfig:
    """How images are prepared for a network, and what it gives."""

    name: str  # "xfeat", "aliked", "disk" or "superpoint"
    descriptor_size: int
    channels: int  # 1: grey, 3: red, green, blue
    multiple: int  # of pixels, in both directions
    min_score: float  # a point needs more
    fits_by_resizing: bool = False  # to the multiple below; else the image is extended to the one above
    averages_colors: bool = False  # grey is the mean of the three, not the luminance

"""What a detector-free matcher must know of its network, also where there is no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EFFICIENT_LOFTR = "efficient_loftr"
CELL_PX = 8  # a coarse feature stands for a square of this many pixels


@dataclass(frozen=True, slots=True)
class EfficientLoftrConfig:
    """The shape of an Efficient LoFTR network; the defaults are those of its authors."""

    widths: tuple[int, int, int] = (64, 128, 256)  # of the features at 1/2, 1/4 and 1/8 of the image's size
    blocks: tuple[int, int, int] = (2, 4, 14)  # convolution blocks at each of these sizes
    heads: int = 8
    rounds: int = 4  # of attention: first within either image, then across
    aggregation: int = 4  # attention sees squares of this many coarse features as one
    has_confidence: bool = False  # whether it can tell after each round how final its matches are

    @property
    def multiple(self) -> int:
        """Of pixels, in both directions."""
        return CELL_PX * self.aggregation

    @property
    def width(self) -> int:
        """Channels of a coarse feature."""
        return self.widths[2]

    @property
    def maps(self) -> dict[str, tuple[int, int]]:
        """The finer features that refinement needs: channels, and pixels of the image for one of the map."""
        return {"map2": (self.widths[0], 2), "map4": (self.widths[1], 4)}


def config_from_manifest(network: dict[str, Any]) -> EfficientLoftrConfig:
    """The configuration that a manifest holds.

    Raises:
        TypeError: the entries are not those of one.
    """
    entries: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in network.items()
    }
    return EfficientLoftrConfig(**entries)

"""What a detector-free matcher must know of its network, also where there is no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EFFICIENT_LOFTR, LOFTR = "efficient_loftr", "loftr"
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
    def method(self) -> str:
        return EFFICIENT_LOFTR

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


COMPACT = EfficientLoftrConfig(widths=(32, 64, 128), heads=4, has_confidence=True)


@dataclass(frozen=True, slots=True)
class LoftrConfig:
    """The shape of a LoFTR network; the defaults are those of its authors."""

    widths: tuple[int, int, int] = (128, 196, 256)  # of the features at 1/2, 1/4 and 1/8 of the image's size
    heads: int = 8
    rounds: int = 4  # of attention: first within either image, then across
    window: int = 5  # of refinement, in features at 1/2 of the image's size
    optimal_transport: bool = False  # instead of the dual softmax
    transport_iterations: int = 3

    @property
    def method(self) -> str:
        return LOFTR

    @property
    def multiple(self) -> int:
        """Of pixels, in both directions."""
        return CELL_PX

    @property
    def has_confidence(self) -> bool:
        return False

    @property
    def width(self) -> int:
        """Channels of a coarse feature."""
        return self.widths[2]

    @property
    def maps(self) -> dict[str, tuple[int, int]]:
        """The finer features that refinement needs: channels, and pixels of the image for one of the map."""
        return {"map2": (self.widths[0], 2)}


DenseConfig = EfficientLoftrConfig | LoftrConfig


def dense_config(method: str, network: dict[str, Any]) -> DenseConfig:
    """The configuration that a manifest holds.

    Raises:
        KeyError, TypeError: the method is no detector-free one, or the entries are not those of its configuration.
    """
    entries = {name: tuple(value) if isinstance(value, list) else value for name, value in network.items()}
    return {EFFICIENT_LOFTR: EfficientLoftrConfig, LOFTR: LoftrConfig}[method](**entries)

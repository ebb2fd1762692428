"""What a detector-free matcher must know of its network, also where there is no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

EFFICIENT_LOFTR, LOFTR = "efficient_loftr", "loftr"
CELL_PX = 8  # a coarse feature stands for a square of this many pixels


class DenseConfig(Protocol):
    """The shape of any detector-free network."""

    method: ClassVar[str]
    has_optimized: ClassVar[bool]  # whether its bare similarities can be taken for scores

    @property
    def rounds(self) -> int:
        """The number of rounds of attention: first within either image, then across."""

    @property
    def has_confidence(self) -> bool:
        """Whether it can tell after each round how final its matches are."""

    @property
    def multiple(self) -> int:
        """The number of pixels of which both sides of an image must be multiples."""

    @property
    def width(self) -> int:
        """Channels of a coarse feature."""

    @property
    def maps(self) -> dict[str, tuple[int, int]]:
        """The finer features that refinement needs: channels, and pixels of the image for one of the map."""


@dataclass(frozen=True, slots=True)
class EfficientLoftrConfig:
    """The shape of an Efficient LoFTR network; the defaults are those of its authors."""

    method: ClassVar[str] = EFFICIENT_LOFTR
    has_optimized: ClassVar[bool] = True

    widths: tuple[int, int, int] = (64, 128, 256)  # of the features at 1/2, 1/4 and 1/8 of the image's size
    blocks: tuple[int, int, int] = (2, 4, 14)  # convolution blocks at each of these sizes
    heads: int = 8
    rounds: int = 4
    aggregation: int = 4  # attention sees squares of this many coarse features as one
    has_confidence: bool = False

    @property
    def multiple(self) -> int:
        return CELL_PX * self.aggregation

    @property
    def width(self) -> int:
        return self.widths[2]

    @property
    def maps(self) -> dict[str, tuple[int, int]]:
        return {"map2": (self.widths[0], 2), "map4": (self.widths[1], 4)}


@dataclass(frozen=True, slots=True)
class LoftrConfig:
    """The shape of a LoFTR network; the defaults are those of its authors."""

    method: ClassVar[str] = LOFTR
    has_optimized: ClassVar[bool] = False
    has_confidence: ClassVar[bool] = False

    widths: tuple[int, int, int] = (128, 196, 256)  # of the features at 1/2, 1/4 and 1/8 of the image's size
    heads: int = 8
    fine_heads: int = 8
    rounds: int = 4
    has_dustbin: bool = False  # compares by optimal transport instead of dual softmax

    @property
    def multiple(self) -> int:
        return CELL_PX

    @property
    def width(self) -> int:
        return self.widths[2]

    @property
    def maps(self) -> dict[str, tuple[int, int]]:
        return {"map2": (self.widths[0], 2)}


_CONFIGS = {EFFICIENT_LOFTR: EfficientLoftrConfig, LOFTR: LoftrConfig}
DENSE_METHODS = tuple(_CONFIGS)


@dataclass(frozen=True, slots=True)
class DenseTuning:
    """How a network is best used; its manifest holds this beside its shape."""

    confidence_thresholds: tuple[float, ...] = ()  # of a final cell, by round; none: as in LightGlue's paper
    max_image_px: int = 640  # an image whose longer side exceeds this is shrunk


_TUNING = tuple(field.name for field in fields(DenseTuning))


def tuning_from_manifest(network: Mapping[str, Any]) -> DenseTuning:
    """What a manifest says of it; what it leaves out keeps its default.

    Raises:
        TypeError, ValueError: the entries are no numbers.
    """
    default = DenseTuning()
    thresholds, max_image_px = (network.get(name, getattr(default, name)) for name in _TUNING)
    return DenseTuning(tuple(map(float, thresholds)), int(max_image_px))


def config_from_manifest(method: str, network: Mapping[str, Any]) -> DenseConfig:
    """The configuration that a manifest holds, of one of ``DENSE_METHODS``.

    Raises:
        TypeError: the entries are not those of one.
    """
    entries: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in network.items()
        if name not in _TUNING
    }
    return _CONFIGS[method](**entries)

"""For which shapes engines are tuned: derived from the largest number of keypoints or matches and the largest image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.models.dense_config import CELL_PX, DenseConfig, DenseTuning
from feature_matcher_ros.runtimes.engine_manifest import Profile
from feature_matcher_ros.runtimes.graph_spec import GraphSpec

_CUSTOMARY_IMAGE = (480, 640)  # (height, width) that engines are tuned for
SMALLEST_LARGEST = 64  # an engine for fewer keypoints, or smaller images, is of no use
_DETECTION_PX = 1024  # longer side of the largest image, unless one is wanted

Range = tuple[int, int, int]  # smallest, customary, largest


@dataclass(frozen=True, slots=True)
class EngineBudget:
    """The largest input that engines are built for.

    Raises:
        ConfigError: it is too small.
    """

    max_keypoints: int = 2048  # of one image; of a network that detects no points, matches
    max_image_px: int | None = None  # longer side; None: what suits the kind of network

    def __post_init__(self) -> None:
        for name, value in (("max_keypoints", self.max_keypoints), ("max_image_px", self.max_image_px)):
            if value is not None and value < SMALLEST_LARGEST:
                raise ConfigError(f"{name} = {value} is too small for an engine: give {SMALLEST_LARGEST} or more.")


def matching_ranges(budget: EngineBudget) -> Mapping[str, Range]:
    """The range of every dimension of the graphs of a matching network, by its name."""
    largest = budget.max_keypoints
    customary = largest // 2
    both = (2, 2 * customary, 2 * largest)
    return {"points": both, "points0": (1, customary, largest), "points1": (1, customary, largest)}


def detection_ranges(budget: EngineBudget, multiple: int, pixels_per_feature: int) -> Mapping[str, Range]:
    """The ranges for a network that detects points in images whose sides are multiples of ``multiple``.

    Either side may be the longer one.
    """
    height, width = _image_ranges(budget.max_image_px or _DETECTION_PX, multiple)
    rows, columns = (_divided(sizes, pixels_per_feature) for sizes in (height, width))
    points = (1, budget.max_keypoints // 2, budget.max_keypoints)
    return {"height": height, "width": width, "rows": rows, "columns": columns, "points": points}


def dense_ranges(budget: EngineBudget, config: DenseConfig, tuning: DenseTuning) -> Mapping[str, Range]:
    """The ranges for a network that matches without points. Either side of either image may be the longer one.

    Where nothing matches, the graph that wants matches is not run.
    """
    height, width = _image_ranges(budget.max_image_px or tuning.max_image_px, config.multiple)
    ranges = {"height": height, "width": width, "matches": (1, budget.max_keypoints // 2, budget.max_keypoints)}
    for side in ("", "0", "1"):
        ranges |= {f"rows{side}": _divided(height, CELL_PX), f"columns{side}": _divided(width, CELL_PX)}
    for name, (_, pixels_per_feature) in config.maps.items():
        for side in ("_0", "_1"):
            ranges[f"{name}_rows{side}"] = _divided(height, pixels_per_feature)
            ranges[f"{name}_columns{side}"] = _divided(width, pixels_per_feature)
    return ranges


def _image_ranges(max_image_px: int, multiple: int) -> tuple[Range, Range]:
    """The ranges of the height and the width."""
    largest = -(-max_image_px // multiple) * multiple
    height, width = ((multiple, min(largest, -(-size // multiple) * multiple), largest) for size in _CUSTOMARY_IMAGE)
    return height, width


def _divided(sizes: Range, divisor: int) -> Range:
    smallest, customary, largest = sizes
    return smallest // divisor, customary // divisor, largest // divisor


def profile_of(spec: GraphSpec, ranges: Mapping[str, Range]) -> Profile:
    """The shapes of all inputs of a graph."""
    shapes = {}
    for tensor in spec.inputs:
        sizes = [ranges[size] if isinstance(size, str) else (size, size, size) for size in tensor.shape]
        smallest, customary, largest = zip(*sizes, strict=True)
        shapes[tensor.name] = (smallest, customary, largest)
    return Profile(shapes)

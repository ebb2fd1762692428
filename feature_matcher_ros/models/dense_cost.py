"""What a detector-free network costs: its products of numbers, counted from the shapes."""

from __future__ import annotations

from dataclasses import dataclass

from feature_matcher_ros.models.dense_config import CELL_PX, DenseConfig, EfficientLoftrConfig, LoftrConfig

Size = tuple[int, int]  # (width, height) in pixels, padded
_LOFTR_WINDOW = 25  # features
_PATCH, _INNER, _OUTER = 36, 64, 100  # features at half size, pixels of the window of image 0 and of image 1


@dataclass(frozen=True, slots=True)
class DenseCost:
    """Multiplications with an addition each, in the parts that a matcher runs; a FLOP count is twice as large."""

    tokens: int  # features of one image that attention sees
    backbone: int  # of one image, the first attention within it included
    rounds: int
    coarse: int
    fine: int


def dense_cost(config: DenseConfig, size: Size, rounds_run: int, num_matches: int) -> DenseCost:
    """The cost of a pair of images of one size, in the form in which the network is exported.

    Normalisation, activation, the enlarging of maps and expectations are left out.
    """
    cells = _places(size, CELL_PX)
    if isinstance(config, EfficientLoftrConfig):
        layer, backbone = _aggregated_layer(config, cells), _repvgg(config, size)
        pyramids, window = 2 * _pyramid(config.widths, size), _correlated_windows(config)
        tokens = cells // config.aggregation**2
    else:
        assert isinstance(config, LoftrConfig)  # there are no others
        layer = _linear_layer(config.width, config.heads, cells)
        backbone = _resnet(config, size) + _pyramid(config.widths, size)
        pyramids, window, tokens = 0, _attended_windows(config), cells
    num_layers = 4 * rounds_run - 2 if rounds_run else 0  # the first one of either image is part of the backbone
    return DenseCost(
        tokens=tokens,
        backbone=backbone + layer,
        rounds=num_layers * layer,
        coarse=cells**2 * (config.width + 2),  # two channels carry the mask
        fine=pyramids + num_matches * window,
    )


def _places(size: Size, step: int) -> int:
    return (size[0] // step) * (size[1] // step)


def _repvgg(config: EfficientLoftrConfig, size: Size) -> int:
    total, before = 9 * config.widths[0] * _places(size, 2), config.widths[0]
    for width, blocks, step in zip(config.widths, config.blocks, (2, 4, 8), strict=True):
        total += 9 * (before * width + (blocks - 1) * width**2) * _places(size, step)
        before = width
    return total


def _resnet(config: LoftrConfig, size: Size) -> int:
    first, second, third = config.widths
    return (
        (49 * first + 9 * 4 * first**2) * _places(size, 2)
        + (10 * first * second + 9 * 3 * second**2) * _places(size, 4)  # 3x3, and 1x1 beside it
        + (10 * second * third + 9 * 3 * third**2) * _places(size, 8)
    )


def _pyramid(widths: tuple[int, int, int], size: Size) -> int:
    first, second, third = widths
    return (
        third**2 * _places(size, 8)
        + (second * third + 9 * third * (third + second)) * _places(size, 4)
        + (first * second + 9 * second * (second + first)) * _places(size, 2)
    )


def _aggregated_layer(config: EfficientLoftrConfig, cells: int) -> int:
    width, tokens = config.width, cells // config.aggregation**2
    return cells * (width + 4 * width**2) + tokens * 5 * width**2 + 2 * tokens**2 * width


def _linear_layer(width: int, heads: int, tokens: int) -> int:
    return tokens * (10 * width**2 + 2 * width**2 // heads + width)


def _correlated_windows(config: EfficientLoftrConfig) -> int:
    """The cost of one match: products of features, and two interpolations of them."""
    return _PATCH**2 * config.widths[0] + 2 * _INNER * _PATCH * (_PATCH + _OUTER)


def _attended_windows(config: LoftrConfig) -> int:
    """The cost of one match: joining coarse and fine, two layers of attention for both windows, the comparison."""
    width, features = config.widths[0], _LOFTR_WINDOW
    joined = config.width * width + (features + 1) * width**2
    return 2 * joined + 4 * _linear_layer(width, config.fine_heads, features) + features * width

"""From matched cells to matched points, in two steps: the best pair of pixels, then a fraction (section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from feature_matcher_ros.models.dense_config import CELL_PX, EfficientLoftrConfig
from feature_matcher_ros.models.dense_matching import cell_patches
from feature_matcher_ros.models.dense_network import CellPairs, Pair
from feature_matcher_ros.models.feature_pyramid import FeaturePyramid

SUBPIXEL_CHANNELS = 8  # the last ones of the fine features are for the second step
_SUBPIXEL_TEMPERATURE = 10.0
_AROUND = CELL_PX + 2  # the window of image 1 has a pixel more on each side
_PATCH, _FIRST = 6, 1  # features at half size on which a window's pixels depend; the first is that many before it
_STRIDE = CELL_PX // 2


class FineFeatures(FeaturePyramid):
    """Joins the final coarse features with those of the backbone; ends at half the size of the image."""

    def __init__(self, config: EfficientLoftrConfig) -> None:
        super().__init__(config.widths, align_corners=False)

    def forward(self, state: Tensor, map4: Tensor, map2: Tensor) -> Tensor:
        return self.join(self.layer3_outconv(state), map4, map2)


def window_similarities(maps: Pair, pairs: CellPairs) -> Pair:
    """Similarities (M, 64, 100) of the pixels of the windows of matched cells, for the first and the second step.

    The published code enlarges the features to the size of the image and multiplies these. Both are linear, so the
    order can be exchanged: here the products of features at half size are enlarged, and only for matched cells.
    """
    patch0, patch1 = (
        cell_patches(features, pairs.batch, cells, _FIRST, _PATCH, _STRIDE)
        for features, cells in zip(maps, (pairs.cell0, pairs.cell1), strict=True)
    )
    width = patch0.shape[-1]
    split = [width - SUBPIXEL_CHANNELS, SUBPIXEL_CHANNELS]
    (pixel0, fraction0), (pixel1, fraction1) = patch0.split(split, dim=-1), patch1.split(split, dim=-1)
    return (
        _enlarged(pixel0 @ pixel1.transpose(1, 2)) / width,
        _enlarged(fraction0 @ fraction1.transpose(1, 2)) / SUBPIXEL_CHANNELS**0.5,
    )


def log_window_probabilities(similarities: Tensor) -> Tensor:
    """Logarithms (M, 64, 64) of dual softmaxes; what lies around the window of image 1 only competes."""
    of_rows, of_columns = similarities.logsumexp(2, keepdim=True), similarities.logsumexp(1, keepdim=True)
    return 2.0 * _within(similarities) - _within(of_columns) - of_rows


def best_pixels(log_probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers (M,) of the best pair of pixels of windows, row by row."""
    best = log_probabilities.flatten(1).argmax(dim=1)
    return best // CELL_PX**2, best % CELL_PX**2


def expected_fractions(similarities: Tensor, matches: Tensor, pixel0: Tensor, pixel1: Tensor) -> Tensor:
    """How far (K, 2), to x and y, the point of image 1 is from its pixel, for some pixels of windows ``matches`` (K,).

    The published weights were trained with the nine similarities around the pixel one above and left of the one
    meant, numbered cyclically, and so this takes them too.
    """
    steps = torch.arange(-1, 2, device=similarities.device)
    rows = (pixel1 // CELL_PX)[:, None] + steps  # (K, 3), in the window with its surroundings
    columns = (pixel1 % CELL_PX)[:, None] + steps
    rows, columns = rows % _AROUND, columns % _AROUND
    places = (rows[:, :, None] * _AROUND + columns[:, None, :]).flatten(1)  # (K, 9)
    nine = similarities[matches, pixel0].gather(1, places)
    weights = torch.softmax(nine / _SUBPIXEL_TEMPERATURE, dim=1).unflatten(1, (3, 3))
    offsets = steps.to(weights.dtype)
    return torch.stack(((weights.sum(1) * offsets).sum(1), (weights.sum(2) * offsets).sum(1)), dim=1)


def refined_offsets(maps: Pair, pairs: CellPairs) -> Pair:
    """Where the points (M, 2) lie, in pixels from the place of their cells."""
    first, second = window_similarities(maps, pairs)
    pixel0, pixel1 = best_pixels(log_window_probabilities(first))
    matches = torch.arange(pairs.cell0.shape[0], device=pairs.cell0.device)
    return pixel_offsets(pixel0), pixel_offsets(pixel1) + expected_fractions(second, matches, pixel0, pixel1)


def pixel_offsets(pixels: Tensor) -> Tensor:
    """From the place of a cell to pixels (..., 2) of its window, given their numbers."""
    xy = torch.stack((pixels % CELL_PX, pixels // CELL_PX), dim=-1)
    return xy.to(torch.float32) - (CELL_PX - 1) / 2


def _within(windows: Tensor) -> Tensor:
    """Columns (M, N, 64) of windows (M, N, 100) without what lies around them."""
    return windows.unflatten(2, (_AROUND, _AROUND))[:, :, 1:-1, 1:-1].flatten(2)


def _enlarged(products: Tensor) -> Tensor:
    """Products (M, 36, 36) of all pairs of features at half size, interpolated for pairs of pixels (M, 64, 100)."""
    inner, outer = _interpolation(0, CELL_PX, products), _interpolation(-1, _AROUND, products)
    return inner @ products @ outer.T


def _interpolation(first_pixel: int, count: int, like: Tensor) -> Tensor:
    """Weights (count^2, 36) of the features for the pixels of a square window, linear in both directions."""
    pixels = torch.arange(first_pixel, first_pixel + count, device=like.device, dtype=like.dtype)
    places = pixels / 2 - 0.25 + _FIRST
    features = torch.arange(_PATCH, device=like.device, dtype=like.dtype)
    along = (1.0 - (places[:, None] - features).abs()).clamp(min=0.0)  # (count, 6)
    return torch.kron(along, along)

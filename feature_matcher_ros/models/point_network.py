"""What networks that detect and describe points have in common."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from feature_matcher_ros.models.point_network_config import PointNetworkConfig


class PointNetwork(Protocol):
    """Works in two steps, between which the best points are chosen.

    ``image`` is (1, channels, H, W) in [0, 1], red first where there are three channels; H and W are multiples of
    ``config.multiple``. ``valid`` (1, 1, H, W) is 1 where the image is, and 0 where it was extended to such a size.
    Pixel centres are at integers.
    """

    config: PointNetworkConfig

    def detect(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (H, W) of points and 0 elsewhere, their shifts (2, H, W) to x and y, and what ``describe`` needs."""

    def describe(self, features: Tensor, keypoints: Tensor) -> Tensor:
        """Unit vectors (N, descriptor_size) for keypoints (N, 2), pixels of the image."""


def keep_maxima(scores: Tensor, radius: int) -> Tensor:
    """Set all of (1, 1, H, W) to 0 but the largest in their neighbourhood, and after these the next, twice."""
    is_kept = scores == _largest_around(scores, radius)
    for _ in range(2):
        is_near_kept = _largest_around(is_kept.to(scores.dtype), radius) > 0
        others = torch.where(is_near_kept, 0.0, scores)
        is_kept = is_kept | ((others == _largest_around(others, radius)) & ~is_near_kept)
    return torch.where(is_kept, scores, 0.0)


def inner(scores: Tensor, valid: Tensor, border: int) -> Tensor:
    """Set (1, 1, H, W) to 0 where the image has fewer than ``border`` pixels on one side."""
    outside = functional.pad(1.0 - valid, (border,) * 4, value=1.0)
    return scores * (1.0 - functional.max_pool2d(outside, 2 * border + 1, stride=1))


def sample(features: Tensor, pixels: Tensor) -> Tensor:
    """Interpolate (1, C, h, w) linearly at pixels (..., 2) of this map; 0 outside. Returns (C, ...)."""
    height, width = features.shape[-2:]
    grid = torch.stack((2.0 * pixels[..., 0] / (width - 1) - 1.0, 2.0 * pixels[..., 1] / (height - 1) - 1.0), dim=-1)
    flat = grid.flatten(0, -2)[None, None]  # (1, 1, N, 2)
    sampled = functional.grid_sample(features, flat, mode="bilinear", align_corners=True)[0, :, 0]
    return sampled.unflatten(-1, pixels.shape[:-1])


def scores_of_cells(logits: Tensor) -> Tensor:
    """Probabilities (1, 1, 8 h, 8 w) of the pixels of cells, given (1, 65, h, w) whose last channel is "no point"."""
    return functional.pixel_shuffle(torch.softmax(logits, dim=1)[:, :64], 8)


def no_shifts(scores: Tensor) -> Tensor:
    """(2, H, W) for networks whose points lie at pixels."""
    return torch.zeros_like(scores[0]).repeat(2, 1, 1)


def _largest_around(scores: Tensor, radius: int) -> Tensor:
    return functional.max_pool2d(scores, 2 * radius + 1, stride=1, padding=radius)

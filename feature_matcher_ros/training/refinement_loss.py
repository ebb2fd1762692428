"""What a detector-free network learns of the points in matching cells, different for each kind of network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from feature_matcher_ros.models.dense_config import CELL_PX
from feature_matcher_ros.models.dense_network import CellPairs, EncodedPair, Pair
from feature_matcher_ros.models.efficient_loftr import EfficientLoftr
from feature_matcher_ros.models.efficient_loftr_refinement import (
    expected_fractions,
    log_window_probabilities,
    window_similarities,
)
from feature_matcher_ros.models.loftr import Loftr
from feature_matcher_ros.training.dense_batches import DenseBatch
from feature_matcher_ros.training.dense_ground_truth import NO_PIXEL

_LEAST_VARIANCE = 1e-10


class Refinement(nn.Module, ABC):
    """Losses of the points of a batch."""

    weights: ClassVar[tuple[float, ...]]  # of the losses, where that of cells has 1

    @abstractmethod
    def forward(self, encoded: EncodedPair, states: Pair, batch: DenseBatch) -> list[Tensor]:
        """One for each weight; of the maps and states of those pairs of a batch that have windows."""


class TwoStepRefinement(Refinement):
    """Efficient LoFTR: which pixel, and which fraction of one."""

    weights = (1.0, 0.25)

    def __init__(self, model: EfficientLoftr) -> None:
        super().__init__()
        self.model = model

    def forward(self, encoded: EncodedPair, states: Pair, batch: DenseBatch) -> list[Tensor]:
        both = {name: torch.cat((encoded[0][name], encoded[1][name])) for name in self.model.config.maps}
        found = self.model.fine_map(both, torch.cat(states))
        with torch.autocast(found.device.type, enabled=False):
            maps = found.float().chunk(2)
            first, second = window_similarities((maps[0], maps[1]), cell_pairs(batch))
            return [pixel_loss(first, batch.pixel1), fraction_loss(second, batch.pixel1, batch.fraction)]


class ExpectationRefinement(Refinement):
    """LoFTR: where in window 1 the place of cell 0 is."""

    weights = (1.0,)

    def __init__(self, model: Loftr) -> None:
        super().__init__()
        self.model = model

    def forward(self, encoded: EncodedPair, states: Pair, batch: DenseBatch) -> list[Tensor]:
        pairs = cell_pairs(batch)
        mean, variance = self.model.expected(encoded, states, pairs)
        return [variance_weighted_loss(mean.float(), variance.float(), true_offsets(batch))]


def cell_pairs(batch: DenseBatch) -> CellPairs:
    """The matching cells that have windows."""
    return CellPairs(batch.window_pair, batch.cell0, batch.cell1)


def true_offsets(batch: DenseBatch) -> Tensor:
    """From the places of cells 1 to those of their partners in image 1 (M, 2)."""
    columns = batch.image1.shape[3] // CELL_PX
    places = CELL_PX * torch.stack((batch.cell1 % columns, batch.cell1 // columns), dim=-1)
    return batch.place[batch.window_pair, batch.cell0] - places


def pixel_loss(similarities: Tensor, pixel1: Tensor) -> Tensor:
    """Negative log probability of the true pairs of pixels of windows, mean over all of these.

    ``similarities`` are (M, 64, 100), ``pixel1`` (M, 64).
    """
    window, pixel0 = torch.nonzero(pixel1 != NO_PIXEL, as_tuple=True)
    chosen = log_window_probabilities(similarities)[window, pixel0, pixel1[window, pixel0]]
    return -chosen.sum() / max(1, len(window))


def fraction_loss(similarities: Tensor, pixel1: Tensor, fraction: Tensor) -> Tensor:
    """Squared distance in px^2 of the expected from the true fraction, mean over the true pairs of pixels.

    ``similarities`` are (M, 64, 100), ``pixel1`` (M, 64), ``fraction`` (M, 64, 2).
    """
    window, pixel0 = torch.nonzero(pixel1 != NO_PIXEL, as_tuple=True)
    found = expected_fractions(similarities, window, pixel0, pixel1[window, pixel0])
    return (found - fraction[window, pixel0]).square().sum() / max(1, len(window))


def variance_weighted_loss(mean: Tensor, variance: Tensor, truth: Tensor) -> Tensor:
    """LoFTR's fine loss: squared distance of places (M, 2), weighted by the inverse standard deviation.

    The weights (from ``variance`` (M,)) have mean 1 and are taken for constants, lest the network learns to be unsure.
    """
    inverse = variance.detach().clamp(min=_LEAST_VARIANCE).rsqrt()
    weight = inverse / inverse.mean()
    return (weight * (mean - truth).square().sum(dim=1)).sum() / max(1, len(mean))

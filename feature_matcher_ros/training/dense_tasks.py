"""Training of networks without a detector."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from feature_matcher_ros.models.dense_config import EfficientLoftrConfig, LoftrConfig
from feature_matcher_ros.models.dense_stages import AnyDenseNetwork
from feature_matcher_ros.models.efficient_loftr import EfficientLoftr, efficient_loftr_from_checkpoint
from feature_matcher_ros.models.loftr import Loftr, loftr_from_checkpoint
from feature_matcher_ros.training.config import TrainingConfig
from feature_matcher_ros.training.dense_batches import DenseBatch, DenseBatches
from feature_matcher_ros.training.dense_initial_weights import untrained_efficient_loftr, untrained_loftr
from feature_matcher_ros.training.dense_loss import (
    DenseConfidenceObjective,
    DenseMatchingObjective,
    count_cells,
    round_scores,
    run_rounds,
)
from feature_matcher_ros.training.dense_views import DenseView
from feature_matcher_ros.training.match_counts import MatchCounts
from feature_matcher_ros.training.refinement_loss import ExpectationRefinement, Refinement, TwoStepRefinement
from feature_matcher_ros.training.task import CONFIDENCE, Task
from feature_matcher_ros.training.view_store import DENSE_VIEWS, ViewFormat

_Network = TypeVar("_Network", bound=AnyDenseNetwork)


class DenseTask(Task[DenseView, DenseBatch, _Network]):
    """What all of them share."""

    @property
    def view_format(self) -> ViewFormat[DenseView]:
        return DENSE_VIEWS

    def batches(self, scenes: Sequence[Sequence[DenseView]], count: int, seed: tuple[int, ...]) -> Dataset[DenseBatch]:
        config = self.config
        return DenseBatches(
            scenes,
            num_windows=config.num_keypoints,
            batch_size=config.batch_size,
            num_batches=count,
            seed=seed,
        )

    @abstractmethod
    def refinement(self, model: _Network) -> Refinement:
        """The losses of points."""

    def objective(self, stage: str, model: _Network) -> nn.Module:
        if stage == CONFIDENCE:
            return DenseConfidenceObjective(model)
        return DenseMatchingObjective(model, self.refinement(model))

    def count(self, model: _Network, batch: DenseBatch) -> list[MatchCounts]:
        _, states = run_rounds(model, batch)
        return [count_cells(round_scores(model, pair), batch) for pair in states]


class EfficientLoftrTask(DenseTask[EfficientLoftr]):
    """arXiv 2403.04765."""

    def __init__(self, config: TrainingConfig, network: EfficientLoftrConfig) -> None:
        super().__init__(config)
        self._network = network

    @property
    def name(self) -> str:
        return self._network.method

    def untrained(self) -> EfficientLoftr:
        return untrained_efficient_loftr(self._network, self.config.seed)

    def from_checkpoint(self, tensors: Mapping[str, Tensor]) -> EfficientLoftr:
        return efficient_loftr_from_checkpoint(tensors)

    def refinement(self, model: EfficientLoftr) -> Refinement:
        return TwoStepRefinement(model)

    def minimised(self, stage: str, losses: Tensor) -> Tensor:
        return losses.mean() if stage == CONFIDENCE else _weighted(losses, TwoStepRefinement.weights)


class LoftrTask(DenseTask[Loftr]):
    """arXiv 2104.00680; it cannot stop early, and so has no second stage."""

    def __init__(self, config: TrainingConfig, network: LoftrConfig) -> None:
        super().__init__(config)
        self._network = network

    @property
    def name(self) -> str:
        return self._network.method

    def untrained(self) -> Loftr:
        return untrained_loftr(self._network, self.config.seed)

    def from_checkpoint(self, tensors: Mapping[str, Tensor]) -> Loftr:
        return loftr_from_checkpoint(tensors)

    def refinement(self, model: Loftr) -> Refinement:
        return ExpectationRefinement(model)

    def minimised(self, stage: str, losses: Tensor) -> Tensor:
        return _weighted(losses, ExpectationRefinement.weights)


def _weighted(losses: Tensor, weights: tuple[float, ...]) -> Tensor:
    """The mean over the rounds, and the losses of refinement, which are the last ones."""
    cells, points = losses.split([len(losses) - len(weights), len(weights)])
    return cells.mean() + points @ torch.tensor(weights, device=points.device, dtype=points.dtype)

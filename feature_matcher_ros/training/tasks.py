"""What differs between the networks that are trained: their views, batches, losses and counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from feature_matcher_ros.models.dense_config import EfficientLoftrConfig
from feature_matcher_ros.models.efficient_loftr import EfficientLoftr, efficient_loftr_from_checkpoint
from feature_matcher_ros.models.lightglue import LightGlueModel, lightglue_from_checkpoint
from feature_matcher_ros.models.lightglue_config import LightGlueConfig
from feature_matcher_ros.training.config import TrainingConfig
from feature_matcher_ros.training.dense_batches import DenseBatch, DenseBatches
from feature_matcher_ros.training.dense_initial_weights import untrained_efficient_loftr
from feature_matcher_ros.training.dense_loss import (
    DenseConfidenceObjective,
    DenseMatchingObjective,
    count_cells,
    round_logits,
    run_rounds,
    weighted_sum,
)
from feature_matcher_ros.training.dense_views import DenseView
from feature_matcher_ros.training.ground_truth import label_pairs
from feature_matcher_ros.training.initial_weights import untrained_lightglue
from feature_matcher_ros.training.lightglue_loss import (
    ConfidenceObjective,
    MatchingObjective,
    count_matches,
    run_layers,
)
from feature_matcher_ros.training.match_counts import MatchCounts
from feature_matcher_ros.training.pair_batches import PairBatch, PairBatches
from feature_matcher_ros.training.view_store import DENSE_VIEWS, POINT_VIEWS, ViewFormat
from feature_matcher_ros.training.views import View

MATCHING, CONFIDENCE = "matching", "confidence"


class Batch(Protocol):
    """Pairs as one training step sees them."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""


_View = TypeVar("_View")
_Batch = TypeVar("_Batch", bound=Batch)
_Model = TypeVar("_Model", bound=nn.Module)


class Task(ABC, Generic[_View, _Batch, _Model]):
    """One kind of network, and how it is trained in the two stages."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the file that the weights are written to."""

    @property
    @abstractmethod
    def view_format(self) -> ViewFormat[_View]:
        """How the views are made that it is trained on."""

    @abstractmethod
    def untrained(self) -> _Model:
        """The network that training begins with."""

    @abstractmethod
    def from_checkpoint(self, tensors: Mapping[str, Tensor]) -> _Model:
        """A network with weights that training may begin with instead.

        Raises:
            WeightsError: the tensors are not those of such a network.
        """

    @abstractmethod
    def batches(self, scenes: Sequence[Sequence[_View]], count: int, seed: tuple[int, ...]) -> Dataset[_Batch]:
        """Random pairs, the same for the same seed."""

    @abstractmethod
    def objective(self, stage: str, model: _Model) -> nn.Module:
        """Takes a batch and returns losses (n,)."""

    @abstractmethod
    def minimised(self, stage: str, losses: Tensor) -> Tensor:
        """The one number () to be made small."""

    @abstractmethod
    def count(self, model: _Model, batch: _Batch) -> list[MatchCounts]:
        """The matches that the network finds after each of its layers, against the truth."""


class LightGlueTask(Task[View, PairBatch, LightGlueModel]):
    """Matches points that were found before (arXiv 2306.13643)."""

    def __init__(self, config: TrainingConfig, network: LightGlueConfig) -> None:
        super().__init__(config)
        self._network = network

    @property
    def name(self) -> str:
        assert self.config.data.extractor is not None
        return f"lightglue_{self.config.data.extractor.name}"

    @property
    def view_format(self) -> ViewFormat[View]:
        return POINT_VIEWS

    def untrained(self) -> LightGlueModel:
        return untrained_lightglue(self._network, self.config.seed)

    def from_checkpoint(self, tensors: Mapping[str, Tensor]) -> LightGlueModel:
        return lightglue_from_checkpoint(tensors)

    def batches(self, scenes: Sequence[Sequence[View]], count: int, seed: tuple[int, ...]) -> Dataset[PairBatch]:
        config = self.config
        return PairBatches(
            scenes,
            self._network,
            num_keypoints=config.num_keypoints,
            batch_size=config.batch_size,
            num_batches=count,
            seed=seed,
        )

    def objective(self, stage: str, model: LightGlueModel) -> nn.Module:
        return MatchingObjective(model) if stage == MATCHING else ConfidenceObjective(model)

    def minimised(self, stage: str, losses: Tensor) -> Tensor:
        return losses.mean()

    def count(self, model: LightGlueModel, batch: PairBatch) -> list[MatchCounts]:
        labels = label_pairs(*batch.keypoints, *batch.projected)
        return [
            count_matches(model.assignment(layer, *states), labels)
            for layer, states in enumerate(run_layers(model, batch))
        ]


class EfficientLoftrTask(Task[DenseView, DenseBatch, EfficientLoftr]):
    """Matches images without a detector (arXiv 2403.04765)."""

    def __init__(self, config: TrainingConfig, network: EfficientLoftrConfig) -> None:
        super().__init__(config)
        self._network = network

    @property
    def name(self) -> str:
        return self._network.method

    @property
    def view_format(self) -> ViewFormat[DenseView]:
        return DENSE_VIEWS

    def untrained(self) -> EfficientLoftr:
        return untrained_efficient_loftr(self._network, self.config.seed)

    def from_checkpoint(self, tensors: Mapping[str, Tensor]) -> EfficientLoftr:
        return efficient_loftr_from_checkpoint(tensors)

    def batches(self, scenes: Sequence[Sequence[DenseView]], count: int, seed: tuple[int, ...]) -> Dataset[DenseBatch]:
        config = self.config
        return DenseBatches(
            scenes,
            num_windows=config.num_keypoints,
            batch_size=config.batch_size,
            num_batches=count,
            seed=seed,
        )

    def objective(self, stage: str, model: EfficientLoftr) -> nn.Module:
        return DenseMatchingObjective(model) if stage == MATCHING else DenseConfidenceObjective(model)

    def minimised(self, stage: str, losses: Tensor) -> Tensor:
        return weighted_sum(losses) if stage == MATCHING else losses.mean()

    def count(self, model: EfficientLoftr, batch: DenseBatch) -> list[MatchCounts]:
        _, states = run_rounds(model, batch)
        return [count_cells(round_logits(model, pair), batch) for pair in states]


def task_of(config: TrainingConfig) -> Task[Any, Any, Any]:
    """The task that a recipe is for."""
    if isinstance(config.network, EfficientLoftrConfig):
        return EfficientLoftrTask(config, config.network)
    return LightGlueTask(config, config.network)

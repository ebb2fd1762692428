"""Training of LightGlue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.utils.data import Dataset

from feature_matcher_ros.models.lightglue import LightGlueModel, lightglue_from_checkpoint
from feature_matcher_ros.models.lightglue_config import LightGlueConfig
from feature_matcher_ros.training.config import TrainingConfig
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
from feature_matcher_ros.training.task import MATCHING, Task
from feature_matcher_ros.training.view_store import POINT_VIEWS, ViewFormat
from feature_matcher_ros.training.views import View


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
